"""Tools over dumps and KG folders, one module per command.

`evaluate.eval_kg` (`kg eval`), `nearest.find_nearest` (`kg nearest`), `map.draw_map` (`kg map`),
`stats.kg_stats`, `clean.clean_dump` and `import_embeddings.import_vectors` (`kg import`).
"""

__all__ = ["clean", "evaluate", "import_embeddings", "map", "nearest", "stats"]
