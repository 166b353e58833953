"""Synthetic ageing: a clean photograph goes through the camera, the darkroom, a century in a box, and a scanner.

The order is that of the real thing: optics (defocus, shake, a weak lens), fading and casts, grain, structured damage
(:mod:`oldphoto.training.damage`), then the scan (resampling, noise, halftone of printed pictures, JPEG). Sources:
Wan et al., CVPR 2020, sec. 3.1; Zhang et al. (BSRGAN), ICCV 2021, sec. 3; Wang et al. (Real-ESRGAN), ICCVW 2021,
sec. 3; Ivanova et al., VISAPP 2022, for film damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from oldphoto.arrays import LUMA, ByteImage, FloatImage
from oldphoto.training.damage import PLAIN, Repertoire, damage, smooth_noise


@dataclass(frozen=True)
class Severity:
    """How hard each family of ageing hits, 0 (not at all) to 1 (the worst that is still a photograph)."""

    optics: float = 0.5
    tone: float = 0.5
    noise: float = 0.5
    damage: float = 0.5
    scan: float = 0.5

    @classmethod
    def random(cls, rng: Generator) -> Severity:
        """Each family absent in about a fifth of the photographs, else uniformly distributed."""
        drawn = rng.random(5) * (rng.random(5) > 0.2)
        return cls(*drawn.tolist())


@dataclass(frozen=True)
class Aged:
    """An aged photograph and what is known about it.

    ``photo``: the aged picture; ``mask``: H × W, 1 where structured damage hides the picture; ``toned``: the clean
    picture with the fading and the cast of the aged one, but sharp, without noise or damage: what is left to do for
    tone alone. All float32 in [0, 1].
    """

    photo: FloatImage
    mask: FloatImage
    toned: FloatImage


def age(
    clean: FloatImage,
    rng: Generator,
    severity: Severity | None = None,
    scale: float = 1.0,
    textures: Sequence[ByteImage] = (),
    repertoire: Repertoire = PLAIN,
) -> Aged:
    """Age a clean photograph.

    Parameters
    ----------
    clean : float32 H × W × 3 in [0, 1]
    rng : the source of chance; the same state gives the same result
    severity : how hard each family hits; random when not given
    scale : pixels of this picture per pixel of a 400-px photograph: blur, grain and defects grow with it
    textures : 8-bit masks of real damage (white = damage) to lay over, besides the drawn defects
    repertoire : the drawn defects
    """
    severity = severity or Severity.random(rng)
    tone = _Tone.random(rng, severity.tone, clean.shape[:2])
    picture = tone.apply(_optics(clean, rng, severity.optics, scale))
    toned = tone.apply(clean)
    before_damage = rng.random() < 0.5
    if before_damage:
        picture = _noise(picture, rng, severity.noise, scale)
    mask = np.zeros(clean.shape[:2], np.float32)
    if severity.damage > 0:
        count = 1 + rng.binomial(5, severity.damage)
        picture, mask = damage(picture, rng, count, scale, textures, repertoire)
    if not before_damage:
        picture = _noise(picture, rng, severity.noise, scale)
    return Aged(_scan(picture, rng, severity.scan, scale), mask, toned)


def fade(picture: FloatImage, rng: Generator, severity: float) -> FloatImage:
    """The fading, casts and uneven light of `age` alone: H × W × 3 in [0, 1] to the same."""
    return _Tone.random(rng, severity, picture.shape[:2]).apply(picture)


def _optics(picture: FloatImage, rng: Generator, severity: float, scale: float) -> FloatImage:
    """Blur of lens and shutter, and lost resolution: none to two of them."""
    if severity == 0:
        return picture
    for blur in rng.permutation(4)[: rng.integers(1, 3)]:
        if blur == 0:
            sigma = scale * rng.uniform(0.2, 0.3 + 1.8 * severity, 2)
            picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma[0], None, sigma[1]), np.float32)
        elif blur == 1:
            spread = _disc(scale * rng.uniform(0.5, 0.6 + 2 * severity))
            picture = np.asarray(cv2.filter2D(picture, -1, spread), np.float32)
        elif blur == 2 and rng.random() < 0.5:
            spread = _streak(scale * rng.uniform(1, 2 + 6 * severity), rng.uniform(0, np.pi))
            picture = np.asarray(cv2.filter2D(picture, -1, spread), np.float32)
        elif blur == 3:
            picture = _resample(picture, rng, 1 + scale * severity * rng.uniform(0, 1.5))
    return np.clip(np.asarray(picture, np.float32), 0, 1)


def _disc(radius: float) -> FloatImage:
    """The point-spread function of defocus: a disc with an anti-aliased rim, summing to 1."""
    half = int(np.ceil(radius))
    ys, xs = np.mgrid[-half : half + 1, -half : half + 1]
    disc = np.clip(radius + 0.5 - np.hypot(xs, ys), 0, 1).astype(np.float32)
    return np.asarray(disc / disc.sum(), np.float32)


def _streak(length: float, angle: float) -> FloatImage:
    """The point-spread function of linear motion, summing to 1."""
    half = int(np.ceil(length / 2)) + 1
    ys, xs = np.mgrid[-half : half + 1, -half : half + 1]
    along = xs * np.cos(angle) + ys * np.sin(angle)
    across = -xs * np.sin(angle) + ys * np.cos(angle)
    streak = np.clip(length / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    return np.asarray(streak / streak.sum(), np.float32)


def _resample(picture: FloatImage, rng: Generator, factor: float) -> FloatImage:
    """Down by ``factor`` and up again, with interpolations that scanners and web sites use."""
    height, width = picture.shape[:2]
    small = (max(4, round(width / factor)), max(4, round(height / factor)))
    down = int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    up = int(
        rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_CUBIC, cv2.INTER_NEAREST], p=[0.4, 0.3, 0.2, 0.1])
    )
    resized = cv2.resize(cv2.resize(picture, small, interpolation=down), (width, height), interpolation=up)
    return np.asarray(np.clip(resized, 0, 1), np.float32)


@dataclass(frozen=True)
class _Tone:
    """Fading, yellowing, toning and uneven light: a curve, a colour matrix and a smooth field."""

    gamma: FloatImage
    low: FloatImage
    high: FloatImage
    matrix: FloatImage
    gain: FloatImage
    veil: FloatImage

    @classmethod
    def random(cls, rng: Generator, severity: float, shape: tuple[int, int]) -> _Tone:
        gamma = np.exp(rng.normal(0, 0.15 * severity) + rng.normal(0, 0.06 * severity, 3))
        low = severity * (0.3 * rng.random() + 0.1 * rng.random(3) * (rng.random() < 0.6))
        high = 1 - severity * (0.4 * rng.random() + 0.25 * rng.random(3) * (rng.random() < 0.6))
        if rng.random() < 0.5:  # paper and varnish turn yellow: blue is lost first
            high = high * (1 - severity * rng.random() * np.array([0.0, 0.12, 0.45]))
        matrix = np.eye(3)
        saturation = 1 - severity * rng.random() * (rng.random() < 0.7)
        matrix = saturation * matrix + (1 - saturation) * LUMA[None]
        matrix = matrix + rng.normal(0, 0.02 * severity, (3, 3))
        gain: NDArray[np.floating] = np.ones((*shape, 1))
        veil: NDArray[np.floating] = np.zeros((*shape, 1))
        if rng.random() < 0.5:
            gain = 1 + 0.08 * severity * smooth_noise(shape, rng.uniform(1, 3), rng)[..., None]
            veil = 0.04 * severity * smooth_noise(shape, rng.uniform(1, 3), rng)[..., None]
        if rng.random() < 0.3:
            ys, xs = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None]
            gain = gain * (1 - severity * rng.uniform(0.1, 0.35) * (xs**2 + ys**2))[..., None]
        return cls(
            *(np.asarray(value, np.float32) for value in (gamma, low, np.maximum(high, low + 0.2), matrix, gain, veil))
        )

    def apply(self, picture: FloatImage) -> FloatImage:
        mixed = np.clip(picture @ self.matrix.T, 0, 1)
        curved = self.low + (self.high - self.low) * mixed**self.gamma
        return np.asarray(np.clip(curved * self.gain + self.veil, 0, 1), np.float32)


def _noise(picture: FloatImage, rng: Generator, severity: float, scale: float) -> FloatImage:
    """Grain and noise: one or two of Gaussian, grain (correlated), Poisson, speckle, impulses."""
    if severity == 0:
        return picture
    kinds = rng.choice(5, rng.integers(1, 3), replace=False, p=[0.3, 0.3, 0.15, 0.15, 0.1])
    for kind in kinds:
        sigma = rng.uniform(0.01, 0.02 + 0.14 * severity)
        channels = 1 if rng.random() < 0.5 else 3
        if kind == 0:
            noise = sigma * _white(picture, rng, channels)
        elif kind == 1:
            noise = sigma * _grain(picture, rng, channels, scale) * (0.4 + 2.4 * picture * (1 - picture))
        elif kind == 2:
            photons = 10 ** rng.uniform(3.2 - 1.7 * severity, 3.5)
            noise = rng.poisson(picture * photons).astype(np.float32) / np.float32(photons) - picture
        elif kind == 3:
            noise = 1.5 * sigma * _white(picture, rng, channels) * picture
        else:
            noise = _impulses(picture, rng, severity) - picture
        picture = np.clip(picture + noise, 0, 1).astype(np.float32)
    return picture


def _white(picture: FloatImage, rng: Generator, channels: int) -> FloatImage:
    return rng.standard_normal((*picture.shape[:2], channels), dtype=np.float32)


def _grain(picture: FloatImage, rng: Generator, channels: int, scale: float) -> FloatImage:
    """Noise of unit variance whose neighbours are alike: developed silver clumps over one to a few pixels."""
    sigma = scale * rng.uniform(0.4, 1.3)
    noise = cv2.GaussianBlur(_white(picture, rng, channels), (0, 0), sigma).reshape(*picture.shape[:2], channels)
    return np.asarray(noise / (noise.std() + 1e-6), np.float32)


def _impulses(picture: FloatImage, rng: Generator, severity: float) -> FloatImage:
    """Salt and pepper: pixels that are simply white or black."""
    hit = rng.random(picture.shape[:2]) < 0.02 * severity * rng.random()
    salt = rng.random(picture.shape[:2]) < rng.uniform(0.2, 0.8)
    return np.where(hit[..., None], salt[..., None], picture).astype(np.float32)


def _scan(picture: FloatImage, rng: Generator, severity: float, scale: float) -> FloatImage:
    """What scanning, printing and publishing add: softness, halftone, sharpening, JPEG, 8 bits."""
    if severity > 0:
        if rng.random() < 0.4:
            sigma = scale * rng.uniform(0.2, 0.3 + 0.6 * severity)
            picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.float32)
        if rng.random() < 0.05:
            picture = _halftone(picture, rng, severity, scale)
        if rng.random() < 0.15:
            soft = cv2.GaussianBlur(picture, (0, 0), scale * rng.uniform(0.6, 1.5))
            picture = picture + severity * rng.random() * (picture - soft)
        if rng.random() < 0.2:
            picture = _resample(picture, rng, 1 + severity * rng.random())
    picture = np.clip(picture, 0, 1)
    if severity > 0 and rng.random() < 0.7:
        return jpeg(picture, round(rng.uniform(95 - 65 * severity, 95)))
    return np.asarray(np.round(picture * 255) / 255, np.float32)


def _halftone(picture: FloatImage, rng: Generator, severity: float, scale: float) -> FloatImage:
    """The dot screen of a picture cut from a newspaper: a threshold wave at an angle, softened by the scan."""
    period, angle = scale * rng.uniform(2.5, 4), rng.uniform(0, np.pi / 2)
    ys, xs = np.mgrid[: picture.shape[0], : picture.shape[1]] * (2 * np.pi / period)
    screen = np.cos(xs * np.cos(angle) + ys * np.sin(angle)) * np.cos(ys * np.cos(angle) - xs * np.sin(angle))
    dots = np.clip((picture - 0.5 + 0.5 * screen[..., None]) * 3 + 0.5, 0, 1)
    share = 0.2 + 0.4 * severity * rng.random()
    return np.asarray(picture + share * (dots - picture), np.float32)


def jpeg(picture: FloatImage, quality: int) -> FloatImage:
    """A picture, H × W × 3 in [0, 1], saved as JPEG of that quality and read again."""
    pixels = np.round(picture[..., ::-1] * 255).astype(np.uint8)  # OpenCV has blue first
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.float32)[..., ::-1] / np.float32(255)
