"""Building of lattice tables from caption files, and exchange with EasyNLP's TSV."""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from lattice.building.build import (
        LatticeReport,
        TextMatcher,
        build_lattice,
        load_tokenizer,
        match_texts,
    )
    from lattice.building.easynlp_tsv import ExchangeReport, export_table, import_table

__all__ = [
    "ExchangeReport",
    "LatticeReport",
    "TextMatcher",
    "build_lattice",
    "export_table",
    "import_table",
    "load_tokenizer",
    "match_texts",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ExchangeReport": "lattice.building.easynlp_tsv",
        "LatticeReport": "lattice.building.build",
        "TextMatcher": "lattice.building.build",
        "build_lattice": "lattice.building.build",
        "export_table": "lattice.building.easynlp_tsv",
        "import_table": "lattice.building.easynlp_tsv",
        "load_tokenizer": "lattice.building.build",
        "match_texts": "lattice.building.build",
    },
)
