"""How a model and its images are measured: settings, defaults and limits. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from data.errors import ConfigError
from data.options import Option, Precision, Seed, Setting, check_fields

ClusterBy = Annotated[
    str,
    Option(
        "Captions that count as dependent in all intervals, in addition to those of one image: "
        "entity (the same longest entity), image (no others), a column of the table such as text, "
        "or a TSV of `idx<TAB>class`."
    ),
]
FID_LIKE = ("pytorch-fid", "clean-fid", "torch-fidelity")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a model and its images are measured; each metric depends on some of this."""

    shuffles: Annotated[
        int, Option("Random assignments of vectors to wrong entities, for comparison.", min=0)
    ] = 5
    draw: Annotated[
        int | None,
        Option(
            "Captions to generate images for, with --inception or --clip; by default all.", min=2
        ),
    ] = None
    # See `artist.evaluation.fid_kid_is.prepare`.
    fid_like: Annotated[
        str, Option("Library whose resizing FID, KID and IS follow.", choices=FID_LIKE)
    ] = "pytorch-fid"
    kid_subsets: Annotated[int, Setting("Random subsets that KID is the mean over.", min=1)] = 100
    kid_subset_size: Annotated[int, Option("Images per KID subset.", min=2)] = 1000
    is_splits: Annotated[
        int, Option("Splits that the Inception score is the mean over.", min=1)
    ] = 10
    candidates: Annotated[
        int, Setting("Captions per image in R-precision, its own included.", min=2)
    ] = 100
    examples: Annotated[int, Option("Captions with images in each part of the report.", min=0)] = 6
    batch_size: Annotated[int, Option("Captions or images per forward pass.", min=1)] = 32
    cluster_by: ClusterBy = "entity"
    precision: Precision = "fp32"
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Paths of what is measured. Each is optional; field names are JSON keys and options.

    `table` is a lattice table with images, or with the codes of the model's image tokenizer.
    """

    table: Path | None = None
    model: Annotated[Path | None, Option("Model folder.")] = None
    kg: Annotated[Path | None, Option("KG folder that the model was trained with.")] = None
    train_table: Annotated[
        Path | None,
        Option("Training table, if the model folder does not list the entities it was trained on."),
    ] = None
    other_kg: Annotated[
        Path | None, Option("Also evaluate with the vectors of another KG, matched by name.")
    ] = None
    # See `artist.evaluation.image_sets.ImageSet`.
    pictures: Annotated[
        Path | None,
        Option(
            "Measure these images instead of generating some: a folder, a TSV of base64, or the "
            "output of `artist predict`."
        ),
    ] = None
    reference: Annotated[
        Path | None,
        Option("Compare with these images (folder, TSV, table) or statistics (.npz), not TABLE's."),
    ] = None
    inception: Annotated[
        Path | None,
        Option("Adds FID, KID and IS: pt_inception-2015-12-05-6726825d.pth of pytorch-fid."),
    ] = None
    clip: Annotated[
        Path | None,
        Option("Adds text-image match: folder of a Chinese CLIP in transformers format."),
    ] = None

    def __post_init__(self) -> None:
        if self.model is not None and self.table is None:
            raise ConfigError("a model is measured on captions: give a lattice table as TABLE.")
        if self.model is None and self.pictures is None:
            raise ConfigError(
                "there is nothing to measure: give --model and a TABLE, or `--pictures`."
            )
        if self.model is None and self.inception is None and self.clip is None:
            raise ConfigError("`--pictures` needs --inception FILE or --clip FOLDER.")
        for name in ("kg", "train_table", "other_kg"):
            if self.model is None and getattr(self, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} has no effect without a --model.")
