"""Train TransE on a graph and rank triples with it.

`train.train_kg` is the stage behind `kg train`. `trainer.train_transe` trains on triples of ids;
`ranking.make_queries` and `ranking.evaluate` rank triples.
"""

__all__ = ["ranking", "train", "train_state", "trainer"]
