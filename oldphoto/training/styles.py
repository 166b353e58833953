"""Damage in more ways than `damage` draws it, for training alone.

A network that is shown one way of drawing a scratch learns that way of drawing; what varies without end it has to see
past (domain randomisation: Tobin et al., IROS 2017). Results are measured with the kinds of `damage` by themselves, so
that figures stay comparable when something is added here.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.random import Generator

from oldphoto.arrays import FloatImage
from oldphoto.training.damage import (
    KINDS,
    Kind,
    Layer,
    Repertoire,
    Style,
    anywhere,
    draw,
    frayed,
    mark_colour,
    opacity_of,
    ragged,
    smooth_noise,
    tear,
    voronoi,
    walk,
)


def craquelure(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """A net of cracks over a part or all of the picture, as varnish, enamel and baked gelatine have it."""
    shape = picture.shape[:2]
    count = 4 + round(shape[0] * shape[1] / (scale * rng.uniform(10, 60)) ** 2)
    edges = np.asarray(255 * voronoi(shape, count, rng)[2], np.uint8)
    width = max(1, round(scale * rng.uniform(0.4, 1.2)))
    net = ragged(np.asarray(cv2.dilate(edges, np.ones((width, width), np.uint8)), np.uint8), rng, scale)
    where = np.clip(2 * smooth_noise(shape, rng.uniform(1, 4), rng) + rng.uniform(-1, 2), 0, 1)
    return Layer(opacity_of(net) * where.astype(np.float32), mark_colour(rng, 0.4))


def abrasion(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """A bundle of fine strokes in one direction, where something rubbed."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    centre, spread = anywhere(shape, rng), scale * rng.uniform(5, 60)
    angle, fan = rng.uniform(0, np.pi), rng.choice([0.02, 0.1, 0.3])
    for _ in range(rng.integers(6, 50)):
        start = centre + rng.normal(0, spread, 2).astype(np.float32)
        path = walk(start, angle + rng.normal(0, fan), scale * rng.uniform(5, 70), 0.1, rng)
        draw(canvas, path, max(1, round(scale * rng.uniform(0.3, 0.9))), rng.uniform(0.25, 1))
    return Layer(opacity_of(canvas), mark_colour(rng, 0.75))


def mould(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Foxing and mould: soft spots in clusters, brown, black or bleached."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 6)):
        centre, spread = anywhere(shape, rng), scale * rng.uniform(3, 40)
        for _ in range(rng.integers(3, 40)):
            place = np.round(centre + rng.normal(0, spread, 2)).astype(int)
            radius = max(1, round(scale * np.exp(rng.normal(0, 0.7))))
            cv2.circle(canvas, place.tolist(), radius, int(rng.uniform(60, 256)), -1, cv2.LINE_AA)
    opacity = cv2.GaussianBlur(opacity_of(canvas), (0, 0), scale * rng.uniform(0.4, 1.5))
    brown = np.asarray(np.array([0.42, 0.3, 0.17]) * rng.uniform(0.4, 1.6), np.float32)
    return Layer(np.asarray(opacity, np.float32), brown if rng.random() < 0.5 else mark_colour(rng, 0.5))


def rings(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Dried drops, and the rims of what stood on a print."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 5)):
        centre = np.round(anywhere(shape, rng)).astype(int).tolist()
        axes = np.maximum(2, np.round(scale * np.exp(rng.uniform(1, 4)) * rng.uniform(0.8, 1.2, 2))).astype(int)
        start, sweep = rng.uniform(0, 360), rng.choice([360, 360, rng.uniform(60, 300)])
        thickness = max(1, round(scale * rng.uniform(0.6, 3)))
        cv2.ellipse(
            canvas, centre, axes.tolist(), 0, start, start + sweep, int(rng.uniform(110, 256)), thickness, cv2.LINE_AA
        )
    return Layer(opacity_of(ragged(canvas, rng, scale)), mark_colour(rng, 0.4))


def patches(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Pieces with straight edges: stickers, tape, paper that stuck, and where a print was cut or broken away."""
    shape = picture.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 4)):
        reach = scale * np.exp(rng.uniform(np.log(3), np.log(4 + 0.3 * min(shape) / scale)))
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
        corners = rng.uniform(0.3, 1, len(angles))[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        corners = reach * corners * np.exp(rng.normal(0, 0.6, 2))
        cv2.fillPoly(canvas, [np.round(anywhere(shape, rng) + corners).astype(np.int32)], 255, cv2.LINE_AA)
    outline = ragged(canvas, rng, scale) if rng.random() < 0.5 else canvas
    if rng.random() < 0.7:
        return Layer(opacity_of(outline), mark_colour(rng, 0.7))
    glue = np.asarray(np.clip(np.array([0.8, 0.7, 0.4]) * rng.uniform(0.6, 1.2), 0, 1), np.float32)
    return Layer(opacity_of(outline) * np.float32(rng.uniform(0.4, 0.9)), glue)


def missing(picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """A corner or a piece of an edge that is gone: what lay behind is of any brightness, and mostly even."""
    shape = picture.shape[:2]
    reach = np.exp(rng.uniform(np.log(0.1), np.log(0.45), 2)) * (shape[1], shape[0])
    torn = rng.random() < 0.4
    along = np.concatenate([[0], np.sort(rng.random(rng.integers(10, 60) if torn else rng.integers(5))), [1]])[:, None]
    outline = np.hstack([1 - along, along]) * (1 + rng.uniform(-0.4, 0.6) * np.sin(np.pi * along))
    outline *= 1 + rng.normal(0, 0.03 if torn else rng.choice([0, 0.08]), along.shape)
    points = outline * reach
    if rng.random() < 0.25:  # as much to the other side: a bay in the edge
        points = np.vstack([points, points[::-1] * (-1, 1)])
        points[:, 0] += rng.random() * shape[1]
    else:
        points = np.vstack([points, [[0, 0]]])
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    canvas = np.ascontiguousarray(canvas[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])])
    rough = rng.choice([0, rng.uniform(0, 0.05)]) * smooth_noise(shape, max(shape) / (3 * scale), rng)[..., None]
    behind = rng.random() + rng.normal(0, 0.02, 3) + np.array([0.03, 0.0, -0.1]) * rng.random() ** 2
    strength = np.float32(1 if rng.random() < 0.6 else rng.uniform(0.6, 1))
    return Layer(strength * opacity_of(canvas), np.asarray(np.clip(behind + rough, 0, 1), np.float32))


MORE_KINDS: tuple[tuple[Kind, float], ...] = (
    (craquelure, 1.0),
    (abrasion, 1.2),
    (mould, 1.2),
    (rings, 0.8),
    (patches, 1.2),
    (missing, 1.6),
    (frayed, 0.6),
    (tear, 0.6),
)
"""More kinds, and once more those of `damage` that are missed most, with how often they are drawn beside all of it."""


def mottled(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Of two colours, from place to place more of one or the other: bare paper with dirt in it."""
    cells = max(picture.shape) / (scale * np.exp(rng.uniform(0.5, 4.5)))
    share = np.clip(0.5 + smooth_noise(picture.shape[:2], cells, rng), 0, 1)[..., None]
    return replace(layer, colour=layer.colour + share * (mark_colour(rng, 0.5) - layer.colour))


def translucent(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """The picture shows through, lighter or darker."""
    strength = np.float32(rng.uniform(0.3, 0.9))
    return replace(layer, colour=picture + strength * (np.float32(rng.random() < 0.6) - picture))


def darkened(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Dirt, ink and gaps of a negative where the kind is mostly bare paper: the picture has dark lines of its own."""
    return replace(layer, colour=mark_colour(rng, 0.0))


def coloured(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """In a strong colour: scratches through some of the layers of colour film, ink, rust."""
    return replace(layer, colour=rng.random(3).astype(np.float32))


def embossed(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """With a lit and a shaded rim: the surface is dented or lifts."""
    soft = cv2.GaussianBlur(layer.opacity, (0, 0), scale * rng.uniform(0.5, 1.5))
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * np.gradient(soft, axis=1) + np.sin(angle) * np.gradient(soft, axis=0)
    slope = slope / np.float32(max(np.abs(slope).max(), 0.05))
    lit = layer.colour + np.float32(rng.uniform(0.2, 0.7)) * np.sign(slope)[..., None]
    opacity = np.maximum(layer.opacity, np.float32(rng.uniform(0.3, 1)) * np.abs(slope))
    return replace(layer, opacity=np.asarray(opacity, np.float32), colour=np.asarray(np.clip(lit, 0, 1), np.float32))


def hollow(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Only its outline, or its outline in another colour."""
    soft = cv2.GaussianBlur(layer.opacity, (0, 0), scale * rng.uniform(0.5, 2))
    rim = np.clip(4 * soft * (1 - soft), 0, 1)
    if rng.random() < 0.4:
        return replace(layer, opacity=np.asarray(rim * layer.opacity.max(), np.float32))
    return replace(layer, colour=layer.colour + rim[..., None] * (mark_colour(rng, 0.5) - layer.colour))


def worn(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Broken up, from crumbs of a pixel to long dashes."""
    cells = max(picture.shape) / (scale * np.exp(rng.uniform(0.3, 3.5)))
    kept = np.clip(rng.uniform(1, 4) * (smooth_noise(picture.shape[:2], cells, rng) + rng.uniform(-0.3, 1)), 0, 1)
    return replace(layer, opacity=np.asarray(layer.opacity * kept, np.float32))


def softened(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Out of focus: it lay on the glass, or was in the picture when it was copied."""
    soft = cv2.GaussianBlur(layer.opacity, (0, 0), scale * rng.uniform(0.5, 2))
    return replace(layer, opacity=np.clip(soft * np.float32(rng.uniform(1, 1.8)), 0, 1))


def faint(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """Seen through: hardly there."""
    return replace(layer, opacity=layer.opacity * np.float32(rng.uniform(0.3, 0.8)))


def confined(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """To a part of the picture: where one thing is damaged, another need not be."""
    x, y = anywhere(picture.shape[:2], rng)
    ys, xs = np.ogrid[: picture.shape[0], : picture.shape[1]]
    reach, rim = rng.uniform(0.1, 0.5) * max(picture.shape), scale * rng.uniform(1, 20)
    inside = np.clip((reach - np.hypot(xs - x, ys - y)) / rim, 0, 1)
    return replace(layer, opacity=np.asarray(layer.opacity * inside, np.float32))


STYLES: tuple[tuple[Style, float], ...] = (
    (darkened, 0.35),
    (mottled, 0.25),
    (translucent, 0.15),
    (coloured, 0.08),
    (embossed, 0.15),
    (hollow, 0.12),
    (worn, 0.25),
    (softened, 0.15),
    (faint, 0.2),
    (confined, 0.2),
)
"""Every style with the share of the defects that have it, of those that may have any."""

PLAIN_SHARE = 0.4
"""Share of the defects that stay as they were drawn."""


def styled(layer: Layer, picture: FloatImage, rng: Generator, scale: float) -> Layer:
    """A layer of any kind on a picture, H × W × 3, in none to several of the styles.

    Folds keep theirs: they cover nothing, and all they are is light.
    """
    if layer.shades or rng.random() < PLAIN_SHARE:
        return layer
    for style, share in STYLES:
        if rng.random() < share:
            layer = style(layer, picture, rng, scale)
    return layer


VARIED = Repertoire((*KINDS.values(), *MORE_KINDS), styled)
