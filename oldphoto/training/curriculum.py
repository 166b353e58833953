"""Harder kinds of ageing more often: on-demand learning (Gao & Grauman, ICCV 2017)."""

from __future__ import annotations

from dataclasses import astuple, fields, replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from oldphoto.arrays import FloatImage
from oldphoto.training.ageing import Severity

FAMILIES = tuple(field.name for field in fields(Severity))

DEMANDED = 0.5
"""Share of the photographs that one family hits hard, the more often the worse it is repaired."""

HARD = (0.6, 1.0)

_MEMORY = 0.98
"""Of the errors known before a batch, so much stays."""


class Curriculum:
    """Draws how hard each family of ageing hits, and learns from the errors that are left which to ask for.

    In demand is a family by how much larger the errors are where it hits than where it does not. The processes that
    make examples share what has been learned, so that when they draw decides what: no run is repeated exactly.
    """

    def __init__(self) -> None:
        # Mean errors of the photographs that each family hits, and of those that it spares.
        self._errors = torch.zeros(2, len(FAMILIES)).share_memory_()  # type: ignore[no-untyped-call]

    def draw(self, rng: Generator) -> Severity:
        """A random severity, with one family that is in demand for DEMANDED of them."""
        severity = Severity.random(rng)
        if rng.random() > DEMANDED:
            return severity
        hit, spared = self._errors.numpy().astype(np.float64)
        demand = np.maximum(hit - spared, 0)
        demand += 0.1 * demand.mean() + 1e-6  # what is easy is not forgotten
        family = FAMILIES[rng.choice(len(FAMILIES), p=demand / demand.sum())]
        return replace(severity, **{family: rng.uniform(*HARD)})

    def learn(self, severities: Tensor, errors: Tensor) -> None:
        """Take note of the errors of a batch, N, that was made with severities N × families × 1 × 1 (`as_picture`)."""
        hit = severities.flatten(1).cpu()
        weights = torch.stack([hit, 1 - hit])
        total = weights.sum(1)
        means = (weights * errors.detach().cpu()[:, None]).sum(1) / total.clamp_min(1e-6)
        self._errors.lerp_(torch.where(total > 0, means, self._errors), 1 - _MEMORY)


def as_picture(severity: Severity) -> FloatImage:
    """A severity as a picture of one pixel with as many channels as families, as examples of batches are."""
    return np.array(astuple(severity), np.float32)[None, None]
