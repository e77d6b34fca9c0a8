"""The sizes of the models. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from data.errors import ConfigError, did_you_mean

FUSIONS = ("lattice", "easynlp", "none")
EASYNLP_ENTITIES = 10  # entity slots of the released fusion
QUANTIZERS = ("nearest", "gumbel")


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes of the model. Everything else follows from them.

    Attributes:
        text_vocab_size: Size of the BERT vocabulary (21,128 for BERT-Chinese).
        image_vocab_size: The frozen VQGAN's codebook_size.
        text_len: Text tokens per sequence, [PAD] included.
        image_len: Codes per image, 256 for 256x256 pictures at f16.
        fusion: `lattice` (the paper's idea, at the input), `easynlp` (the released code, to the
            letter) or `none`.
        entity_dim: Width of the KG's entity vectors.
        entity_scale: Of `lattice`: what vectors are multiplied by. A training takes what gives
            their numbers a mean square of 1, as layers expect: unit vectors would speak ten times
            more softly than that.
        max_entities: Entities a caption may bring; `easynlp` always has exactly this many slots.
        entity_policy: Which ones, where a caption has more; see `data.select`.
    """

    text_vocab_size: int = 21_128
    image_vocab_size: int = 16_384
    text_len: int = 32
    image_len: int = 256
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    embd_pdrop: float = 0.0
    resid_pdrop: float = 0.0
    attn_pdrop: float = 0.0
    fusion: str = "lattice"
    entity_dim: int = 100
    entity_scale: float = 1.0
    max_entities: int = 32
    entity_policy: str = "first"

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            near = self.n_embd // self.n_head * self.n_head
            raise ConfigError(
                f"n_embd={self.n_embd} cannot be split over n_head={self.n_head} heads; "
                f"the nearest width below is {near}."
            )
        if self.fusion not in FUSIONS:
            raise ConfigError(
                f"fusion={self.fusion!r} is unknown; use one of {', '.join(FUSIONS)}."
            )
        for name in ("text_vocab_size", "image_vocab_size", "text_len", "image_len", "n_layer"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("embd_pdrop", "resid_pdrop", "attn_pdrop"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must lie in [0, 1).")

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
    """Sizes of a VQGAN. The defaults are taming-transformers' ImageNet f16 model with 16,384 codes.

    Attributes:
        resolution: Side of the (square) images, in pixels.
        in_channels: Channels of the images that go in.
        out_channels: Channels of those that come out.
        ch: Width of the first level.
        ch_mult: Width of each level as a multiple of `ch`; each level but the last halves the grid.
        num_res_blocks: Residual blocks a level (one more in the decoder).
        attn_resolutions: Grid sizes at which attention follows each block.
        z_channels: Width of the encoder's output.
        codebook_size: Number of codes N.
        codebook_embed_dim: Width of a code D.
        norm_groups: Groups of each group normalisation; taming-transformers has 32.
        patch_size: Side of the pixel patches folded into channels; taming-transformers has 1.
        quantizer: `nearest` code, or `gumbel`: taming-transformers' GumbelVQ.
    """

    resolution: int = 256
    in_channels: int = 3
    out_channels: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    z_channels: int = 256
    codebook_size: int = 16_384
    codebook_embed_dim: int = 256
    norm_groups: int = 32
    patch_size: int = 1
    quantizer: str = "nearest"

    def __post_init__(self) -> None:
        for name in ("ch_mult", "attn_resolutions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has only lists
        if self.quantizer not in QUANTIZERS:
            raise ConfigError(
                f"quantizer={self.quantizer!r} is unknown; use one of {', '.join(QUANTIZERS)}."
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "quantizer":
                continue
            if any(v < 1 for v in (value if isinstance(value, tuple) else (value,))):
                raise ConfigError(f"{field.name}={value}: must be at least 1.")
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
        if self.codebook_size > 65_536:
            raise ConfigError(
                f"codebook_size={self.codebook_size}: codes are stored in 16 bits, so there can be "
                "at most 65536."
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
        """The config with these values; what is left out has its default.

        Raises:
            ConfigError: A key is unknown, or a value cannot be used.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown VQGAN setting {key!r}{did_you_mean(key, known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All values, as JSON knows them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
