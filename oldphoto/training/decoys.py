"""Decoys: what looks like damage and belongs to the picture.

Wires, branches, railings, lettering, glints and the borders of mounted prints are thin, straight or bright as
scratches, cracks and dust are. They are drawn into the clean picture, so that lens, fading and grain act on them as
on all else; damage comes later and is crisper. A detector that has not been shown them erases the ropes of ships.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from oldphoto.arrays import ByteImage, FloatImage, black_and_white, is_gray
from oldphoto.training.damage import anywhere, draw, opacity_of, smooth_noise, voronoi, walk

Kind = Callable[[FloatImage, Generator, float], FloatImage]


def paste_decoys(picture: FloatImage, rng: Generator, scale: float = 1.0) -> FloatImage:
    """The picture, H × W × 3 in [0, 1], with one or two kinds of decoys; ``scale`` as in `age`.

    In a black and white picture they are so too: there, colour is a sure sign of damage.
    """
    gray = is_gray(picture)
    frequency = np.array([often for _, often in KINDS])
    for index in rng.choice(len(KINDS), rng.integers(1, 3), replace=False, p=frequency / frequency.sum()):
        picture = KINDS[index][0](picture, rng, scale)
    return black_and_white(picture) if gray else picture


def wires(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """Ropes, cables and poles: long, of even width and colour, mostly dark, several of them alike."""
    canvas = np.zeros(picture.shape[:2], np.uint8)
    limit = float(np.hypot(*picture.shape[:2]))
    angle = rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 5)):
        angle = angle + rng.normal(0, 0.2)
        length = limit * rng.uniform(0.4, 1.3)
        start = anywhere(picture.shape[:2], rng) - 0.5 * length * np.array([np.cos(angle), np.sin(angle)], np.float32)
        draw(canvas, walk(start, angle, length, rng.choice([0.0, 0.1, 0.4]), rng), _thickness(rng, scale))
    return _laid(picture, canvas, rng, 0.75)


def branches(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """Bare twigs: crooked, forking, thinner at every fork."""
    canvas = np.zeros(picture.shape[:2], np.uint8)
    limit = float(np.hypot(*picture.shape[:2]))
    waiting = [(anywhere(picture.shape[:2], rng), rng.uniform(0, 2 * np.pi), limit * rng.uniform(0.3, 0.8), 4)]
    while waiting:
        start, angle, length, strength = waiting.pop()
        path = walk(start, angle, length, rng.uniform(0.2, 0.8), rng)
        draw(canvas, path, max(1, round(0.7 * scale * strength)))
        if strength > 1:
            for _ in range(rng.integers(1, 4)):
                joint = path[rng.integers(len(path) // 3, len(path))]
                waiting.append((joint, angle + rng.choice([-1, 1]) * rng.uniform(0.3, 1.0), length / 2, strength - 1))
    return _laid(picture, canvas, rng, 0.85)


def railing(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """Fences, planks, blinds, window bars: parallel lines at even distances, in one direction or two."""
    height, width = picture.shape[:2]
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    angle, period = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1), scale * np.exp(rng.uniform(1.8, 3.6))
    share = np.float32(rng.uniform(0.08, 0.35))
    bars = np.zeros((height, width), np.float32)
    for turned in (angle, angle + np.pi / 2)[: rng.integers(1, 3)]:
        phase = (xs * np.float32(np.cos(turned)) + ys * np.float32(np.sin(turned))) / np.float32(period) % 1
        bars = np.maximum(bars, np.clip((share / 2 - np.abs(phase - 0.5)) * np.float32(period) + 0.5, 0, 1))
    top, bottom = np.sort(rng.integers(0, height + 1, 2))
    left, right = np.sort(rng.integers(0, width + 1, 2))
    window = np.zeros_like(bars)
    window[top:bottom, left:right] = bars[top:bottom, left:right]
    return _laid(picture, np.asarray(255 * window, np.uint8), rng, 0.5)


def lettering(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """Signs, captions, numbers scratched on the plate by the photographer: they belong to the document."""
    canvas = np.zeros(picture.shape[:2], np.uint8)
    letters = np.array(list(string.ascii_letters + string.digits + " .-"))
    x, y = (round(float(value)) for value in anywhere(picture.shape[:2], rng))
    size, font = scale * rng.uniform(0.3, 1.0), int(rng.choice([0, 2, 3, 4, 5, 6, 7]))
    for line in range(rng.integers(1, 4)):
        text = "".join(rng.choice(letters, rng.integers(3, 20)))
        place = (x - round(40 * size), y + round(30 * size * line))
        cv2.putText(canvas, text, place, font, size, 255, max(1, round(2 * size)), cv2.LINE_AA)
    return _laid(picture, canvas, rng, 0.5)


def glints(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """Buttons, pearls, lamps, eyes, light between leaves: small bright spots with soft edges, in groups."""
    canvas = np.zeros(picture.shape[:2], np.uint8)
    centre = anywhere(picture.shape[:2], rng)
    for _ in range(rng.integers(2, 20)):
        place = np.round((centre + rng.normal(0, 40 * scale, 2)) * 16).astype(int).tolist()
        cv2.circle(canvas, place, round(16 * scale * rng.uniform(0.5, 2.5)), 255, -1, cv2.LINE_AA, 4)
    soft = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.6 + 0.6 * scale), np.uint8)
    return _laid(picture, soft, rng, 0.15)


def frame(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """The white, cream or black border of a mounted print: no damage, however straight and bright."""
    height, width = picture.shape[:2]
    angle = rng.normal(0, 0.015)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.5:
        xs, ys, width = ys, xs, height
    distance = xs + np.float32(angle) * ys - np.float32(rng.uniform(0.04, 0.35) * width)
    if rng.random() < 0.5:
        distance = distance[:, ::-1]
    level = rng.choice([rng.uniform(0.8, 1), rng.uniform(0, 0.12)])
    colour = np.clip(level + np.array([0.03, 0.0, -0.06]) * rng.random(), 0, 1).astype(np.float32)
    inside = np.clip(distance + 0.5, 0, 1)[..., None]
    return np.asarray(picture * inside + colour * (1 - inside), np.float32)


def garments(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """Collars, cuffs, ribbons, handkerchiefs: bright or dark areas with clear outlines, softly shaded within."""
    shape = picture.shape[:2]
    for _ in range(rng.integers(1, 4)):
        canvas = np.zeros(shape, np.uint8)
        if rng.random() < 0.4:
            path = walk(anywhere(shape, rng), rng.uniform(0, 2 * np.pi), scale * rng.uniform(20, 120), 0.8, rng)
            draw(canvas, path, max(2, round(scale * rng.uniform(3, 12))))
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            reach = scale * rng.uniform(6, 40) * rng.uniform(0.4, 1, len(angles))
            corners = anywhere(shape, rng) + np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None]
            cv2.fillPoly(canvas, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        level = rng.uniform(0.75, 1.0) if rng.random() < 0.7 else rng.uniform(0, 0.2)
        creases = rng.uniform(0.02, 0.12) * smooth_noise(shape, max(shape) / (scale * rng.uniform(5, 20)), rng)
        cloth = np.clip(level + creases[..., None] + rng.normal(0, 0.03, 3), 0, 1).astype(np.float32)
        opacity = cv2.GaussianBlur(opacity_of(canvas), (0, 0), rng.uniform(0.5, 1.2))[..., None]
        picture = np.asarray(picture + opacity * (cloth - picture), np.float32)
    return picture


def dotted(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """Dotted cloth, lace, knitting, gravel in rows: small light or dark marks in a regular order."""
    shape = picture.shape[:2]
    period, turn = scale * rng.uniform(4, 14), rng.uniform(0, np.pi)
    steps = np.arange(-30, 31) * period
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    turned = grid @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    places = anywhere(shape, rng) + turned + rng.normal(0, rng.uniform(0, 0.15) * period, turned.shape)
    reach = scale * rng.uniform(20, 80)
    canvas = np.zeros(shape, np.uint8)
    radius = round(16 * period * rng.uniform(0.1, 0.3))
    for place in places[np.hypot(*turned.T) < reach]:
        cv2.circle(canvas, np.round(place * 16).astype(int).tolist(), radius, 255, -1, cv2.LINE_AA, 4)
    return _laid(picture, canvas, rng, 0.35)


def masonry(picture: FloatImage, rng: Generator, scale: float, everywhere: bool = False) -> FloatImage:
    """Walls, cobbled streets, tiled roofs, shelves of books: blocks in rows, with light or dark joints."""
    shape = picture.shape[:2]
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.2)
    lean = np.maximum(1 + (rng.normal(0, 0.3) * xs + rng.normal(0, 0.3) * ys) / max(shape), 0.3)
    across, down = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    high = scale * np.exp(rng.uniform(1.6, 3.4))
    wide = high * rng.uniform(1, 4)
    row, below = np.divmod(down / lean / high, 1)
    column, beside = np.divmod(across / lean / wide + rng.choice([0, 0.5]) * row, 1)
    reach = np.minimum(high * np.minimum(below, 1 - below), wide * np.minimum(beside, 1 - beside))
    joints = np.clip(high * rng.uniform(0.03, 0.12) - reach + 0.5, 0, 1)
    shades = rng.normal(0, rng.uniform(0.01, 0.12), 4093)[(131 * row + column).astype(int) % 4093]
    return _paved(picture, shades, joints, rng, scale, everywhere)


def pebbles(picture: FloatImage, rng: Generator, scale: float, everywhere: bool = False) -> FloatImage:
    """Gravel, field stones, foliage, a crowd from afar: things packed closely, each of its own shade."""
    shape = picture.shape[:2]
    count = 4 + round(shape[0] * shape[1] / (scale * np.exp(rng.uniform(1.3, 3.2))) ** 2)
    distance, nearest, borders = voronoi(shape, count, rng)
    gaps = cv2.GaussianBlur(borders.astype(np.float32), (0, 0), scale * rng.uniform(0.5, 1.2))
    shades = rng.normal(0, rng.uniform(0.05, 0.2), int(nearest.max()) + 1)[nearest]
    vaulted = shades - rng.uniform(0, 0.3) * distance / max(distance.max(), 1)
    return _paved(picture, vaulted, np.clip(rng.uniform(1, 2.5) * gaps, 0, 1), rng, scale, everywhere)


def surface(picture: FloatImage, rng: Generator, scale: float) -> FloatImage:
    """A wall or gravel alone, of the picture's size; its details are as of a picture ``scale`` times 400 px."""
    return (masonry if rng.random() < 0.5 else pebbles)(picture, rng, scale, everywhere=True)


def _paved(
    picture: FloatImage, shades: FloatImage, joints: FloatImage, rng: Generator, scale: float, everywhere: bool
) -> FloatImage:
    """Cover all of the picture, or beyond a line, with what has these shades and joints, each H × W."""
    shape = picture.shape[:2]
    level = rng.uniform(0.15, 0.85)
    gap = level + rng.choice([-1, 1]) * rng.uniform(0.1, 0.45)
    rough = rng.uniform(0, 0.08) * smooth_noise(shape, max(shape) / (scale * rng.uniform(1, 3)), rng)
    light = rng.uniform(0, 0.15) * smooth_noise(shape, rng.uniform(1, 4), rng)
    gray = level + shades + rough + joints * (gap - level - shades)
    colour = (gray + light)[..., None] * (1 + rng.choice([0, 1]) * rng.normal(0, 0.12, 3))
    edge = smooth_noise(shape, rng.uniform(0.7, 1.5), rng) * np.float32(max(shape)) + np.float32(0.5 * max(shape))
    covered = np.ones(shape, np.float32) if everywhere or rng.random() < 0.4 else np.clip(edge + 0.5, 0, 1)
    sharp = picture + covered[..., None] * (np.clip(colour, 0, 1) - picture)
    soft = cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.4, 0.9))
    return np.asarray(picture + (covered > 0)[..., None] * (soft - picture), np.float32)


KINDS: tuple[tuple[Kind, float], ...] = (
    (wires, 0.15),
    (branches, 0.4),
    (railing, 1.0),
    (lettering, 1.0),
    (glints, 1.0),
    (frame, 1.0),
    (garments, 1.0),
    (dotted, 1.0),
    (masonry, 1.3),
    (pebbles, 1.3),
)
"""Every kind with how often it is drawn, relative to the others: wires and branches seldom, for scratches and cracks
may look just like them."""


def _thickness(rng: Generator, scale: float) -> int:
    return max(1, round(scale * float(np.exp(rng.uniform(0, 2.3)))))


def _laid(picture: FloatImage, canvas: ByteImage, rng: Generator, dark_share: float) -> FloatImage:
    """Paint what is drawn on the canvas in one colour, with the softness of things in front of a lens."""
    level = rng.uniform(0.0, 0.35) if rng.random() < dark_share else rng.uniform(0.6, 0.97)
    colour = np.clip(level + rng.normal(0, 0.05, 3), 0, 1).astype(np.float32)
    opacity = cv2.GaussianBlur(opacity_of(canvas), (0, 0), rng.uniform(0.5, 0.9))[..., None]
    shading = colour + np.float32(rng.uniform(0.1, 0.4)) * (picture - colour)
    return np.asarray(picture + opacity * (shading - picture), np.float32)
