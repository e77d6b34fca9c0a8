"""Models as torch modules; tensors only, no files.

GPT, GPTConfig           predict the codes of an image from text tokens and entities
LatticeFusion            add entity vectors to text embeddings
Conditioning, Entities   the captions of a batch, and the entities that cover their tokens
ImageTokenizer           contract of image tokenizers: images to codes and back
VQGAN, VQGANConfig       the image tokenizer of taming-transformers
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from artist.models.conditioning import Conditioning, Entities
    from artist.models.config import GPTConfig, VQGANConfig
    from artist.models.fusion import LatticeFusion
    from artist.models.gpt import GPT
    from artist.models.image_tokenizer import ImageTokenizer
    from artist.models.vqgan import VQGAN

__all__ = [
    "GPT",
    "VQGAN",
    "Conditioning",
    "Entities",
    "GPTConfig",
    "ImageTokenizer",
    "LatticeFusion",
    "VQGANConfig",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Conditioning": "artist.models.conditioning",
        "Entities": "artist.models.conditioning",
        "GPT": "artist.models.gpt",
        "GPTConfig": "artist.models.config",
        "ImageTokenizer": "artist.models.image_tokenizer",
        "LatticeFusion": "artist.models.fusion",
        "VQGAN": "artist.models.vqgan",
        "VQGANConfig": "artist.models.config",
    },
)
