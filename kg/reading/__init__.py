"""Read a dump of triples: lines of bytes to names and triples of ids.

`read_triples` reads TSV, OwnThink's CSV (plain or gzip) and OpenKE folders and returns a `Graph`.
`read_named_triples` reads a dump in the ids of an existing KG folder.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from kg.reading.graph import Graph
    from kg.reading.name_ids import ids_in, read_named_triples
    from kg.reading.names import normal_names
    from kg.reading.row_scanner import normalise
    from kg.reading.triples import read_triples

__all__ = [
    "Graph",
    "ids_in",
    "normal_names",
    "normalise",
    "read_named_triples",
    "read_triples",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Graph": "kg.reading.graph",
        "ids_in": "kg.reading.name_ids",
        "normal_names": "kg.reading.names",
        "normalise": "kg.reading.row_scanner",
        "read_named_triples": "kg.reading.name_ids",
        "read_triples": "kg.reading.triples",
    },
)
