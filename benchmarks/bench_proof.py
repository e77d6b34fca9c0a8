"""Does knowledge give the right images for unseen names? The controlled proof, seed by seed.

The baseline is the same training without knowledge. A seed takes about five minutes of CPU time.

    python benchmarks/bench_proof.py [--seeds 3] [--out FOLDER]
"""

import argparse
import json
import logging
import resource
import tempfile
from dataclasses import asdict
from pathlib import Path

from experiments.proof.run import LATTICE_ARM, NONE_ARM, run_proof


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="Keep all outputs here; else deleted.")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as temporary:
        report = run_proof(options.out or Path(temporary), seeds=range(options.seeds))
        print(report.markdown())
    used = resource.getrusage(resource.RUSAGE_SELF)
    lattice, none = report.mean(LATTICE_ARM, "both"), report.mean(NONE_ARM, "both")
    print(
        json.dumps(
            {
                "benchmark": "proof",
                "baseline": "the same training with --fusion none",
                "both_right": lattice,
                "both_right_baseline": none,
                "ratio": round(lattice / none, 1) if none else None,
                "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
                "seeds": [asdict(result) for result in report.results],
            }
        )
    )


if __name__ == "__main__":
    main()
