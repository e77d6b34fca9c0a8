"""Experiments on generated data whose truth is known.

`emoji` is the embedded demo, `proof` the controlled proof. `emoji.run.run_demo` and
`proof.run.run_proof` run every stage of the toolkit; each experiment can be configured and
continues a run that was stopped.
"""

__all__ = ["emoji", "proof"]
