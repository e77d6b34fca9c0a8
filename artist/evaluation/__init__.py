"""Measure a model or a set of images: likelihood with controls, image metrics, ablations.

evaluate            run every measurement that the given sources allow; write one folder
ablate              train with and without knowledge; compare caption by caption
measure_likelihood  nats per code of a table's images, as given and under each control
shuffle_graph       write a KG folder whose entities have exchanged vectors
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from artist.evaluation.ablation import AblationReport, ablate, shuffle_graph
    from artist.evaluation.config import EvaluateConfig, Sources
    from artist.evaluation.controls import shuffled_vectors
    from artist.evaluation.evaluator import evaluate
    from artist.evaluation.image_sets import ImageSet
    from artist.evaluation.likelihood import measure_likelihood
    from artist.evaluation.results import Evaluation

__all__ = [
    "AblationReport",
    "EvaluateConfig",
    "Evaluation",
    "ImageSet",
    "Sources",
    "ablate",
    "evaluate",
    "measure_likelihood",
    "shuffle_graph",
    "shuffled_vectors",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "AblationReport": "artist.evaluation.ablation",
        "EvaluateConfig": "artist.evaluation.config",
        "Evaluation": "artist.evaluation.results",
        "ImageSet": "artist.evaluation.image_sets",
        "Sources": "artist.evaluation.config",
        "ablate": "artist.evaluation.ablation",
        "evaluate": "artist.evaluation.evaluator",
        "measure_likelihood": "artist.evaluation.likelihood",
        "shuffle_graph": "artist.evaluation.ablation",
        "shuffled_vectors": "artist.evaluation.controls",
    },
)
