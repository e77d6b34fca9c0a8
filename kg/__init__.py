"""Stage 1: train one vector for each entity of a knowledge graph (TransE).

`KGConfig` has the settings. `kg.reading` reads dumps of triples, `kg.training` trains and ranks
(`train_kg`), `kg.tools` has the other commands.
"""

from kg.config import KGConfig

__all__ = ["KGConfig"]
