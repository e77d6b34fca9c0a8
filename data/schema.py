"""The tables between stages: columns, types and versions; reading, checking and writing.

`lex_ids`, `pos_s` and `pos_e` have exactly EasyNLP's meaning (see `LATTICE`), so rows can be
compared with its output. Code uses half-open token spans and converts them at the table.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.encoding import unicode_path
from data.errors import SchemaError, did_you_mean

TRIPLES = pa.schema(
    [("head_id", pa.int32()), ("relation_id", pa.int32()), ("tail_id", pa.int32())],
    metadata={"table": "triples", "version": "1"},
)

IMAGE = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
CODES = pa.field("codes", pa.list_(pa.uint16()))
# Codes of further versions of the image (cropped, mirrored), concatenated.
MORE_CODES = pa.field("more_codes", pa.list_(pa.uint16()))

# lex_ids: entity ids ordered by start, then end, then id. pos_s, pos_e: the token positions
# 0..seq_len-1, then for each entity its first and its last token (inclusive).
LATTICE = pa.schema(
    [
        ("idx", pa.string()),
        ("text", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("seq_len", pa.int32()),
        ("lex_ids", pa.list_(pa.int32())),
        ("pos_s", pa.list_(pa.int32())),
        ("pos_e", pa.list_(pa.int32())),
    ],
    metadata={"table": "lattice", "version": "1"},
)

# Metadata that the shards of a table must share.
_SHARED_METADATA = {
    "tokenizer_fingerprint": "tokenizers",
    "kg_fingerprint": "KGs",
    "vqgan_fingerprint": "VQGANs",
    "settings": "settings",
}
_MAKERS = {"lattice": "cli.py lattice build", "triples": "cli.py kg train"}


def is_parquet(path: Path) -> bool:
    """Return whether a file begins as Parquet does; False for a folder or an unreadable file."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False  # the reader of text files reports the error


def open_table(path: Path, schema: pa.Schema, optional: Iterable[pa.Field] = ()) -> pq.ParquetFile:
    """Open a Parquet file and check its columns, types, name and version against `schema`.

    Args:
        path: The file.
        schema: The required columns.
        optional: Columns that may exist, with their required type.

    Raises:
        SchemaError: It is not such a table.
    """
    name = schema.metadata[b"table"].decode()
    advice = f"Write one with `{_MAKERS[name]}`."
    if not path.is_file():
        raise SchemaError(f"{path} does not exist. {advice}")
    try:
        with unicode_path(path) as plain:
            file = pq.ParquetFile(plain, pre_buffer=False)  # True would keep all in memory
        found, metadata = file.schema_arrow, table_metadata(file.schema_arrow)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise SchemaError(f"{path} is not a readable Parquet file: {reason} {advice}") from None
    for field in schema:
        if field.name not in found.names:
            near = did_you_mean(field.name, found.names)
            raise SchemaError(
                f"{path} is not a {name} table: column {field.name} is missing "
                f"(found {', '.join(found.names)}){near}. {advice}"
            )
    for field in (*schema, *optional):
        if field.name in found.names and found.field(field.name).type != field.type:
            raise SchemaError(
                f"{path}: column {field.name} is {found.field(field.name).type}, "
                f"expected {field.type}. {advice}"
            )
    version = metadata.get("version")
    want = schema.metadata[b"version"].decode()
    if version != want:
        raise SchemaError(
            f"{path} is a {name} table of version {version}; this toolkit reads "
            f"version {want}. {advice}"
        )
    return file


def table_files(path: Path) -> list[Path]:
    """Return the Parquet files of a table: itself, or the shards in a folder, sorted by name.

    Raises:
        SchemaError: The folder contains no Parquet file.
    """
    if not path.is_dir():
        return [path]
    files = sorted(f for f in path.glob("*.parquet") if f.is_file())
    if not files:
        raise SchemaError(
            f"{path} contains no .parquet file. Give a lattice table, or a folder of its shards."
        )
    return files


@dataclass(frozen=True)
class Shards:
    """A checked table in one or several files, read in batches.

    Attributes:
        files: In order.
        schema_arrow: Schema of all files, with the metadata of the first.
        num_rows: Of all files.
    """

    files: list[Path]
    schema_arrow: pa.Schema
    num_rows: int

    def iter_batches(
        self, batch_size: int, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, optionally of some columns only.

        Raises:
            SchemaError: A file is damaged.
        """
        for path in self.files:
            with (
                _intact(path),
                unicode_path(path) as plain,
                pq.ParquetFile(plain, pre_buffer=False) as file,
            ):
                for batch in file.iter_batches(batch_size, columns=columns):
                    batch.validate(full=True)  # texts may not be UTF-8
                    yield batch

    def read(self, columns: list[str]) -> pa.Table:
        """Return these columns of all rows, in memory."""
        schema = pa.schema([self.schema_arrow.field(name) for name in columns])
        parts = []
        for path in self.files:
            with _intact(path), unicode_path(path) as plain:
                part = pq.read_table(plain, columns=columns, partitioning=None)
                part.validate(full=True)
            parts.append(part.cast(schema))
        table = pa.concat_tables(parts)
        return table.replace_schema_metadata(self.schema_arrow.metadata)


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Raise `SchemaError` where Arrow finds damage in a file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SchemaError(f"{path} is damaged: {reason}") from None


def open_shards(path: Path, schema: pa.Schema, optional: Iterable[pa.Field] = ()) -> Shards:
    """Open a table in one file or in a folder of shards; checked as in `open_table`.

    Raises:
        SchemaError: A file is not such a table, or the shards differ in columns or metadata.
    """
    optional, files, num_rows = list(optional), table_files(path), 0
    first: pa.Schema | None = None
    for path in files:
        with open_table(path, schema, optional) as file:
            found, num_rows = file.schema_arrow, num_rows + file.metadata.num_rows
        first = first or found
        for name, what in _SHARED_METADATA.items():
            if table_metadata(found).get(name) != table_metadata(first).get(name):
                raise SchemaError(f"{path} and {files[0]} were made with different {what}.")
        if found.names != first.names:
            raise SchemaError(f"{path} and {files[0]} have different columns.")
    assert first is not None
    return Shards(files, first, num_rows)


def table_metadata(schema: pa.Schema) -> dict[str, str]:
    """Return the key-value metadata of a schema as text."""
    pairs = schema.metadata or {}
    return {k.decode(): v.decode() for k, v in pairs.items() if not k.startswith(b"ARROW:")}


def with_metadata(schema: pa.Schema, more: Mapping[str, Any]) -> pa.Schema:
    """Return the schema with further metadata; values that are not text are stored as JSON."""
    pairs = dict(schema.metadata or {})
    for key, value in more.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        pairs[key.encode()] = text.encode()
    return schema.with_metadata(pairs)


def table_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a Parquet writer with page checksums, without compression of image bytes.

    Integers are delta-encoded, which is smaller and faster than a dictionary for positions and ids;
    statistics are off, since rows are not looked up by value.
    """
    plain = {f"{IMAGE.name}.bytes"} if IMAGE.name in schema.names else set()
    leaves = [leaf for field in schema for leaf in _leaves(field)]
    with unicode_path(path, write=True) as where:
        return pq.ParquetWriter(
            where,
            schema,
            write_page_checksum=True,
            write_statistics=False,
            compression={name: "NONE" if name in plain else "ZSTD" for name, _ in leaves},
            use_dictionary=False,
            column_encoding={
                name: "DELTA_BINARY_PACKED" for name, type_ in leaves if pa.types.is_int32(type_)
            },
        )


def _leaves(field: pa.Field, parent: str = "") -> list[tuple[str, pa.DataType]]:
    """Return names and types of the Parquet columns of a field."""
    name = f"{parent}{field.name}"
    if pa.types.is_struct(field.type):
        return [leaf for child in field.type for leaf in _leaves(child, f"{name}.")]
    if pa.types.is_list(field.type):
        return [(f"{name}.list.element", field.type.value_type)]
    return [(name, field.type)]
