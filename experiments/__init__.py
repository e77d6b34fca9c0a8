"""Experiments on generated data whose truth is known.

`emoji` is the embedded demo, `proof` the controlled proof. `run_demo` and `run_proof` run every
stage of the toolkit; each experiment can be configured and continues a run that was stopped.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from experiments.emoji.run import DemoConfig, DemoReport, run_demo
    from experiments.proof.run import ProofConfig, ProofReport, run_proof

__all__ = ["DemoConfig", "DemoReport", "ProofConfig", "ProofReport", "run_demo", "run_proof"]

__getattr__ = lazy_exports(
    __name__,
    {
        "DemoConfig": "experiments.emoji.run",
        "DemoReport": "experiments.emoji.run",
        "ProofConfig": "experiments.proof.run",
        "ProofReport": "experiments.proof.run",
        "run_demo": "experiments.emoji.run",
        "run_proof": "experiments.proof.run",
    },
)
