"""`kg stats`: degrees, relation types, components, and the rows and triples dropped on reading."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, TRIPLES_FILE, open_names
from data.runs import manifest_path, read_manifest, write_json
from kg.arrays import Ids, Ints
from kg.kg_store import read_triples_table
from kg.relation_types import TYPES, describe_relations

QUANTILES = (0, 25, 50, 75, 90, 99, 100)
_DROPPED = {
    "rows_rejected": "rows rejected",
    "literals_dropped": "literals",
    "duplicates_dropped": "duplicates",
    "self_loops_dropped": "self-loops",
    "names_merged": "spellings merged",
    "entities_without_triples": "entities without a triple",
}


@dataclass(frozen=True)
class Relation:
    """A relation, its number of triples, and its type (Bordes et al. 2013).

    `tails_per_head` is the mean number of tails of a head; below 1.5 that side of the type is 1,
    else N.
    """

    name: str
    triples: int
    kind: str
    tails_per_head: float
    heads_per_tail: float


@dataclass(frozen=True, kw_only=True)
class KGStats:
    """Statistics of a graph.

    Attributes:
        kg: The KG folder.
        entities: Their number.
        relations: Their number.
        triples: Their number, including those held out.
        degrees: `all`, `out` and `in` -> quantile in percent -> triples per entity.
        mean_degree: Mean number of triples per entity.
        kinds: Relation type -> its number of relations, and their number of triples.
        components: Sizes of the ten largest weakly connected components.
        num_components: The number of components.
        top_relations: The relations with most triples.
        top_entities: Name and degree of the entities with the highest degree.
        dropped: Rows and triples dropped on reading, from the manifest.
    """

    kg: Path
    entities: int
    relations: int
    triples: int
    degrees: dict[str, dict[int, int]]
    mean_degree: float
    kinds: dict[str, tuple[int, int]]
    components: list[int]
    num_components: int
    top_relations: list[Relation]
    top_entities: list[tuple[str, int]]
    dropped: dict[str, int]

    def __str__(self) -> str:
        lines = [
            f"{self.kg}: {self.entities:,} entities, {self.relations:,} relations, "
            f"{self.triples:,} triples",
            f"degree (mean {self.mean_degree:.2f}), by share of the entities:",
            "      " + "".join(f"{_share(q):>10}" for q in QUANTILES),
        ]
        for side, found in self.degrees.items():
            lines.append(f"  {side:>3} " + "".join(f"{found[q]:>10,}" for q in QUANTILES))
        largest = self.components[0] if self.components else 0
        lines.append(
            f"{self.num_components:,} components; the largest has {largest:,} entities "
            f"({_percent(largest, self.entities)})"
        )
        lines.append("relation types (Bordes et al. 2013):")
        for kind, (relations, triples) in self.kinds.items():
            lines.append(
                f"  {kind}  {relations:>9,} relations {triples:>12,} triples "
                f"({_percent(triples, self.triples)})"
            )
        lines.append("most frequent relations (tails per head, heads per tail):")
        lines += [
            f"  {r.triples:>12,}  {r.kind}  {r.tails_per_head:8.2f} {r.heads_per_tail:8.2f}"
            f"  {r.name}"
            for r in self.top_relations
        ]
        lines.append("most frequent entities:")
        lines += [f"  {degree:>12,}  {name}" for name, degree in self.top_entities]
        if self.dropped:
            counted = [(n, self.dropped[key]) for key, n in _DROPPED.items() if key in self.dropped]
            text = ", ".join(f"{count:,} {name}" for name, count in counted)
            lines.append(f"dropped on reading: {text}")
        return "\n".join(lines)


def _share(percent: int) -> str:
    return {0: "least", 50: "median", 100: "most"}.get(percent, f"{percent} %")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def kg_stats(
    kg: Path, *, top: int = 10, json: Path | None = None, plot: Path | None = None
) -> KGStats:
    """Compute statistics of the graph of a KG folder.

    Args:
        kg: A folder from `kg train`.
        top: Number of most frequent relations and entities to list.
        json: Also write the statistics to this file.
        plot: Also plot the distribution of degrees to this SVG file.

    Raises:
        InputError: The folder has no triples (EasyNLP's pair of files has none).
    """
    if not (kg / TRIPLES_FILE).is_file():
        raise InputError(
            f"{kg} has no {TRIPLES_FILE}, so there is no graph to describe. Give a folder from "
            "`cli.py kg train`."
        )
    triples = read_triples_table(kg / TRIPLES_FILE)
    if not len(triples):
        raise InputError(f"{kg / TRIPLES_FILE} has no triples.")
    entities, relations = open_names(kg / ENTITY_NAMES), open_names(kg / RELATION_NAMES)
    head, _, tail = triples.T
    out = np.bincount(head, minlength=len(entities))
    into = np.bincount(tail, minlength=len(entities))
    loops = np.bincount(head[head == tail], minlength=len(entities))
    degree = out + into - loops
    uses, tails_per_head, heads_per_tail, kind = describe_relations(triples, len(relations))
    components = _components(head, tail, len(entities))
    stats = KGStats(
        kg=kg,
        entities=len(entities),
        relations=len(relations),
        triples=len(triples),
        degrees={n: _quantiles(d) for n, d in (("all", degree), ("out", out), ("in", into))},
        mean_degree=float(degree.mean()),
        kinds={
            name: (int(((kind == k) & (uses > 0)).sum()), int(uses[kind == k].sum()))
            for k, name in enumerate(TYPES)
        },
        components=components[:10].tolist(),
        num_components=len(components),
        top_relations=[
            Relation(
                relations[int(r)],
                int(uses[r]),
                TYPES[kind[r]],
                round(float(tails_per_head[r]), 3),
                round(float(heads_per_tail[r]), 3),
            )
            for r in _largest(uses, top)
        ],
        top_entities=[(entities[int(e)], int(degree[e])) for e in _largest(degree, top)],
        dropped=_dropped(kg),
    )
    if json is not None:
        write_json(json, asdict(stats) | {"kg": str(kg)})
    if plot is not None:
        _plot(plot, {"all": degree, "out": out, "in": into})
    return stats


def _components(head: Ids, tail: Ids, num_entities: int) -> Ints:
    """Return the sizes of the weakly connected components, descending."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(head), np.bool_), (head, tail)), (num_entities, num_entities))
    _, label = connected_components(edges.tocsr(), directed=False)
    return np.sort(np.bincount(label))[::-1]


def _quantiles(degree: Ints) -> dict[int, int]:
    ordered = np.sort(degree)
    return {q: int(ordered[round(q / 100 * (len(ordered) - 1))]) for q in QUANTILES}


def _largest(counts: Ints, top: int) -> Ints:
    """Return the indices of the largest counts, descending; of equal ones the first."""
    return np.argsort(-counts, kind="stable")[:top]


def _dropped(kg: Path) -> dict[str, int]:
    if not manifest_path(kg).exists():
        return {}
    counts = read_manifest(kg).counts
    return {name: counts[name] for name in _DROPPED if name in counts}


def _plot(path: Path, degrees: dict[str, Ints]) -> None:
    """Plot the number of entities with at least a degree, on logarithmic scales."""
    from data.plot import new_figure, save_svg, style

    with style():
        figure = new_figure()
        axes: Any = figure.add_subplot()
        for name, degree in degrees.items():
            counts = np.bincount(degree)
            present = np.flatnonzero(counts[1:]) + 1
            at_least = np.cumsum(counts[::-1])[::-1][present]
            axes.plot(present, at_least, marker=".", markersize=3, linewidth=1, label=name)
        axes.set(
            xscale="log", yscale="log", xlabel="degree", ylabel="entities with at least this degree"
        )
        axes.legend()
        save_svg(figure, path)
