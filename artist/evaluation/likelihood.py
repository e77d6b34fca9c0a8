"""How likely a model finds held-out images, and what each thing that it is told is worth.

    N captions   L image codes   D entity_dim

The model's own entities are compared with controls that answer different questions:

none       the entities are taken away: does the model use them at all?
shuffled   each entity keeps its place but gets another entity's vector: does the *content* of the
           graph matter, beyond knowing where the words are?
other_kg   the vectors of another graph for the same names: would any graph do?
caption    the caption and the entities of another picture: does the text matter at all?
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from artist.evaluation.intervals import Interval, group_of_rows, interval, widened
from artist.models.gpt import GPT
from artist.tables.lattice_rows import Batches, Rows
from artist.training.validation import Losses, measure_losses
from data.seeds import stream

GIVEN, NONE, SHUFFLED, OTHER_KG, CAPTION = "given", "none", "shuffled", "other_kg", "caption"


def shuffled_vectors(rows: Rows, vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """The graph's vectors `(num_entities, D)`, permuted among the entities that the rows name.

    No entity keeps its own vector (where there are two or more).
    """
    named = np.unique(rows.entity_ids)
    order = np.random.default_rng(stream(seed, "shuffle")).permutation(named)
    mixed = np.array(vectors, dtype=np.float32)
    mixed[order] = vectors[np.roll(order, 1)]
    return mixed


def in_other_graph(rows: Rows, names: Sequence[str], other_names: Sequence[str]) -> Rows:
    """The rows with another graph's ids for the same names; entities it does not know are left out.

    Args:
        rows: With ids of the graph called `names`.
        names: Names by id.
        other_names: Names by id, of the other graph.
    """
    wanted = {entity: names[entity] for entity in np.unique(rows.entity_ids).tolist()}
    asked = set(wanted.values())
    numbers = {name: number for number, name in enumerate(other_names) if name in asked}
    translated = {entity: numbers.get(name, -1) for entity, name in wanted.items()}
    ids = np.array([translated[e] for e in rows.entity_ids.tolist()], dtype=np.int64)
    return _keep_entities(replace(rows, entity_ids=ids), ids >= 0)


def without_entities(rows: Rows) -> Rows:
    """The same captions with no entity in any."""
    return _keep_entities(rows, np.zeros(len(rows.entity_ids), dtype=bool))


def _keep_entities(rows: Rows, kept: NDArray[np.bool_]) -> Rows:
    """The rows with those of their entities that are marked in `kept`."""
    before = np.concatenate([[0], np.cumsum(kept)])
    return replace(
        rows,
        first_entity=before[rows.first_entity],
        entity_ids=rows.entity_ids[kept],
        starts=rows.starts[kept],
        ends=rows.ends[kept],
    )


def another_picture(pictures: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each row, a row (N,) of another picture: a permutation, at random.

    Where one picture has more than half of all rows there is none, and some rows keep theirs.
    """
    N, largest = len(pictures), int(np.bincount(pictures).max())
    order = np.random.default_rng(stream(seed, "caption")).permutation(pictures.max() + 1)
    sorted_rows = np.argsort(order[pictures], kind="stable")  # the rows of a picture lie together
    other = np.empty(N, dtype=np.int64)
    other[sorted_rows] = np.roll(sorted_rows, largest)
    return other


def has_unseen(rows: Rows, seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each row (N,) holds an entity that is not among `seen`."""
    unseen = ~np.isin(rows.entity_ids, seen)
    before = np.concatenate([[0], np.cumsum(unseen)])
    return before[rows.first_entity[1:]] > before[rows.first_entity[:-1]]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some of the captions.

    Attributes:
        captions: How many.
        pictures: Of how many different pictures.
        losses: Nats per code, for each way of telling.
        costs: What each control costs a caption in nats per code: its loss minus `given`, paired.
            The interval of `shuffled` is wider by how much one shuffling differs from another.
    """

    captions: int
    pictures: int
    losses: dict[str, Interval]
    costs: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """How likely a model finds the pictures of a table.

    Attributes:
        groups: `all`; `with entity`, `without entity`; and, where the training captions are known,
            `unseen entity` and `seen entities only`. Empty groups are left out.
        image_len: Codes a picture: nats per code times this are nats per picture.
        codebook_size: A model that knows nothing needs the logarithm of this, nats per code.
        shuffles: How many times the vectors were shuffled; a caption's loss is their mean.
        shuffle_spread: Standard deviation of the mean loss between shufflings.
        other_kg_known: Share of the entities, as they occur, that the other graph knows by name.
        rows: Losses (N,) of each way of telling.
        positions: Nats per code of `given` at each position (L,).
        pictures: Which picture each row shows (N,), by equal codes.
    """

    groups: dict[str, Group]
    image_len: int
    codebook_size: int
    shuffles: int
    shuffle_spread: float | None
    other_kg_known: float | None
    rows: dict[str, NDArray[np.float64]] = field(repr=False)
    positions: NDArray[np.float64]
    pictures: NDArray[np.int64] = field(repr=False)

    @property
    def chance(self) -> float:
        """Nats per code of a model that holds all codes to be equally likely."""
        return float(np.log(self.codebook_size))


@dataclass(frozen=True, kw_only=True)
class OtherGraph:
    """Another graph's vectors, and the names of both graphs by id."""

    names: Sequence[str]
    other_names: Sequence[str]
    vectors: NDArray[np.float32]


def measure_likelihood(
    gpt: GPT,
    rows: Rows,
    vectors: NDArray[np.float32],
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 64,
    shuffles: int = 5,
    seed: int = 0,
    seen: NDArray[np.int64] | None = None,
    other: OtherGraph | None = None,
) -> Likelihood:
    """Losses of the rows as they are and under every control that makes sense for the model.

    Args:
        gpt: On its device.
        rows: With codes.
        vectors: `(num_entities, D)` of the graph the model was trained with.
        dtype: Precision of matrix products.
        batch_size: Captions that go through the model at once.
        shuffles: How many times to shuffle the vectors.
        seed: Of shuffling, and of the choice of other captions.
        seen: Ids of the entities in the training captions.
        other: Another graph.

    Raises:
        SchemaError: The other graph's vectors have another width.
    """

    def losses(rows: Rows, vectors: NDArray[np.float32], label: str, use: bool = True) -> Losses:
        batches = Batches(rows, vectors, gpt.config)
        return measure_losses(
            gpt, batches, dtype=dtype, batch_size=batch_size, use_entities=use, label=label
        )

    given = losses(rows, vectors, "as given")
    found = {GIVEN: given.rows}
    known = np.diff(rows.first_entity) > 0
    spread = share = None
    mixed = np.zeros((0, len(rows)))
    if gpt.config.fusion != "none" and known.any():
        found[NONE] = losses(rows, vectors, "without entities", use=False).rows
        mixed = np.array(
            [
                losses(rows, shuffled_vectors(rows, vectors, seed + n), "shuffled").rows
                for n in range(shuffles)
            ]
        )  # (shuffles, N)
        if shuffles:
            found[SHUFFLED] = mixed.mean(0)
        if shuffles > 1:
            spread = float(mixed.mean(1).std(ddof=1))
        if other is not None:
            translated = in_other_graph(rows, other.names, other.other_names)
            share = len(translated.entity_ids) / len(rows.entity_ids)
            found[OTHER_KG] = losses(translated, other.vectors, "another graph").rows
    pictures = group_of_rows(rows.codes)
    if pictures.max() > 0:
        # The caption stays and the codes move, so each loss belongs to the row its codes are from.
        source = another_picture(pictures, seed)
        moved = losses(replace(rows, codes=rows.codes[source]), vectors, "other captions").rows
        found[CAPTION] = np.empty_like(moved)
        found[CAPTION][source] = moved
    return Likelihood(
        groups=_groups(rows, found, mixed, pictures, seen),
        image_len=gpt.config.image_len,
        codebook_size=gpt.config.image_vocab_size,
        shuffles=shuffles if SHUFFLED in found else 0,
        shuffle_spread=spread,
        other_kg_known=share,
        rows=found,
        positions=given.positions,
        pictures=pictures,
    )


def _groups(
    rows: Rows,
    losses: dict[str, NDArray[np.float64]],
    mixed: NDArray[np.float64],
    pictures: NDArray[np.int64],
    seen: NDArray[np.int64] | None,
) -> dict[str, Group]:
    known = np.diff(rows.first_entity) > 0
    members = {"all": np.ones(len(rows), dtype=bool), "with entity": known}
    if seen is not None:
        unseen = has_unseen(rows, seen)
        members |= {"unseen entity": unseen, "seen entities only": known & ~unseen}
    members["without entity"] = ~known
    return {
        name: _group(losses, mixed, pictures, who) for name, who in members.items() if who.any()
    }


def _group(
    losses: dict[str, NDArray[np.float64]],
    mixed: NDArray[np.float64],
    pictures: NDArray[np.int64],
    who: NDArray[np.bool_],
) -> Group:
    shown = pictures[who]
    costs = {
        name: interval((values - losses[GIVEN])[who], shown)
        for name, values in losses.items()
        if name != GIVEN
    }
    if SHUFFLED in costs:  # a frequent entity that drew a good or bad vector moves many captions
        costs[SHUFFLED] = widened(costs[SHUFFLED], mixed[:, who].mean(1))
    return Group(
        captions=int(who.sum()),
        pictures=len(np.unique(shown)),
        losses={name: interval(values[who], shown) for name, values in losses.items()},
        costs=costs,
    )
