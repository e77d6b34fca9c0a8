"""Generation: sampling, pipelines of all model families, re-ranking and galleries.

Pipelines: `load_pipeline` returns the `ImagePipeline` of a model folder; `Artist` is the one of
ARTIST models. Sampling: `SamplingConfig`, `sample`, `CUDAGraphSampler`. Scoring:
`load_text_image_scorer` returns a `TextImageScorer`. Prompts, image files and pages:
`read_prompts`, `generate_missing`, `prompt_card`, `write_gallery`. The module `predict` does all of
it for `artist predict`.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from artist.generation.artist_pipeline import Artist
    from artist.generation.config import CFG_SCHEDULES, SamplingConfig
    from artist.generation.cuda_graph import CUDAGraphSampler
    from artist.generation.gallery import (
        Card,
        ComparisonTable,
        GalleryImage,
        ImageRow,
        Note,
        write_gallery,
    )
    from artist.generation.image_files import generate_missing, image_seed
    from artist.generation.pipeline_protocol import ImagePipeline, load_pipeline
    from artist.generation.prompt_cards import prompt_card
    from artist.generation.prompts import Prompts, read_prompts
    from artist.generation.sampling import sample
    from artist.generation.text_image_scorer import TextImageScorer, load_text_image_scorer

__all__ = [
    "CFG_SCHEDULES",
    "Artist",
    "CUDAGraphSampler",
    "Card",
    "ComparisonTable",
    "GalleryImage",
    "ImagePipeline",
    "ImageRow",
    "Note",
    "Prompts",
    "SamplingConfig",
    "TextImageScorer",
    "generate_missing",
    "image_seed",
    "load_pipeline",
    "load_text_image_scorer",
    "prompt_card",
    "read_prompts",
    "sample",
    "write_gallery",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Artist": "artist.generation.artist_pipeline",
        "CFG_SCHEDULES": "artist.generation.config",
        "CUDAGraphSampler": "artist.generation.cuda_graph",
        "Card": "artist.generation.gallery",
        "ComparisonTable": "artist.generation.gallery",
        "GalleryImage": "artist.generation.gallery",
        "ImagePipeline": "artist.generation.pipeline_protocol",
        "ImageRow": "artist.generation.gallery",
        "Note": "artist.generation.gallery",
        "Prompts": "artist.generation.prompts",
        "SamplingConfig": "artist.generation.config",
        "TextImageScorer": "artist.generation.text_image_scorer",
        "generate_missing": "artist.generation.image_files",
        "image_seed": "artist.generation.image_files",
        "load_pipeline": "artist.generation.pipeline_protocol",
        "load_text_image_scorer": "artist.generation.text_image_scorer",
        "prompt_card": "artist.generation.prompt_cards",
        "read_prompts": "artist.generation.prompts",
        "sample": "artist.generation.sampling",
        "write_gallery": "artist.generation.gallery",
    },
)
