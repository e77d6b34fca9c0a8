"""How images are generated: settings, defaults and limits. Imports no torch."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from data.errors import ConfigError
from data.options import Option, Precision, Seed, check_fields

CFG_SCHEDULES = ("constant", "linear", "cosine")
IMAGE_FORMATS = ("png", "webp")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a code is sampled from its distribution. None means off."""

    # Divides the logits.
    temperature: Annotated[
        float,
        Option(
            "Sampling temperature; lower is less random.",
            above=0,
            advice="for the most likely code at each step use top_k=1",
        ),
    ] = 1.0
    # Codes that tie with the k-th are kept.
    top_k: Annotated[int | None, Option("Sample from the k most likely codes.", min=1, off=0)] = 100
    top_p: Annotated[
        float | None,
        Option(
            "Sample from the most likely codes of this total probability.", above=0, max=1, off=1.0
        ),
    ] = None
    # logits = unconditional + scale * (conditional - unconditional), where the unconditional ones
    # are those of an empty caption (Ho and Salimans 2022). Needs training with caption dropout.
    cfg_scale: Annotated[
        float, Option("Classifier-free guidance; above 1 follows the prompt more closely.")
    ] = 1.0
    # `linear` and `cosine` raise the scale from 1 at the first code to `cfg_scale` at the last. The
    # first codes determine the layout, and strong guidance there makes images alike (Chang et al.
    # 2023, Muse).
    cfg_schedule: Annotated[
        str,
        Option(
            "Guidance over an image: constant, or rising (linear, cosine).", choices=CFG_SCHEDULES
        ),
    ] = "constant"
    # The same distribution, from other random numbers; see `artist.generation.jacobi`.
    jacobi_window: Annotated[
        int | None,
        Option(
            "Compute N codes of an image per pass, with the distribution of one per pass; faster "
            "on a CPU with --batch-size 1. 6 to 8 are good values.",
            min=2,
            off=0,
        ),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)

    def as_dict(self) -> dict[str, Any]:
        """Return all settings, as manifests contain them: `jacobi_window` only if it is on."""
        return {k: v for k, v in asdict(self).items() if (k, v) != ("jacobi_window", None)}

    def __str__(self) -> str:
        """Return the settings that are on, as text for a page's footer."""
        on = {k: v for k, v in asdict(self).items() if v is not None}
        if self.cfg_scale == 1.0:
            del on["cfg_schedule"]
        return ", ".join(f"{k} {v if isinstance(v, str) else f'{v:g}'}" for k, v in on.items())


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How images are generated for a table of prompts."""

    num_images: Annotated[int, Option("Images per prompt.", min=1)] = 1
    candidates: Annotated[
        int | None,
        Option("Generate N images per prompt and keep those that --clip scores best.", min=1),
    ] = None
    keep_top: Annotated[
        float,
        Option(
            "Keep this upper share of each given image and generate the rest; 0: off.", min=0, max=1
        ),
    ] = 0.0
    batch_size: Annotated[int, Option("Images generated at once.", min=1)] = 32
    image_format: Annotated[
        str, Option("Format of the image files and of the TSV's images.", choices=IMAGE_FORMATS)
    ] = "png"
    precision: Precision = "auto"
    compile: Annotated[
        bool, Option("Compile the model: takes a minute, then steps are faster.")
    ] = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.candidates is not None and self.candidates < self.num_images:
            raise ConfigError(
                f"candidates={self.candidates} are fewer than num_images={self.num_images}."
            )
