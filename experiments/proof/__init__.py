"""The controlled proof: a generated world in which only the graph determines an entity's image."""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from experiments.proof.run import ProofConfig, ProofReport, run_proof
    from experiments.proof.world import World, classify_image, read_world, write_world

__all__ = [
    "ProofConfig",
    "ProofReport",
    "World",
    "classify_image",
    "read_world",
    "run_proof",
    "write_world",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ProofConfig": "experiments.proof.run",
        "ProofReport": "experiments.proof.run",
        "World": "experiments.proof.world",
        "classify_image": "experiments.proof.world",
        "read_world": "experiments.proof.world",
        "run_proof": "experiments.proof.run",
        "write_world": "experiments.proof.world",
    },
)
