"""Likelihood of held-out images under a model, and what each of its inputs contributes.

    N captions   L image codes   D entity_dim

Each control replaces one input and answers one question:

none       no entities: does the model use them at all?
shuffled   each entity keeps its position but gets another entity's vector: does the *content* of
           the graph matter, beyond the positions of its entities?
other_kg   the vectors of another graph for the same names: would any graph do?
caption    caption and entities of another image: does the text matter at all?
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from artist.evaluation.clusters import Clusters
from artist.evaluation.confidence_intervals import Interval, group_of_rows, interval, widened
from artist.evaluation.controls import (
    OtherIds,
    another_image,
    caption_groups,
    shuffled_vectors,
)
from artist.models.gpt import GPT
from artist.tables.lattice_rows import Batches, Rows
from artist.training.validation import Losses, measure_losses

GIVEN, NONE, SHUFFLED, OTHER_KG, CAPTION = "given", "none", "shuffled", "other_kg", "caption"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Losses of a group of captions.

    Attributes:
        captions: Number of captions.
        pictures: Number of different images (the name is a JSON key).
        clusters: Number of clusters of the intervals.
        losses: Nats per code, as given and under each control.
        costs: Loss under each control minus loss as given, nats per code, paired by caption. The
            interval of `shuffled` includes the variance between shuffles.
    """

    captions: int
    pictures: int
    clusters: int
    losses: dict[str, Interval]
    costs: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Likelihood of the images of a table. Field names are JSON keys.

    Attributes:
        groups: `all`; `with entity`, `without entity`; and, where the training captions are known,
            `unseen entity` and `seen entities only`. Empty groups are left out.
        image_len: Codes per image; nats per code times this are nats per image.
        codebook_size: Number of codes; a uniform model has its logarithm as nats per code.
        shuffles: Number of shuffles of the vectors; the loss of a caption is the mean over them.
        shuffle_spread: Standard deviation of the mean loss between shuffles.
        other_kg_known: Share of the entity occurrences whose name the other graph has.
        rows: Losses (N,) as given and under each control.
        positions: Nats per code of `given` at each position (L,).
        images: Image number of each row (N,); equal codes are one image.
        clustered: How the intervals are clustered, with the numbers of clusters.
    """

    groups: dict[str, Group]
    image_len: int
    codebook_size: int
    shuffles: int
    shuffle_spread: float | None
    other_kg_known: float | None
    rows: dict[str, NDArray[np.float64]] = field(repr=False)
    positions: NDArray[np.float64]
    images: NDArray[np.int64] = field(repr=False)
    clustered: str

    @property
    def chance(self) -> float:
        """Nats per code of a uniform distribution over the codes."""
        return float(np.log(self.codebook_size))


@dataclass(frozen=True, kw_only=True)
class OtherGraph:
    """Vectors of another graph, and the names of both graphs by id."""

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
    clusters: Clusters | None = None,
) -> Likelihood:
    """Measure the losses of the rows as given and under every control that the model allows.

    Args:
        gpt: On its device.
        rows: With codes.
        vectors: `(num_entities, D)` of the graph the model was trained with.
        dtype: Precision of matrix products.
        batch_size: Captions per batch.
        shuffles: Number of shuffles of the vectors.
        seed: Seed of the shuffles and of the choice of other captions.
        seen: Ids of the entities in the training captions.
        other: Another graph.
        clusters: The clusters of the rows, for the intervals; by default their images.

    Raises:
        SchemaError: The other graph's vectors have another width.
    """

    def losses(
        rows: Rows,
        vectors: NDArray[np.float32],
        label: str,
        use: bool = True,
        seen: NDArray[np.int64] | None = seen,
    ) -> Losses:
        batches = Batches(rows, vectors, gpt.config, seen if use else None)
        return measure_losses(
            gpt, batches, dtype=dtype, batch_size=batch_size, use_entities=use, label=label
        )

    given = losses(rows, vectors, "as given")
    found = {GIVEN: given.rows}
    spread = share = None
    mixed = np.zeros((0, len(rows)))
    if gpt.config.fusion != "none" and len(rows.entity_ids):
        found[NONE] = losses(rows, vectors, "without entities", use=False).rows
        shuffled = (shuffled_vectors(rows, vectors, seed + n) for n in range(shuffles))
        mixed = np.array([losses(rows, v, "shuffled").rows for v in shuffled])  # (shuffles, N)
        if shuffles:
            found[SHUFFLED] = mixed.mean(0)
        if shuffles > 1:
            spread = float(mixed.mean(1).std(ddof=1))
        if other is not None:
            ids = OtherIds(rows, other.names, other.other_names)
            translated = ids.rows(rows)
            share = len(translated.entity_ids) / len(rows.entity_ids)
            known = ids.entities(seen) if seen is not None else None
            found[OTHER_KG] = losses(translated, other.vectors, "another graph", seen=known).rows
    images = group_of_rows(rows.codes)
    clusters = clusters or Clusters.of_images(images)
    if images.max() > 0:
        # Captions stay and codes move, so each loss belongs to the row its codes come from.
        source = another_image(images, seed)
        moved = losses(replace(rows, codes=rows.codes[source]), vectors, "other captions").rows
        found[CAPTION] = np.empty_like(moved)
        found[CAPTION][source] = moved
    return Likelihood(
        groups={
            name: _group(found, mixed, clusters, images, members)
            for name, members in caption_groups(rows, seen).items()
            if members.any()
        },
        image_len=gpt.config.image_len,
        codebook_size=gpt.config.image_vocab_size,
        shuffles=shuffles if SHUFFLED in found else 0,
        shuffle_spread=spread,
        other_kg_known=share,
        rows=found,
        positions=given.positions,
        images=images,
        clustered=str(clusters),
    )


def _group(
    losses: dict[str, NDArray[np.float64]],
    mixed: NDArray[np.float64],
    clusters: Clusters,
    images: NDArray[np.int64],
    members: NDArray[np.bool_],
) -> Group:
    groups = clusters.groups[members]
    costs = {
        name: interval((values - losses[GIVEN])[members], groups)
        for name, values in losses.items()
        if name != GIVEN
    }
    if SHUFFLED in costs:  # the vector of a frequent entity affects many captions at once
        costs[SHUFFLED] = widened(costs[SHUFFLED], mixed[:, members].mean(1))
    return Group(
        captions=int(members.sum()),
        pictures=len(np.unique(images[members])),
        clusters=clusters.count(members),
        losses={name: interval(values[members], groups) for name, values in losses.items()},
        costs=costs,
    )
