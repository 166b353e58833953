"""Train the scratch U-Net on synthetic structured damage, real textures, and real scans.

Of some scans a person said what is damaged, and what only looks like it. Elsewhere the average of the network says
what is intact while it trains: where it is sure, the network shall be sure even if the scan is worn and damaged
further (Tarvainen & Valpola, NeurIPS 2017; Sohn et al., FixMatch, NeurIPS 2020). So it meets real grain, paper and
clothes, and drawn damage on them. What the average takes for damage counts for nothing: now and then it is a collar.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from scipy import ndimage
from torch import Tensor, nn

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.nets.unet import ScratchUNet
from oldphoto.pyramid import depth
from oldphoto.scratches import BASE, ScratchDetector
from oldphoto.training import parallel
from oldphoto.training.datasets import Batch, Mistaken, load_held_out, load_images, load_scenes, scratch_examples
from oldphoto.training.imagenet import knowing
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, require_crop, run
from oldphoto.training.losses import dice
from oldphoto.training.mistakes import find_mistakes, with_alarms
from oldphoto.training.replay import training_batches
from oldphoto.training.scans import load_scans, scan_examples
from oldphoto.training.styles import VARIED

logger = logging.getLogger(__name__)

NAME = "scratches"
TOLERANCE = 2.0
"""A pixel that is wrong by no more than this many pixels of place counts as right in the F1 score."""

MISTAKEN = 0.004
"""Mean probability of damage from which on an undamaged picture is kept as a hard negative."""

REMEMBERED = 400
"""Hard negatives kept at most, the hardest."""

SMALL_SHARE = 0.25
"""Share of the batches shown in half their size: as the picture is looked at first."""

HALVINGS = (0.25, 0.5, 0.25)
"""Shares of the batches with a hint from no smaller picture, from that of half the size, and from two."""

TOLD_SHARE = 0.6
"""Share of the batches of which the network is told what they show, as it is of small copies of a photo."""

SHOWN_AGAIN = 0.1
"""Share of the examples that are one of them."""

SPLICED_SHARE = 0.3
"""Share of the examples a part of which is another's.

Else a network learns by heart which pictures are undamaged, as those that are shown again are, and pictures like them
are so to it whatever is drawn across.
"""

PASTED_SHARE = 0.25
"""Share of the examples that are given the damage of their neighbour, besides their own, whatever its sharpness.

Else damage is what is sharper than the picture, as it is where a lens was before it (copy-paste: Ghiasi et al., CVPR
2021).
"""

SCANS_SHARE = 0.25
"""Real scans shown besides, as a share of the batch."""

INTACT = 0.03
"""Probability of damage up to which the average of the network is believed that there is none."""

JUDGED = 2.0
"""So much more counts what a person said of a scan than what the average of the network says."""

FIXED_FROM = 0.5
"""Progress from which on the statistics of batch normalisation are those that inference uses.

Those of a batch tell of it what inference does not know, and the deepest layers come to rely on it.
"""


class HardNegatives:
    """Undamaged pictures in which the network saw damage, shown again until it does not.

    Hard example mining (Shrivastava et al., CVPR 2016), over the whole run: most undamaged pictures teach nothing, and
    those that do come by once.
    """

    def __init__(self, rng: Generator) -> None:
        self._rng = rng
        self._pictures: list[Tensor] = []
        self._alarms: list[float] = []
        self._shown: list[int] = []

    def __len__(self) -> int:
        return len(self._pictures)

    def added_to(self, batch: Batch) -> Batch:
        """The batch, ``photo`` N × 3 × H × W and ``mask`` N × 1 × H × W, its first examples now and then from here."""
        count = min(int(self._rng.binomial(len(batch["photo"]), SHOWN_AGAIN)), len(self))
        self._shown = self._rng.choice(len(self), count, replace=False).tolist() if count else []
        if not self._shown:
            return batch
        photo, mask = batch["photo"].clone(), batch["mask"].clone()
        photo[:count], mask[:count] = torch.stack([self._pictures[index] for index in self._shown]), 0
        return {"photo": photo, "mask": mask}

    def learn(self, batch: Batch, logits: Tensor, own: Tensor) -> None:
        """Take note of what the network makes of a batch that came from `added_to`.

        ``own``: N × 1 × H × W, 1 where it was shown that batch, 0 where parts of others.
        """
        alarms = ((logits.detach().sigmoid() * own).sum((1, 2, 3)) / own.sum((1, 2, 3)).clamp_min(1)).tolist()
        undamaged = (~batch["mask"].flatten(1).any(1)).tolist()
        for place, index in enumerate(self._shown):
            self._alarms[index] = alarms[place]
        for index in range(len(self._shown), len(alarms)):
            if undamaged[index] and alarms[index] > MISTAKEN:
                self._pictures.append(batch["photo"][index].clone())
                self._alarms.append(alarms[index])
        learnt = [index for index in self._shown if self._alarms[index] < MISTAKEN / 2]
        hardest = sorted(set(range(len(self))) - set(learnt), key=lambda index: -self._alarms[index])[:REMEMBERED]
        self._pictures = [self._pictures[index] for index in hardest]
        self._alarms = [self._alarms[index] for index in hardest]


def train(settings: Settings) -> None:
    """Train within the budget of ``settings`` and keep checkpoint and manifest in ``settings.out``."""
    require_crop(settings, 64)
    torch.manual_seed(settings.seed)
    started = time.time()
    net = checkpoints.load(ScratchUNet, NAME, settings.out) if settings.resume else knowing(ScratchUNet())
    net = channels_last(net, settings.device)
    optimiser = Optimiser([net], settings.learning_rate)
    photos, textures = load_scenes(settings.data), load_images(settings.data, "textures", "L")
    known = load_scans(settings.data, settings.annotations)
    mistaken: list[Mistaken] = []
    if settings.resume:
        detector = ScratchDetector(settings.device, settings.out)
        rng = np.random.default_rng(parallel.seed(settings.seed))
        mistaken, known = find_mistakes(detector, photos, textures, rng), with_alarms(detector, known, rng)
        in_scans = sum(scan.alarms is not None for scan in known)
        logger.info("false alarms in %d photographs and %d scans, shown more often", len(mistaken), in_scans)
    make = scratch_examples(photos, textures, settings.crop, repertoire=VARIED, mistaken=mistaken)
    stream = training_batches(make, settings, settings.seed_of_examples(started))
    make = scan_examples(known, textures, settings.crop, VARIED)
    scans = training_batches(make, settings, settings.seed_of_examples(started) + 1, ceil(SCANS_SHARE * settings.batch))
    check = scratch_examples(load_held_out(settings.data, "photos"), textures, 256)
    rng = np.random.default_rng(7)
    examples = [check(rng) for _ in range(60)]
    negatives = HardNegatives(np.random.default_rng(settings.seed))
    chances = np.random.default_rng(settings.seed)
    average = optimiser.averages[0].eval()

    def step(progress: float) -> Mapping[str, Tensor | float]:
        if settings.resume or progress > FIXED_FROM:
            fix_statistics(net)
        batch = negatives.added_to(on_device(next(stream), settings.device))
        unlabelled = on_device(next(scans), settings.device)
        if small := chances.random() < SMALL_SHARE:
            batch, unlabelled = halved(batch), halved(unlabelled)
        labelled = len(batch["photo"])
        shown, own = pasted(*spliced(batch, chances), chances)
        photo = torch.cat([shown["photo"], unlabelled["photo"]])
        with autocast(settings):
            with torch.no_grad():
                certain = believed(average, unlabelled)
                hint = average.hint(photo, int(chances.choice(len(HALVINGS), p=HALVINGS)))
            logits = net(photo, hint, told=chances.random() < TOLD_SHARE).float()
        entropy = F.binary_cross_entropy_with_logits(logits[:labelled], shown["mask"])
        overlap = dice(logits[:labelled], shown["mask"])
        added = F.binary_cross_entropy_with_logits(logits[labelled:], unlabelled["mask"], reduction="none")
        agreement = (added * (certain + JUDGED * unlabelled["known"])).mean()
        if not small:
            negatives.learn(batch, logits[:labelled], own)
        overlap_on_scans = dice(logits[labelled:], unlabelled["mask"], certain)
        loss = entropy + 0.5 * overlap + SCANS_SHARE * (agreement + overlap_on_scans)
        optimiser.step(loss, progress)
        measured = {"entropy": entropy, "dice": overlap, "on scans": agreement, "dice on scans": overlap_on_scans}
        return {key: value.detach() for key, value in measured.items()} | {"hard negatives": float(len(negatives))}

    def save(steps: int) -> None:
        scores = evaluate(average, examples)
        checkpoints.save(
            NAME, average.state_dict(), {}, settings.out, settings.record(started, steps) | {"scores": scores}, scores
        )

    run(NAME, settings, step, save)


def spliced(batch: Batch, rng: Generator) -> tuple[Batch, Tensor]:
    """Give SPLICED_SHARE of the examples, beyond a straight cut, that part of their neighbour in the batch.

    Returns the batch, and where its examples are their own: N × 1 × H × W, 1 or 0 (Yun et al., CutMix, ICCV 2019).
    """
    own = torch.ones_like(batch["mask"])
    for index in np.flatnonzero(rng.random(len(own)) < SPLICED_SHARE):
        cut = round(rng.uniform(0.25, 0.75) * own.shape[2])
        beyond = own[index, :, cut:] if rng.random() < 0.5 else own[index, :, :, cut:]
        beyond.zero_()
    return {key: torch.where(own > 0, pictures, pictures.roll(1, 0)) for key, pictures in batch.items()}, own


def pasted(batch: Batch, own: Tensor, rng: Generator) -> tuple[Batch, Tensor]:
    """Lay the damage of their neighbour in the batch over PASTED_SHARE of the examples.

    Returns the batch, and what is left of ``own``, where examples are their own: N × 1 × H × W, 1 or 0.
    """
    chosen = torch.from_numpy(rng.random(len(own)) < PASTED_SHARE).to(own.device).view(-1, 1, 1, 1)
    photo, mask = batch["photo"], batch["mask"]
    laid = mask.roll(1, 0) * chosen
    opacity = torch.maximum(laid, F.avg_pool2d(laid, 3, 1, 1, count_include_pad=False))
    covered = photo + opacity * (photo.roll(1, 0) - photo)
    return {"photo": covered, "mask": torch.maximum(mask, laid)}, own * (1 - laid)


def halved(batch: Batch) -> Batch:
    """A batch in half its size."""
    return {key: F.avg_pool2d(pictures, 2) for key, pictures in batch.items()}


def believed(net: ScratchUNet, batch: Batch) -> Tensor:
    """Where the masks of scans are to be believed, N × 1 × H × W, 1 or 0.

    Where damage was added, where a person was sure, and where the network sees none in the ``scan`` before.
    """
    return ((seen(net, batch["scan"]) <= INTACT) | (batch["mask"] > 0) | (batch["known"] > 0.5)).float()


def seen(net: ScratchUNet, photo: Tensor) -> Tensor:
    """Probability of damage, N × 1 × H × W, as in a small photo: hinted, and told what it shows."""
    hint = net.hint(photo, depth(photo.shape[2:], BASE))
    logits: Tensor = net(photo, hint, told=True)
    return logits.float().sigmoid()


def fix_statistics(net: nn.Module) -> None:
    """Let batch normalisation use the statistics it has gathered, and gather no more."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.inference_mode()
def evaluate(net: ScratchUNet, examples: list[dict[str, FloatImage]]) -> dict[str, float]:
    """Average F1 at ``TOLERANCE`` px over damaged examples, and the share marked in undamaged ones."""
    net.eval()
    scores, alarms = [], []
    for example in examples:
        photo = torch.from_numpy(example["photo"])[None].permute(0, 3, 1, 2).to(next(net.parameters()).device)
        found = seen(net, photo)[0, 0].cpu().numpy() > 0.5
        truth = example["mask"] > 0.5
        if truth.any():
            scores.append(tolerant_f1(found, truth))
        else:
            alarms.append(found.mean())
    return {"F1 at 2 px": round(float(np.mean(scores)), 4), "false alarms": round(float(np.mean(alarms)), 6)}


def tolerant_f1(found: np.ndarray, truth: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """The F1 score of two boolean masks, H × W, where a pixel is right if the other has one within ``tolerance``."""
    if not found.any() or not truth.any():
        return float(found.any() == truth.any())
    near_truth = ndimage.distance_transform_edt(~truth) <= tolerance
    near_found = ndimage.distance_transform_edt(~found) <= tolerance
    precision, recall = near_truth[found].mean(), near_found[truth].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))
