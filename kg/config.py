"""Settings of `kg train`. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Annotated

from data.options import Option, Seed, Setting, check_fields

LOSSES = ("nssa", "margin")
MAP_METHODS = ("tsne", "pca")
CHECKPOINTS = ("checkpoint.safetensors", "best.safetensors")  # in the folder of an unfinished run


@dataclass(frozen=True, kw_only=True)
class KGConfig:
    """How entity vectors are trained. None in `epochs`, `batch_size`, `margin`: see their help."""

    dim: Annotated[int, Option("Dimension of the entity vectors.", min=1)] = 100
    epochs: Annotated[
        int | None,
        Option("Passes over the triples; by default, chosen by the size of the graph.", min=1),
    ] = None
    batch_size: Annotated[
        int | None, Option("Triples per step; by default, chosen by the size of the graph.", min=1)
    ] = None
    learning_rate: Annotated[
        float,
        Option("Peak learning rate of row-wise AdaGrad; decays linearly to 0.", above=0),
    ] = 1.0
    num_negatives: Annotated[int, Option("Negative triples per positive triple.", min=1)] = 64
    # Self-adversarial negative sampling: Sun et al. 2019. Margin ranking: Bordes et al. 2013.
    loss: Annotated[
        str, Option("nssa: self-adversarial negative sampling; margin: ranking.", choices=LOSSES)
    ] = "nssa"
    # In units of the vectors in training, see `scale`.
    margin: Annotated[
        float | None, Option("Margin of the loss; by default 9 (nssa) or 1 (margin).")
    ] = None
    p_norm: Annotated[int, Option("Order p of the norm ||h + r - t||.", choices=(1, 2))] = 2
    # Vectors are saved with length 1 and the relations divided likewise, which changes no ranking.
    # The loss needs the length: on the unit sphere all distances are too similar for its sigmoid.
    scale: Annotated[
        float,
        Option("Length of entity vectors in training (saved with 1); 0: unconstrained.", min=0),
    ] = 10.0
    chunk_size: Annotated[int, Setting("Triples that share their negatives.", min=1)] = 256
    # See `kg.reading.triples.read_triples`.
    min_tail_count: Annotated[
        int,
        Option(
            "A tail that is never a head and occurs in fewer triples is a literal, and is dropped.",
            min=1,
        ),
    ] = 2
    valid_fraction: Annotated[
        float,
        Option(
            "Share of the triples held out for validation, at most 2000 triples.", min=0, below=1
        ),
    ] = 0.05
    max_valid: Annotated[int, Setting("Most triples held out for validation.", min=0)] = 2000
    # With as many epochs as were best. The only informative triple of an entity may be held out.
    # Triples that an OpenKE folder assigns to valid and test are never learned.
    learn_held_out: Annotated[
        bool,
        Option(
            "After validation, train again on all triples (graphs of up to a million).",
            flag="--learn-held-out/--keep-held-out",
        ),
    ] = True
    # Freezing them keeps models valid that were trained on the older vectors.
    freeze_known: Annotated[
        bool,
        Option(
            "With --from: keep the known vectors fixed, or train them further.",
            flag="--freeze-known/--refine-known",
        ),
    ] = True
    patience: Annotated[
        int, Option("Stop after N validations without improvement; 0: never.", min=0)
    ] = 5
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
