"""A graph's entity vectors as a map: two dimensions, coloured by what the entities are.

An entity's type is its tail by one relation, such as 类型 or 义原; where it has several, the one
that most entities have. A map shows whether entities of a type lie together. t-SNE keeps neighbours
and bends distances; PCA keeps distances and shows only the two widest directions.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError, InputError, did_you_mean
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, map_vectors, not_finite, open_names
from data.seeds import stream
from kg.kg_store import TRIPLES_FILE, read_triples_table

log = logging.getLogger(__name__)

METHODS = ("tsne", "pca")
_TYPES = 8  # as many as there are colours that one can tell apart
_OTHER = "#d4d4d4"
_APART = 0.06  # of the map's width: labels nearer than this would cover each other
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MapReport:
    """What was drawn.

    Attributes:
        out: The SVG file.
        shown: Entities on the map.
        entities: Entities that could have been: those with a type.
        relation: The relation that gives types.
        types: The coloured types, and how many of the entities shown have each.
        together: Share of the entities shown whose nearest one (cosine, all dimensions) among
            them has the same type, of the coloured types only.
        chance: The same for types dealt at random.
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
            f"Of the coloured ones {self.together:.0%} have a nearest one of their own type "
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
    """Draw the entities of a KG folder on a plane, as SVG.

    Args:
        kg: A folder from `kg train`.
        out: The file.
        relation: Whose tails are the types; None: the relation with most triples.
        method: `tsne` or `pca`.
        max_entities: Above, so many are drawn at random.
        labels: Names to write, at most; those that would cover another are left out.
        seed: Of the sample and of t-SNE.

    Raises:
        InputError: The folder has no triples, or no such relation.
        ConfigError: The method is unknown, or there is too little to draw.
    """
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is unknown; use {' or '.join(METHODS)}.")
    if not (kg / TRIPLES_FILE).is_file():
        raise InputError(f"{kg} holds no {TRIPLES_FILE}, so nothing tells the entities' types.")
    number, relation = _find_relation(kg, relation)
    entity, kind = _types(kg, number)
    count = len(entity)
    if count < 3 or max_entities < 3:
        raise ConfigError(f"{relation} gives a type to {count} entities; a map needs three.")
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
    """Entities that have the relation, and of each the tail that most entities have."""
    triples = read_triples_table(kg / TRIPLES_FILE)
    triples = triples[triples[:, 1] == relation]
    head, tail = triples[:, 0].astype(np.int64), triples[:, 2].astype(np.int64)
    uses = np.bincount(tail) if len(tail) else np.zeros(1, np.int64)
    order = np.lexsort((tail, -uses[tail], head))
    entity, first = np.unique(head[order], return_index=True)
    return entity, tail[order][first]


def _together(vectors: Floats, kind: Ints, top: Ints) -> tuple[float, float]:
    """Share of the entities of the top types whose nearest one is of their type, and chance."""
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


def _flatten(vectors: Floats, method: str, seed: int) -> Floats:
    """Two coordinates for each vector."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    model: Any = PCA(2, random_state=0)
    if method == "tsne":
        near = min(30.0, (len(vectors) - 1) / 3)
        model = TSNE(init="pca", perplexity=near, random_state=stream(seed, "t-SNE") % 2**31)
    flat: Floats = model.fit_transform(vectors.astype(np.float32)).astype(np.float64)
    return flat


def _plot(
    report: MapReport,
    method: str,
    places: Floats,
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


def _spread(places: Floats, candidates: Ints, most: int) -> list[int]:
    """Entities to label: the most frequent first (lowest ids), none near another one's label."""
    size = np.ptp(places, axis=0).max()
    chosen: list[int] = []
    for n in candidates.tolist():
        if len(chosen) == most:
            break
        gap = np.abs(places[chosen] - places[n]) / max(float(size), 1e-12)
        if not ((gap[:, 0] < 2 * _APART) & (gap[:, 1] < _APART / 2)).any():
            chosen.append(n)
    return chosen
