"""Tools over dumps and KG folders, one module per command.

`eval_kg` (`kg eval`), `find_nearest` (`kg nearest`), `draw_map` (`kg map`), `kg_stats`,
`clean_dump` (`kg clean`) and `import_vectors` (`kg import`).
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from kg.tools.clean import clean_dump
    from kg.tools.evaluate import eval_kg
    from kg.tools.import_embeddings import import_vectors
    from kg.tools.map import draw_map
    from kg.tools.nearest import find_nearest
    from kg.tools.stats import kg_stats

__all__ = ["clean_dump", "draw_map", "eval_kg", "find_nearest", "import_vectors", "kg_stats"]

__getattr__ = lazy_exports(
    __name__,
    {
        "clean_dump": "kg.tools.clean",
        "draw_map": "kg.tools.map",
        "eval_kg": "kg.tools.evaluate",
        "find_nearest": "kg.tools.nearest",
        "import_vectors": "kg.tools.import_embeddings",
        "kg_stats": "kg.tools.stats",
    },
)
