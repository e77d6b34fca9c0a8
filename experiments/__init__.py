"""Experiments that test whether knowledge helps.

`emoji` is the embedded demo, `proof` the controlled proof, both on generated data whose truth is
known; `photos` does the same with real photographs. `emoji.run.run_demo`, `proof.run.run_proof` and
`photos.run.run_photos` run every stage of the toolkit; each experiment can be configured and
continues a run that was stopped.
"""

__all__ = ["emoji", "photos", "proof"]
