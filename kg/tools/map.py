"""`kg map`: plot entity vectors in two dimensions, coloured by the type of the entities.

The type of an entity is its tail for one relation, such as 类型 or 义原; of several tails, the most
frequent one in the graph. The map shows whether entities of a type form clusters. t-SNE preserves
neighbours and distorts distances; PCA preserves distances along the two directions of largest
variance.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import ConfigError, InputError, did_you_mean
from data.kg_folder import (
    ENTITY_NAMES,
    RELATION_NAMES,
    TRIPLES_FILE,
    map_vectors,
    not_finite,
    open_names,
)
from data.seeds import stream
from kg.arrays import Doubles, Ints
from kg.config import MAP_METHODS
from kg.kg_store import read_triples_table

log = logging.getLogger(__name__)

_TYPES = 8  # distinguishable colours
_OTHER = "#d4d4d4"
_APART = 0.06  # of the width of the map: minimum distance of labels


@dataclass(frozen=True)
class MapReport:
    """The result of `kg map`.

    Attributes:
        out: The SVG file.
        shown: Entities on the map.
        entities: Entities with a type.
        relation: The relation whose tails are the types.
        types: The coloured types, and the number of entities shown of each.
        together: Share of the entities of the coloured types whose nearest neighbour (cosine, all
            dimensions) on the map has the same type.
        chance: The same for randomly assigned types.
    """

    out: Path
    shown: int
    entities: int
    relation: str
    types: dict[str, int]
    together: float
    chance: float

    def __str__(self) -> str:
        sample = "" if self.shown == self.entities else f", a sample of {self.entities:,}"
        types = ", ".join(f"{name} {count:,}" for name, count in self.types.items())
        return (
            f"{self.out}: {self.shown:,} entities{sample}, coloured by {self.relation}: {types}.\n"
            f"Of the coloured entities {self.together:.0%} have a nearest neighbour of their type "
            f"(chance {self.chance:.0%})."
        )


def draw_map(
    kg: Path,
    out: Path,
    *,
    relation: str | None = None,
    method: str = "tsne",
    max_entities: int = 2000,
    labels: int = 60,
    seed: int = 0,
) -> MapReport:
    """Draw the entities of a KG folder in two dimensions, as SVG.

    Args:
        kg: A folder from `kg train`.
        out: The file.
        relation: The relation whose tails are the types; None: the one with most triples.
        method: `tsne` or `pca`.
        max_entities: Above this number, a random sample is plotted.
        labels: Maximum number of names; overlapping ones are omitted.
        seed: Seed of the sample and of t-SNE.

    Raises:
        InputError: The folder has no triples, or no such relation.
        ConfigError: The method is unknown, or there are fewer than three entities.
    """
    if method not in MAP_METHODS:
        raise ConfigError(f"method={method!r} is unknown; use {' or '.join(MAP_METHODS)}.")
    if not (kg / TRIPLES_FILE).is_file():
        raise InputError(f"{kg} has no {TRIPLES_FILE}, so the types of the entities are unknown.")
    number, relation = _find_relation(kg, relation)
    entity, kind = _types(kg, number)
    count = len(entity)
    if count < 3 or max_entities < 3:
        raise ConfigError(f"{count} entities have a type by {relation}; a map needs three.")
    if count > max_entities:
        rng = np.random.default_rng(stream(seed, "map"))
        chosen = np.sort(rng.choice(count, max_entities, replace=False))
        entity, kind = entity[chosen], kind[chosen]
    vectors = np.asarray(map_vectors(kg)[entity], dtype=np.float64)
    if not np.isfinite(vectors).all():
        raise not_finite(kg)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    names = open_names(kg / ENTITY_NAMES)
    values, frequency = np.unique(kind, return_counts=True)
    top = values[np.argsort(-frequency, kind="stable")[:_TYPES]]
    together, chance = _together(vectors, kind, top)
    report = MapReport(
        out=out,
        shown=len(entity),
        entities=count,
        relation=relation,
        types={names[int(t)]: int((kind == t).sum()) for t in top},
        together=together,
        chance=chance,
    )
    places = _flatten(vectors, method, seed)
    _plot(report, method, places, kind, top, [names[int(e)] for e in entity], labels)
    return report


def _find_relation(kg: Path, wanted: str | None) -> tuple[int, str]:
    names = open_names(kg / RELATION_NAMES)
    if wanted is None:
        uses = np.bincount(read_triples_table(kg / TRIPLES_FILE)[:, 1])
        return int(uses.argmax()), names[int(uses.argmax())]
    found = names.find(wanted)
    if found is None:
        known = list(names[:2000])
        raise InputError(
            f"{kg} has no relation {wanted}{did_you_mean(wanted, known)} It has "
            f"{', '.join(known[:8])}{' and others' if len(names) > 8 else ''}."
        )
    return found, wanted


def _types(kg: Path, relation: int) -> tuple[Ints, Ints]:
    """Return the entities that have the relation, and the most frequent tail of each."""
    triples = read_triples_table(kg / TRIPLES_FILE)
    triples = triples[triples[:, 1] == relation]
    head, tail = triples[:, 0].astype(np.int64), triples[:, 2].astype(np.int64)
    uses = np.bincount(tail) if len(tail) else np.zeros(1, np.int64)
    order = np.lexsort((tail, -uses[tail], head))
    entity, first = np.unique(head[order], return_index=True)
    return entity, tail[order][first]


def _together(vectors: Doubles, kind: Ints, top: Ints) -> tuple[float, float]:
    """Return the share of entities with a nearest neighbour of their type, and chance."""
    mine = np.flatnonzero(np.isin(kind, top))
    nearest = np.empty(len(mine), np.int64)
    for begin in range(0, len(mine), 1024):
        part = mine[begin : begin + 1024]
        cosine = vectors[part] @ vectors.T
        cosine[np.arange(len(part)), part] = -np.inf
        nearest[begin : begin + 1024] = cosine.argmax(1)
    share = np.array([(kind == t).sum() for t in top]) / len(kind)
    weight = np.array([(kind[mine] == t).mean() for t in top])
    return float((kind[nearest] == kind[mine]).mean()), float((share * weight).sum())


def _flatten(vectors: Doubles, method: str, seed: int) -> Doubles:
    """Project vectors to `[n, 2]`."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    model: Any = PCA(2, random_state=0)
    if method == "tsne":
        near = min(30.0, (len(vectors) - 1) / 3)
        model = TSNE(init="pca", perplexity=near, random_state=stream(seed, "t-SNE") % 2**31)
    flat: Doubles = model.fit_transform(vectors.astype(np.float32)).astype(np.float64)
    return flat


def _plot(
    report: MapReport,
    method: str,
    places: Doubles,
    kind: Ints,
    top: Ints,
    names: list[str],
    labels: int,
) -> None:
    from data.plot import COLOURS, new_figure, save_svg, style

    with style():
        figure = new_figure(9.0, 7.0)
        axes: Any = figure.add_subplot()
        rest = ~np.isin(kind, top)
        axes.scatter(*places[rest].T, s=5, c=_OTHER, label=f"others ({rest.sum():,})")
        for number, (name, count) in zip(top, report.types.items(), strict=True):
            colour = COLOURS[list(top).index(number) % len(COLOURS)]
            label = f"{name} ({count:,})"
            axes.scatter(*places[kind == number].T, s=9, c=colour, label=label, linewidths=0)
        for n in _spread(places, np.flatnonzero(~rest), labels):
            axes.annotate(
                names[n], places[n], xytext=(2, 2), textcoords="offset points", fontsize=7
            )
        what = "t-SNE" if method == "tsne" else "PCA"
        sample = "" if report.shown == report.entities else f" of {report.entities:,}, sampled"
        axes.set(xticks=[], yticks=[], title=f"{report.shown:,} entities{sample}; {what}")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.legend(title=report.relation, loc="center left", bbox_to_anchor=(1, 0.5))
        save_svg(figure, report.out)


def _spread(places: Doubles, candidates: Ints, most: int) -> list[int]:
    """Choose entities to label, lowest ids first, without overlapping labels."""
    size = np.ptp(places, axis=0).max()
    chosen: list[int] = []
    for n in candidates.tolist():
        if len(chosen) == most:
            break
        gap = np.abs(places[chosen] - places[n]) / max(float(size), 1e-12)
        if not ((gap[:, 0] < 2 * _APART) & (gap[:, 1] < _APART / 2)).any():
            chosen.append(n)
    return chosen
