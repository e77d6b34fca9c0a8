"""Train TransE on a graph and rank triples with it.

`train_kg` is the stage behind `kg train`. `train_transe` trains on triples of ids; `make_queries`
and `evaluate` rank triples.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from kg.training.ranking import evaluate, make_queries
    from kg.training.train import KGReport, train_kg
    from kg.training.train_state import Trained
    from kg.training.trainer import train_transe

__all__ = ["KGReport", "Trained", "evaluate", "make_queries", "train_kg", "train_transe"]

__getattr__ = lazy_exports(
    __name__,
    {
        "KGReport": "kg.training.train",
        "Trained": "kg.training.train_state",
        "evaluate": "kg.training.ranking",
        "make_queries": "kg.training.ranking",
        "train_kg": "kg.training.train",
        "train_transe": "kg.training.trainer",
    },
)
