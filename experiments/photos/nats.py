"""Nats per code on photographs of unseen and of trained classes, from the losses of `ablate`.

    S seeds   N photographs

Intervals are over classes and seeds: photographs of one class share its name, so they are one
cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from artist.evaluation.ablation import LOSSES, crossed_interval
from artist.evaluation.confidence_intervals import Interval
from artist.evaluation.likelihood import GIVEN, SHUFFLED
from experiments.photos.tables import class_of

LATTICE_ARM, NONE_ARM, SHUFFLED_ARM = ARMS = ("lattice", "none", "shuffled")
UNSEEN, TRAINED = "unseen", "trained"
# What replaces the knowledge of `lattice` -> arm and its input.
_REPLACED = {
    NONE_ARM: (NONE_ARM, GIVEN),
    SHUFFLED_ARM: (SHUFFLED_ARM, GIVEN),
    "lattice, asked with shuffled vectors": (LATTICE_ARM, SHUFFLED),
}
Floats = NDArray[np.float64]


class FoldLosses(NamedTuple):
    """Losses of a fold's test photographs.

    Attributes:
        costs: What replaces the knowledge -> nats per code more than `lattice` (S, N).
        losses: Nats per code of each arm (S, N).
        classes: Class number of each photograph (N,).
        unseen: Whether its class is held out (N,).
    """

    costs: dict[str, Floats]
    losses: dict[str, Floats]
    classes: NDArray[np.int64]
    unseen: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Nats:
    """A difference in nats per code. Field names are JSON keys.

    Attributes:
        replaced_by: What replaces the knowledge of `lattice`.
        classes: `unseen`, `trained`, or a group of the unseen ones.
        num_classes: Number of these classes.
        gaining: Number of them whose mean cost is above 0.
        cost: Above 0: knowledge helps.
        by_seed: The mean of each seed.
    """

    replaced_by: str
    classes: str
    num_classes: int
    gaining: int
    cost: Interval
    by_seed: tuple[float, ...]


def read_losses(models: Path, seeds: Sequence[int], unseen: NDArray[np.int64]) -> FoldLosses:
    """Read the losses that `ablate` wrote into a fold's folder of models."""
    table = pq.read_table(models / LOSSES)

    def losses(arm: str, given: str) -> Floats:
        rows = []
        for seed in seeds:
            chosen = (
                (pc.field("arm") == arm) & (pc.field("input") == given) & (pc.field("seed") == seed)
            )
            found = table.filter(chosen).sort_by("idx")
            rows.append(found["nats"].to_numpy())
        return np.stack(rows)

    own = {arm: losses(arm, GIVEN) for arm in ARMS}
    one = (pc.field("arm") == LATTICE_ARM) & (pc.field("input") == GIVEN)
    idx = table.filter(one & (pc.field("seed") == seeds[0])).sort_by("idx")["idx"].to_pylist()
    classes = np.array([class_of(name) for name in idx])
    return FoldLosses(
        costs={what: losses(*source) - own[LATTICE_ARM] for what, source in _REPLACED.items()},
        losses=own,
        classes=classes,
        unseen=np.isin(classes, unseen),
    )


def compare_losses(folds: Sequence[FoldLosses], groups: Sequence[str]) -> list[Nats]:
    """Compare the arms on unseen and trained classes, and on the unseen ones of each group.

    Args:
        folds: The losses of each fold, with equal seeds.
        groups: The group of each class.
    """
    classes = np.concatenate([fold.classes for fold in folds])
    unseen = np.concatenate([fold.unseen for fold in folds])
    of_class = np.array(groups)[classes]
    parts = {UNSEEN: unseen, TRAINED: ~unseen}
    parts |= {group: unseen & (of_class == group) for group in dict.fromkeys(of_class[unseen])}
    return [
        _nats(what, part, np.concatenate([f.costs[what] for f in folds], axis=1), members, classes)
        for what in _REPLACED
        for part, members in parts.items()
        if members.any()
    ]


def mean_losses(folds: Sequence[FoldLosses]) -> dict[str, dict[str, float]]:
    """Return the mean nats per code of each arm on unseen and on trained classes."""
    return {
        arm: {
            part: float(
                np.concatenate([f.losses[arm][:, f.unseen == held] for f in folds], 1).mean()
            )
            for part, held in ((UNSEEN, True), (TRAINED, False))
        }
        for arm in ARMS
    }


def _nats(
    what: str,
    part: str,
    costs: Floats,
    members: NDArray[np.bool_],
    classes: NDArray[np.int64],
) -> Nats:
    values, clusters = costs[:, members], classes[members]
    numbers = np.unique(clusters)
    means = [values[:, clusters == number].mean() for number in numbers]
    return Nats(
        replaced_by=what,
        classes=part,
        num_classes=len(numbers),
        gaining=int(np.greater(means, 0).sum()),
        cost=crossed_interval(values, clusters),
        by_seed=tuple(values.mean(1).tolist()),
    )
