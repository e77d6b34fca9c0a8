"""The sizes of the models. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from data.constants import POLICIES, TEXT_LEN
from data.errors import ConfigError
from data.options import Setting, check_fields, from_dict

FUSIONS = ("lattice", "easynlp", "none")
EASYNLP_ENTITIES = 10  # entity slots of the released fusion
QUANTIZERS = ("nearest", "gumbel")


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes of the GPT."""

    text_vocab_size: Annotated[
        int, Setting("Size of the BERT vocabulary (BERT-Chinese: 21,128).", min=1)
    ] = 21_128
    image_vocab_size: Annotated[int, Setting("Codebook size of the frozen VQGAN.", min=1)] = 16_384
    text_len: Annotated[int, Setting("Text tokens per sequence, [PAD] included.", min=1)] = TEXT_LEN
    image_len: Annotated[int, Setting("Codes per image: 256 for 256x256 pixels at f16.", min=1)] = (
        256
    )
    n_layer: Annotated[int, Setting("Transformer blocks.", min=1)] = 12
    n_head: Annotated[int, Setting("Attention heads.", min=1)] = 12
    n_embd: Annotated[int, Setting("Width.", min=1)] = 768
    embd_pdrop: Annotated[float, Setting("Dropout of embeddings.", min=0, below=1)] = 0.0
    resid_pdrop: Annotated[float, Setting("Dropout of residual branches.", min=0, below=1)] = 0.0
    attn_pdrop: Annotated[float, Setting("Dropout of attention weights.", min=0, below=1)] = 0.0
    fusion: Annotated[
        str,
        Setting(
            "lattice (the paper's idea, at the input), easynlp (the released code, exactly) or "
            "none.",
            choices=FUSIONS,
        ),
    ] = "lattice"
    entity_dim: Annotated[int, Setting("Dimension of the KG's entity vectors.", min=1)] = 100
    # Training chooses the scale that gives the vectors a mean square of 1, as layers expect:
    # unit-length vectors would have a tenth of the magnitude.
    entity_scale: Annotated[float, Setting("Factor on entity vectors, fusion lattice.")] = 1.0
    # At 1, as in EasyNLP, text embeddings begin at a tenth of the magnitude of projected vectors.
    text_scale: Annotated[float, Setting("Factor on text embeddings.", above=0)] = 1.0
    # Set by a training with name dropout, which teaches a model to draw names by the graph alone.
    unknown_id: Annotated[
        int | None,
        Setting("BERT id read in place of names never seen in training; None: names stay.", min=0),
    ] = None
    max_entities: Annotated[
        int, Setting("Entities per caption; easynlp always has this many slots.", min=1)
    ] = 32
    entity_policy: Annotated[
        str, Setting("Entities to keep where a caption has more.", choices=POLICIES)
    ] = "first"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n_embd % self.n_head:
            near = self.n_embd // self.n_head * self.n_head
            raise ConfigError(
                f"n_embd={self.n_embd} cannot be split over n_head={self.n_head} heads; "
                f"the nearest width below is {near}."
            )

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table: image codes first, then text tokens."""
        return self.image_vocab_size + self.text_vocab_size

    @property
    def block_size(self) -> int:
        """Positions of a whole sequence."""
        return self.text_len + self.image_len


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Sizes of a VQGAN. The defaults are taming-transformers' ImageNet f16 model, 16,384 codes."""

    resolution: Annotated[int, Setting("Side of the (square) images in pixels.", min=1)] = 256
    in_channels: Annotated[int, Setting("Channels of input images.", min=1)] = 3
    out_channels: Annotated[int, Setting("Channels of output images.", min=1)] = 3
    ch: Annotated[int, Setting("Channels of the first level.", min=1)] = 128
    # Each level except the last halves the grid.
    ch_mult: Annotated[
        tuple[int, ...], Setting("Channels of each level as multiples of `ch`.", min=1)
    ] = (1, 1, 2, 2, 4)
    num_res_blocks: Annotated[
        int, Setting("Residual blocks per level (one more in the decoder).", min=1)
    ] = 2
    attn_resolutions: Annotated[
        tuple[int, ...], Setting("Grid sizes at which attention follows each block.", min=1)
    ] = (16,)
    z_channels: Annotated[int, Setting("Channels of the encoder's output.", min=1)] = 256
    # Codes are stored in 16 bits.
    codebook_size: Annotated[int, Setting("Number of codes N.", min=1, max=65_536)] = 16_384
    codebook_embed_dim: Annotated[int, Setting("Dimension of a code D.", min=1)] = 256
    norm_groups: Annotated[
        int, Setting("Groups per group normalization; taming-transformers: 32.", min=1)
    ] = 32
    patch_size: Annotated[
        int, Setting("Side of pixel patches folded into channels; taming-transformers: 1.", min=1)
    ] = 1
    quantizer: Annotated[
        str, Setting("nearest code, or gumbel: taming-transformers' GumbelVQ.", choices=QUANTIZERS)
    ] = "nearest"

    def __post_init__(self) -> None:
        for name in ("ch_mult", "attn_resolutions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has only lists
        check_fields(self)
        if not self.ch_mult:
            raise ConfigError("ch_mult is empty: a VQGAN has at least one level, such as (1, 2).")
        if self.resolution % self.downsampling:
            lower = self.resolution // self.downsampling * self.downsampling
            raise ConfigError(
                f"resolution={self.resolution} cannot be divided by the downsampling factor "
                f"{self.downsampling} (patch_size {self.patch_size}, {len(self.ch_mult)} levels); "
                f"the nearest are {lower} and {lower + self.downsampling}."
            )
        for multiple in sorted({1, *self.ch_mult}):
            if self.ch * multiple % self.norm_groups:
                raise ConfigError(
                    f"a level of {self.ch * multiple} channels (ch={self.ch} x {multiple}) cannot "
                    f"be split into norm_groups={self.norm_groups}; try "
                    f"norm_groups={math.gcd(self.ch, self.norm_groups)}."
                )

    @property
    def downsampling(self) -> int:
        """The factor f between pixels and codes, per side."""
        return int(self.patch_size * 2 ** (len(self.ch_mult) - 1))

    @property
    def grid_size(self) -> int:
        """Codes per side of an image."""
        return self.resolution // self.downsampling

    @property
    def image_len(self) -> int:
        """Codes per image."""
        return self.grid_size**2

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the config with these values; what is left out has its default.

        Raises:
            ConfigError: A key is unknown, or a value cannot be used.
        """
        return from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Return all values in JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
