"""Lattice tables: encode their images, read their rows, assemble batches.

encode_table                        write a table with the codes of its images
EncodeConfig, Versions              its settings, and the versions of each image
open_rows, RowsConfig, Rows         read the rows of a table, in memory or mapped
rows_from_table                     the same for an Arrow table
Batches, Batch                      batches of rows with entity vectors
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from artist.tables.config import EncodeConfig, Versions
    from artist.tables.encode import encode_table
    from artist.tables.lattice_rows import Batch, Batches, Rows, RowsConfig, rows_from_table
    from artist.tables.mmap_rows import open_rows

__all__ = [
    "Batch",
    "Batches",
    "EncodeConfig",
    "Rows",
    "RowsConfig",
    "Versions",
    "encode_table",
    "open_rows",
    "rows_from_table",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Batch": "artist.tables.lattice_rows",
        "Batches": "artist.tables.lattice_rows",
        "Rows": "artist.tables.lattice_rows",
        "RowsConfig": "artist.tables.lattice_rows",
        "Versions": "artist.tables.config",
        "EncodeConfig": "artist.tables.config",
        "encode_table": "artist.tables.encode",
        "open_rows": "artist.tables.mmap_rows",
        "rows_from_table": "artist.tables.lattice_rows",
    },
)
