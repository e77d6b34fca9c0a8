"""Measure a model or a set of images: likelihood with controls, image metrics, ablations.

evaluate            run every measurement that the given sources allow; write one folder
ablate              train with and without knowledge; compare caption by caption
measure_likelihood  nats per code of a table's images, as given and under each control
find_clusters       captions that count as dependent in intervals
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from artist.evaluation.ablation import AblationReport, ablate
    from artist.evaluation.clusters import Clusters, find_clusters
    from artist.evaluation.config import EvaluateConfig, Sources
    from artist.evaluation.controls import shuffled_vectors
    from artist.evaluation.evaluator import evaluate
    from artist.evaluation.image_sets import ImageSet
    from artist.evaluation.likelihood import measure_likelihood
    from artist.evaluation.results import Evaluation

__all__ = [
    "AblationReport",
    "Clusters",
    "EvaluateConfig",
    "Evaluation",
    "ImageSet",
    "Sources",
    "ablate",
    "evaluate",
    "find_clusters",
    "measure_likelihood",
    "shuffled_vectors",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "AblationReport": "artist.evaluation.ablation",
        "Clusters": "artist.evaluation.clusters",
        "EvaluateConfig": "artist.evaluation.config",
        "Evaluation": "artist.evaluation.results",
        "ImageSet": "artist.evaluation.image_sets",
        "Sources": "artist.evaluation.config",
        "ablate": "artist.evaluation.ablation",
        "evaluate": "artist.evaluation.evaluator",
        "find_clusters": "artist.evaluation.clusters",
        "measure_likelihood": "artist.evaluation.likelihood",
        "shuffled_vectors": "artist.evaluation.controls",
    },
)
