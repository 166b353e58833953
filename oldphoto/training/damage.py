"""Structured damage of old prints and plates: scratches, hairs, dust, folds, cracks, stains, tears, missing corners.

Every kind is a function ``(picture, rng, scale) -> Layer``: what lies on the picture, as opacity and colour. ``scale``
is the size of one typical defect pixel: 1 for a photograph of about 400 px, 4 for the same print scanned four times
as fine. Light and shadow of folds, which change the picture without hiding it, are in the colour of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from oldphoto.arrays import ByteImage, FloatImage

_SHIFT = 4  # fractional bits of the coordinates given to OpenCV
VISIBLE = 0.05
"""A defect that changes a pixel by less than this (of 1) is not in the mask: nobody could find it."""

SHADED = 0.08
"""The same of light and shadow."""


@dataclass(frozen=True)
class Layer:
    """What covers a picture: ``opacity`` H × W in [0, 1] and ``colour`` broadcastable to H × W × 3 in [0, 1].

    It belongs to the mask from the opacity ``hides`` on; under less the picture stays readable. One that ``shades``
    lies everywhere, and is no more than light and shadow in most places: there, what it changes counts.
    """

    opacity: FloatImage
    colour: FloatImage
    hides: float = 0.15
    shades: bool = False


Kind = Callable[[FloatImage, Generator, float], Layer]
Style = Callable[[Layer, FloatImage, Generator, float], Layer]


def smooth_noise(shape: tuple[int, int], cells: float, rng: Generator, channels: int = 1) -> FloatImage:
    """Normally distributed noise, cubic between about ``cells`` random values along the longer side."""
    height, width = shape
    longest = max(height, width)
    grid = (max(2, round(cells * height / longest) + 1), max(2, round(cells * width / longest) + 1), channels)
    values = rng.standard_normal(grid, dtype=np.float32)
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def walk(start: FloatImage, angle: float, length: float, wobble: float, rng: Generator) -> FloatImage:
    """A path of points (x, y) whose direction changes smoothly; ``wobble`` is the standard deviation in radians."""
    steps = int(np.clip(length / 6, 3, 80))
    turns = np.cumsum(rng.standard_normal(steps) * wobble / np.sqrt(steps)) + angle
    offsets = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1) * (length / steps), 0)
    return np.concatenate([start[None], start + offsets]).astype(np.float32)


def draw(canvas: ByteImage, path: FloatImage, thickness: int, value: float = 1.0) -> None:
    """Draw a path of points (x, y) in px onto an 8-bit canvas; ``value`` in [0, 1]."""
    points = np.round(path * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(canvas, [points], False, int(255 * value), thickness, cv2.LINE_AA, _SHIFT)


def anywhere(shape: tuple[int, int], rng: Generator) -> FloatImage:
    """A point (x, y) of a picture of this height and width."""
    return (rng.random(2) * (shape[1], shape[0])).astype(np.float32)


def voronoi(
    shape: tuple[int, int], count: int, rng: Generator
) -> tuple[FloatImage, NDArray[np.int32], NDArray[np.bool_]]:
    """The Voronoi cells of random places: the distance to the nearest place, its number, and where cells meet."""
    seeds = np.ones(shape, np.uint8)
    seeds[rng.integers(shape[0], size=count), rng.integers(shape[1], size=count)] = 0
    distance, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5)
    across, down = np.diff(nearest, axis=1, append=nearest[:, -1:]), np.diff(nearest, axis=0, append=nearest[-1:])
    return np.asarray(distance, np.float32), np.asarray(nearest, np.int32), (across != 0) | (down != 0)


def opacity_of(canvas: ByteImage) -> FloatImage:
    """A canvas, 0 to 255, as [0, 1]."""
    return canvas.astype(np.float32) / np.float32(255)


def _interrupted(opacity: FloatImage, rng: Generator) -> FloatImage:
    """Let a line fade in and out along its way, as scratches do where the pressure changed."""
    gain = 0.75 + 0.6 * smooth_noise(opacity.shape[:2], rng.uniform(3, 12), rng)
    return np.asarray(np.clip(opacity * np.clip(gain, 0, 1), 0, 1), np.float32)


def mark_colour(rng: Generator, light_share: float = 0.65) -> FloatImage:
    """The colour of bare paper or missing emulsion (light), or of dirt and ink (dark), slightly tinted."""
    level = rng.uniform(0.65, 1.0) if rng.random() < light_share else rng.uniform(0.0, 0.35)
    tint = rng.normal(0, 0.03, 3) + np.array([0.03, 0.0, -0.1]) * rng.random() ** 2
    return np.clip(level + tint, 0, 1).astype(np.float32)


def scratches(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Long thin lines, straight or slightly bent, at any angle; some parallel, as a wiped print has them."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    length_limit = float(np.hypot(*shape))
    angle = rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 7)):
        angle = angle + rng.normal(0, 0.05) if rng.random() < 0.5 else rng.uniform(0, np.pi)
        length = length_limit * rng.uniform(0.1, 1.1)
        start = anywhere(shape, rng) - 0.5 * length * np.array([np.cos(angle), np.sin(angle)], np.float32)
        path = walk(start, angle, length, rng.choice([0.02, 0.15, 0.5]), rng)
        thickness = max(1, round(scale * rng.choice([0.6, 1, 1, 1.5, 2, 3])))
        draw(canvas, path, thickness, rng.uniform(0.35, 1))
    opacity = opacity_of(canvas)
    return Layer(_interrupted(opacity, rng) if rng.random() < 0.6 else opacity, mark_colour(rng))


def film_lines(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Vertical (seldom horizontal) lines through the whole frame, as transport leaves them on film."""
    height, width = picture.shape[:2]
    profile = np.zeros(width, np.float32)
    for _ in range(rng.integers(1, 5)):
        centre, spread = rng.uniform(0, width), scale * rng.uniform(0.3, 1.2)
        profile += rng.uniform(0.3, 1) * np.exp(-0.5 * ((np.arange(width) - centre) / spread) ** 2).astype(np.float32)
    opacity = np.broadcast_to(np.clip(profile, 0, 1), (height, width)).copy()
    if rng.random() < 0.2:
        opacity = np.asarray(cv2.resize(opacity.T, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return Layer(_interrupted(opacity, rng), mark_colour(rng, 0.6))


def hairs(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Curled fibres and lint."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 6)):
        length = scale * rng.uniform(10, 90)
        path = walk(anywhere(shape, rng), rng.uniform(0, 2 * np.pi), length, rng.uniform(1, 5), rng)
        draw(canvas, path, max(1, round(scale * rng.uniform(0.5, 1.4))), rng.uniform(0.4, 1))
    return Layer(opacity_of(canvas), mark_colour(rng, 0.5))


def dust(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Specks and spots, round to ragged, from a pixel to a fly's droppings."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    density = rng.choice([0.5, 1, 3]) * shape[0] * shape[1] / (64 * scale) ** 2
    for _ in range(1 + rng.poisson(2 * density)):
        centre = np.round(anywhere(shape, rng) * (1 << _SHIFT)).astype(int)
        radius = scale * np.exp(rng.uniform(np.log(0.4), np.log(rng.choice([1.5, 4, 12], p=[0.5, 0.4, 0.1]))))
        axes = np.round(radius * rng.uniform(0.6, 1.5, 2) * (1 << _SHIFT)).astype(int)
        cv2.ellipse(
            canvas, centre.tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, int(rng.uniform(120, 256)), -1,
            cv2.LINE_AA, _SHIFT,
        )  # fmt: skip
    if rng.random() < 0.4:
        canvas = ragged(canvas, rng, scale)
    return Layer(opacity_of(canvas), mark_colour(rng, 0.5))


def ragged(canvas: ByteImage, rng: Generator, scale: float) -> ByteImage:
    """Displace every pixel by smooth noise of about one defect pixel, so that outlines become irregular."""
    height, width = canvas.shape
    cells = max(height, width) / (4 * scale)
    shift = smooth_noise((height, width), cells, rng, 2) * np.float32(1.2 * scale)
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(canvas, xs + shift[..., 0], ys + shift[..., 1], cv2.INTER_LINEAR), np.uint8)


def _signed_distance(shape: tuple[int, int], rng: Generator, bend: float) -> FloatImage:
    """Distance in px, H × W, to a random nearly straight line through the picture; negative on one side."""
    height, width = shape
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    x0, y0 = anywhere(shape, rng)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    distance: FloatImage = (xs - x0) * np.float32(np.cos(angle)) + (ys - y0) * np.float32(np.sin(angle))
    return distance + smooth_noise(shape, rng.uniform(2, 10), rng) * np.float32(bend)


def fold(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """A fold: a broken line of bare paper, light on one side of it and shadow on the other, or worn on both."""
    shape = picture.shape[:2]
    distance = _signed_distance(shape, rng, scale * rng.uniform(0.3, 2))
    core = np.clip(scale * rng.uniform(0.4, 2.5) - np.abs(distance) + 0.5, 0, 1)
    if rng.random() < 0.7:
        broken = smooth_noise(shape, max(shape) / (scale * rng.uniform(3, 10)), rng)
        core *= np.clip(2 * (broken + rng.uniform(0.2, 1.2)), 0, 1)
    width = scale * rng.uniform(2, 8)
    side = np.sign(distance) if rng.random() < 0.65 else rng.choice([-1, 1])
    shading = rng.uniform(0.05, 0.3) * side * np.exp(-np.abs(distance) / width)
    lit = np.clip(picture + shading[..., None].astype(np.float32), 0, 1)
    bare = rng.uniform(0.6, 1) * core[..., None].astype(np.float32)
    colour = lit + bare * (mark_colour(rng, 0.85) - lit)
    return Layer(np.ones(shape, np.float32), colour, shades=True)


def cracks(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Branching cracks of the emulsion."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    limit = float(np.hypot(*shape))
    branches = [(anywhere(shape, rng), rng.uniform(0, 2 * np.pi), limit * rng.uniform(0.3, 1), 2)]
    while branches:
        start, angle, length, depth = branches.pop()
        path = walk(start, angle, length, rng.uniform(0.6, 1.6), rng)
        jagged = path + rng.normal(0, 0.7 * scale, path.shape).astype(np.float32)
        draw(canvas, jagged, max(1, round(scale * rng.uniform(0.4, 0.8) * depth)), rng.uniform(0.6, 1))
        if depth > 0:
            for _ in range(rng.integers(1, 4)):
                joint = jagged[rng.integers(len(jagged))]
                branches.append((joint, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.4), length / 2, depth - 1))
    return Layer(opacity_of(canvas), mark_colour(rng, 0.7))


def _blob(shape: tuple[int, int], rng: Generator, coverage: float, scale: float) -> FloatImage:
    """How deep each pixel lies inside irregular blobs, in standard deviations; negative outside."""
    coarse = smooth_noise(shape, np.exp(rng.uniform(np.log(1.5), np.log(9))), rng)
    fine = smooth_noise(shape, max(shape) / (6 * scale), rng) * np.float32(0.15)
    field = coarse + fine
    return field - np.float32(np.quantile(field[::4, ::4], 1 - coverage))


def stain(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """A translucent water or chemical stain, brown or pale, with a darker tide line at its edge."""
    shape = picture.shape[:2]
    depth = _blob(shape, rng, rng.uniform(0.05, 0.4), scale)
    body = rng.uniform(0.1, 0.28) * np.clip(depth * rng.uniform(2, 10), 0, 1)  # the picture stays readable in it
    tide = rng.uniform(0, 0.5) * np.exp(-((depth / rng.uniform(0.02, 0.08)) ** 2))
    colour = np.array([0.45, 0.33, 0.18]) if rng.random() < 0.6 else np.array([0.9, 0.87, 0.8])
    colour = np.clip(colour + rng.normal(0, 0.08, 3), 0, 1).astype(np.float32)
    return Layer(np.clip(body + tide, 0, 0.8).astype(np.float32), colour, 0.3)


def peeled(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Patches where the emulsion came off and the bare carrier shows."""
    shape = picture.shape[:2]
    depth = _blob(shape, rng, np.exp(rng.uniform(np.log(0.003), np.log(0.12))), scale)
    rough = rng.uniform(0, 0.04) * smooth_noise(shape, max(shape) / (3 * scale), rng)[..., None]
    colour = np.clip(mark_colour(rng, 0.75) + rough, 0, 1).astype(np.float32)
    return Layer(np.clip(depth * rng.uniform(5, 20), 0, 1).astype(np.float32), colour)


def frayed(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Edges of the print worn or torn away, along one side to all four, often more at the corners."""
    height, width = picture.shape[:2]
    ys, xs = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    sides = [ys + 0 * xs, height - 1 - ys + 0 * xs, xs + 0 * ys, width - 1 - xs + 0 * ys]
    kept = [sides[index] for index in rng.permutation(4)[: rng.integers(1, 5)]]
    distance = np.minimum.reduce(kept)
    if len(kept) > 1 and rng.random() < 0.6:
        distance = np.asarray(distance - np.exp(-sum(kept[:2]) / rng.uniform(0.05, 0.2) / width) * 0.1 * width)
    bays = smooth_noise((height, width), rng.uniform(3, 15), rng) * np.float32(scale * rng.uniform(2, 15))
    fibres = smooth_noise((height, width), max(height, width) / (4 * scale), rng) * np.float32(0.8 * scale)
    inside = distance - np.float32(scale * rng.uniform(0, 12)) - bays - fibres
    paper = mark_colour(rng, 0.6) + rng.uniform(0, 0.04) * smooth_noise((height, width), 40, rng)[..., None]
    colour = np.clip(paper, 0, 1).astype(np.float32)
    return Layer(np.clip(0.5 - inside / rng.uniform(1, 3), 0, 1).astype(np.float32), colour)


def tear(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """A tear, or a missing edge or corner, with a ragged rim of paper fibres."""
    shape = picture.shape[:2]
    distance = _signed_distance(shape, rng, scale * rng.uniform(1, 5))
    distance += smooth_noise(shape, max(shape) / (4 * scale), rng) * np.float32(0.8 * scale)
    gap = scale * np.exp(rng.uniform(0, np.log(16)))
    if rng.random() < 0.5:
        opening = _signed_distance(shape, rng, 0)
        distance = np.maximum(np.abs(distance) - gap, opening)  # a tear that ends inside the picture
    else:
        other = _signed_distance(shape, rng, scale)
        limit = np.quantile(np.maximum(distance, other), rng.uniform(0.01, 0.08))
        distance = np.maximum(distance, other) - np.float32(limit)  # a corner
    behind = mark_colour(rng, 0.7)
    rim = np.exp(-np.abs(distance) / scale)[..., None].astype(np.float32)
    colour = behind + rim * (np.float32(rng.uniform(0.7, 1)) - behind)
    return Layer(np.clip(0.5 - distance, 0, 1).astype(np.float32), colour.astype(np.float32))


def from_texture(textures: Sequence[ByteImage]) -> Kind:
    """A kind that lays real or measured damage masks (8-bit, white = damage) over the picture."""

    def overlay(picture: FloatImage, rng: Generator, scale: float) -> Layer:
        height, width = picture.shape[:2]
        texture = textures[int(rng.integers(len(textures)))]
        zoom = scale * rng.uniform(0.5, 1.6)
        side = (max(8, round(height / zoom)), max(8, round(width / zoom)))
        repeats = [-(-need // have) + 1 for need, have in zip(side, texture.shape, strict=True)]
        tiled = np.tile(texture, repeats)
        top, left = (rng.integers(t - s) for t, s in zip(tiled.shape, side, strict=True))
        piece = np.rot90(tiled[top : top + side[0], left : left + side[1]], 2 * int(rng.integers(2)))
        if rng.random() < 0.5:
            piece = piece[:, ::-1]
        fitted = cv2.resize(np.ascontiguousarray(piece), (width, height), interpolation=cv2.INTER_LINEAR)
        return Layer(opacity_of(np.asarray(fitted, np.uint8)) * np.float32(rng.uniform(0.4, 1)), mark_colour(rng, 0.65))

    return overlay


KINDS: dict[str, tuple[Kind, float]] = {
    "scratches": (scratches, 3.0),
    "film lines": (film_lines, 0.7),
    "hairs": (hairs, 1.0),
    "dust": (dust, 2.5),
    "fold": (fold, 2.0),
    "cracks": (cracks, 1.5),
    "stain": (stain, 1.0),
    "peeled": (peeled, 1.6),
    "tear": (tear, 1.2),
    "frayed": (frayed, 0.4),
}
"""Every kind with how often it is drawn, relative to the others."""

TEXTURE_FREQUENCY = 3.0


@dataclass(frozen=True)
class Repertoire:
    """What `damage` draws from: ``kinds`` with their relative frequencies, and the ``style`` each layer is given."""

    kinds: tuple[tuple[Kind, float], ...]
    style: Style | None = None


PLAIN = Repertoire(tuple(KINDS.values()))


def damage(
    picture: FloatImage,
    rng: Generator,
    count: int,
    scale: float = 1.0,
    textures: Sequence[ByteImage] = (),
    repertoire: Repertoire = PLAIN,
) -> tuple[FloatImage, FloatImage]:
    """Lay ``count`` random defects on a picture.

    Returns the damaged picture, H × W × 3, and the mask of what hides it, H × W, 0 or 1: translucent stains, which
    leave the picture readable, are in the mask only at their tide lines.
    """
    kinds = list(repertoire.kinds)
    if textures:
        kinds.append((from_texture(textures), TEXTURE_FREQUENCY))
    frequency = np.array([weight for _, weight in kinds])
    mask = np.zeros(picture.shape[:2], bool)
    for index in rng.choice(len(kinds), count, p=frequency / frequency.sum()):
        layer = kinds[index][0](picture, rng, scale)
        if repertoire.style:
            layer = repertoire.style(layer, picture, rng, scale)
        if rng.random() < 0.3:
            blurred = cv2.GaussianBlur(layer.opacity, (0, 0), 0.4 + 0.4 * rng.random() * scale)
            layer = replace(layer, opacity=blurred)
        covered = np.clip(picture + layer.opacity[..., None] * (layer.colour - picture), 0, 1).astype(np.float32)
        change = np.abs(covered - picture).max(2)
        mask |= _hidden(layer, change)
        picture = covered
    return picture, mask.astype(np.float32)


def _hidden(layer: Layer, change: NDArray[np.float32]) -> NDArray[np.bool_]:
    if layer.shades:
        return np.asarray(change > SHADED)
    return np.asarray((layer.opacity > layer.hides) & (change > VISIBLE))
