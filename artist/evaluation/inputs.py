"""The sources of an evaluation, opened when needed and checked against each other."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from artist.evaluation.clusters import Clusters, find_clusters
from artist.evaluation.confidence_intervals import group_of_rows
from artist.evaluation.config import Sources
from artist.evaluation.controls import without_entities
from artist.evaluation.image_sets import CaptionedImage, ImageSet
from artist.formats.image_tokenizer_folder import FrozenTokenizer
from artist.formats.model_folder import Model, load_model, read_seen, read_seen_tokens
from artist.generation.artist_pipeline import entity_vectors
from artist.tables.encode import with_codes
from artist.tables.lattice_rows import (
    Rows,
    RowsConfig,
    check_table,
    open_lattice,
    read_rows,
    rows_from_table,
)
from data.errors import ArtefactError, SchemaError
from data.kg_folder import ENTITY_NAMES, kg_fingerprint, open_names
from data.runs import fingerprint, read_manifest
from data.schema import CODES, IMAGE, LATTICE


def fingerprints(sources: Sources) -> dict[str, str]:
    """Return a fingerprint of the content of each source that was given."""
    return {
        name: (kg_fingerprint if name.endswith("kg") else fingerprint)(path)
        for name, path in vars(sources).items()
        if path is not None
    }


class Inputs:
    """The content of the sources.

    Args:
        sources: The paths.
        device: The model's device.

    Attributes:
        warnings: Problems found so far, each once.
    """

    def __init__(self, sources: Sources, device: torch.device) -> None:
        self.sources, self.device = sources, device
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Record a caveat for readers of the figures."""
        if text not in self.warnings:
            self.warnings.append(text)

    def warn_of_rejects(self, images: ImageSet) -> None:
        """Record how many images of a set could not be read in its last pass."""
        if images.rejects.count:
            self.warn(
                f"{images.rejects.count} images of {images.path.name} cannot be read and "
                f"were left out ({images.rejects.first})."
            )

    @cached_property
    def model(self) -> Model:
        """The model, on its device."""
        assert self.sources.model is not None
        return load_model(self.sources.model, self.device)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Entity vectors of the model's graph, `(num_entities, D)`."""
        return entity_vectors(self.model, self.sources.kg)

    @cached_property
    def names(self) -> Sequence[str]:
        """Entity names of the model's graph, by id."""
        return open_names(self.sources.kg / ENTITY_NAMES) if self.sources.kg else []

    @property
    def rows_config(self) -> RowsConfig:
        """How the model reads a table's captions."""
        return RowsConfig.of_model(self.model.gpt.config, self.model.tokenizer.pad_id)

    def _tokenizer(self) -> FrozenTokenizer:
        """Return the image tokenizer of the model."""
        assert self.sources.model is not None
        model = self.model.image_tokenizer
        return FrozenTokenizer(model, model.fingerprint(), self.sources.model)

    @cached_property
    def _encoded(self) -> Path:
        """The table with the codes of the model's image tokenizer."""
        assert self.sources.table is not None
        return with_codes(self.sources.table, self._tokenizer(), self.device.type)

    @cached_property
    def _table_rows(self) -> Rows:
        """The table's captions with codes and entities."""
        rows, model = read_rows(self._encoded, self.rows_config), self.model
        kg, source = self.sources.kg, str(self.sources.table)
        check_table(rows, model.tokenizer.fingerprint, model.kg_fingerprint, kg, source)
        return rows

    @cached_property
    def rows(self) -> Rows:
        """The table's captions with codes; without entities where no graph is given."""
        rows = self._table_rows
        return rows if self.sources.kg is not None else without_entities(rows)

    def clusters(self, by: str) -> Clusters:
        """Return the clusters of the rows; entities count also where no graph is given."""
        return find_clusters(self._table_rows, by, table=self._encoded, names=self.names)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Image number of each row (N,)."""
        return group_of_rows(self.rows.codes)

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """The first row of each image, ascending."""
        return np.sort(np.unique(self.groups, return_index=True)[1])

    @cached_property
    def has_images(self) -> bool:
        """Whether the table contains images, and not only their codes."""
        if self.sources.table is None:
            return False
        return IMAGE.name in open_lattice(self.sources.table).schema_arrow.names

    @property
    def _resize(self) -> str:
        """How the table's images were resized for the codes stored with them."""
        assert self.sources.table is not None
        if CODES.name not in open_lattice(self.sources.table).schema_arrow.names:
            return "antialias"
        try:
            made = read_manifest(self.sources.table).settings
        except ArtefactError:
            return "antialias"
        return str(made.get("resize", "antialias"))

    def originals(self) -> Iterator[CaptionedImage]:
        """Yield the table's images, each once, at the model's resolution.

        Raises:
            SchemaError: The codes in the table belong to other rows.
        """
        assert self.sources.table is not None
        side = self.model.image_tokenizer.resolution
        chosen = set(self.first_rows.tolist())
        images = ImageSet(path=self.sources.table, side=side, resize=self._resize)
        n = -1
        # Rows whose image cannot be read have no codes either, so rows and images correspond.
        for n, image in enumerate(images):
            if n >= len(self.rows) or image.idx != self.rows.idx[n]:
                raise SchemaError(
                    f"{self.sources.table}: row {image.idx} has an image but not its codes. "
                    "Encode the images again with `cli.py artist encode`."
                )
            if n in chosen:
                yield image
        self.warn_of_rejects(images)

    @cached_property
    def captions(self) -> dict[str, str]:
        """The table's captions by idx; the first one where several share an idx."""
        if self.sources.table is None:
            return {}
        table = open_lattice(self.sources.table).read(["idx", "text"])
        pairs = zip(table["idx"].to_pylist()[::-1], table["text"].to_pylist()[::-1], strict=True)
        return dict(pairs)

    @cached_property
    def seen_entities(self) -> NDArray[np.int64] | None:
        """Ids of the entities in the training captions as read by the model; None if unknown."""
        path = self.sources.train_table
        if path is None:
            assert self.sources.model is not None
            return read_seen(self.sources.model)
        table = open_lattice(path).read(LATTICE.names)
        rows = rows_from_table(table, self.rows_config, source=str(path))
        tokenizer, graph = self.model.tokenizer.fingerprint, self.model.kg_fingerprint
        check_table(rows, tokenizer, graph, self.sources.kg, str(path))
        self._check_training(path)
        return rows.named_entities()

    @cached_property
    def trained_tokens(self) -> NDArray[np.int64] | None:
        """Ids of the tokens in the training captions; None if unknown."""
        assert self.sources.model is not None
        known, path = read_seen_tokens(self.sources.model), self.sources.train_table
        if known is not None or path is None:
            return known
        rows = rows_from_table(open_lattice(path).read(LATTICE.names), self.rows_config)
        return rows.tokens(self.model.tokenizer.vocab_size)

    def _check_training(self, path: Path) -> None:
        """Warn if the training table is not the one in the model's manifest."""
        assert self.sources.model is not None
        try:
            trained_on = read_manifest(self.sources.model).inputs.get("table")
        except ArtefactError:
            return
        stem = path.name.removesuffix(".parquet")
        encoded = path.parent.glob(f"{stem}.codes-*.parquet")
        if trained_on and trained_on not in {fingerprint(p) for p in (path, *encoded)}:
            self.warn(f"{path} is not the table in the model's manifest.")
