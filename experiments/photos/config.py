"""How the experiment on photographs is run: settings, defaults and limits. Imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Any

from artist.training.config import SIZES, TrainConfig, VQGANTrainConfig
from data.errors import ConfigError, did_you_mean
from data.options import Option, Setting, check_fields, from_dict
from kg.config import KGConfig

NAMES = ("opaque", "natural")
# Amounts of work; what they leave out keeps its default.
SCALES: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {
        "photographs": 12,
        "test_photographs": 6,
        "steps": 20,
        "size": "nano",
        "batch_size": 8,
        "vqgan_steps": 20,
        "vqgan_ch": 16,
        "codebook_size": 64,
        "resolution": 32,
        "kg_dim": 16,
        "kg_epochs": 5,
        "judge_steps": 20,
        "judge_width": 8,
        "num_images": 2,
        "resamples": 50,
    },
}


@dataclass(frozen=True, kw_only=True)
class PhotosConfig:
    """How much is trained and drawn; by default less than an hour of CPU time per fold and seed.

    All arms have the same settings, and none of them is chosen on the unseen classes.
    """

    names: Annotated[
        str,
        Option(
            "opaque: two meaningless characters per class, so only the graph describes a class; "
            "natural: the class's own name.",
            choices=NAMES,
        ),
    ] = "opaque"
    photographs: Annotated[int, Option("Training photographs per class.", min=1)] = 100
    test_photographs: Annotated[
        int, Option("Test photographs per class, for nats per code and ceilings.", min=1)
    ] = 20
    size: Annotated[str, Option("Model size.", choices=tuple(SIZES))] = "tiny"
    steps: Annotated[int, Option("Training steps of each arm.", min=1)] = 550
    batch_size: Annotated[int, Option("Captions per step.", min=1)] = 32
    learning_rate: Annotated[float, Option("Peak learning rate of the arms.", above=0)] = 1e-3
    vqgan_steps: Annotated[int, Option("Training steps of the VQGAN.", min=1)] = 600
    vqgan_ch: Annotated[int, Setting("Channels of the VQGAN.", min=1)] = 128
    codebook_size: Annotated[int, Setting("Codes of the VQGAN.", min=2)] = 1024
    resolution: Annotated[int, Setting("Side of the images in pixels.", min=16)] = 64
    kg_dim: Annotated[int, Option("Dimension of the entity vectors.", min=1)] = 100
    kg_epochs: Annotated[
        int | None, Option("Passes over the graph; by default, chosen by its size.", min=1)
    ] = None
    judge_steps: Annotated[int, Setting("Training steps of the CNN that judges.", min=1)] = 4000
    judge_width: Annotated[int, Setting("Channels of its first layer.", min=1)] = 32
    num_images: Annotated[int, Option("Images per unseen class and arm.", min=1)] = 16
    cfg_scale: Annotated[float, Option("Classifier-free guidance of these images.")] = 2.0
    resamples: Annotated[int, Setting("Resamples of the bootstrap.", min=1)] = 2000

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resolution % 16:
            raise ConfigError(f"resolution={self.resolution} must be a multiple of 16.")

    @classmethod
    def at_scale(cls, scale: str, **changes: Any) -> "PhotosConfig":
        """Return the settings of a scale with some of its values changed.

        Raises:
            ConfigError: The scale or a setting is unknown, or a value cannot be used.
        """
        if scale not in SCALES:
            near = did_you_mean(scale, SCALES) or "."
            raise ConfigError(f"scale={scale!r} is unknown; use {' or '.join(SCALES)}{near}")
        return from_dict(cls, {**SCALES[scale], **changes})

    def vqgan(self) -> VQGANTrainConfig:
        """Return how the image tokenizer is trained."""
        return VQGANTrainConfig(
            resolution=self.resolution,
            steps=self.vqgan_steps,
            ch=self.vqgan_ch,
            codebook_size=self.codebook_size,
        )

    def kg(self) -> KGConfig:
        """Return how the entity vectors are trained.

        No triples are held out: early stopping on them could not see the classes' own facts.
        """
        return KGConfig(dim=self.kg_dim, epochs=self.kg_epochs, valid_fraction=0.0)

    def train(self, text_len: int) -> TrainConfig:
        """Return how each arm is trained; weights of the last step are kept."""
        return TrainConfig(
            size=self.size,
            text_len=text_len,
            max_steps=self.steps,
            epochs=self.steps,  # never fewer steps than `max_steps`
            batch_size=self.batch_size,
            optimizer="muon",
            learning_rate=self.learning_rate,
            dropout=0.0,
            text_scale=30.0,
            name_dropout=0.2,
            keep="last",
            ema_decay=0.99,
            validations=1,
        )
