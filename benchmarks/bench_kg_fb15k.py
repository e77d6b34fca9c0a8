"""FB15k-237: the test MRR of a recipe, chosen on the validation triples alone, and its spread.

First each of --grid (margin:learning rate:epochs) is trained with seed 0 and ranked on the
validation triples; the best one is trained with --seeds seeds, and ranked on the test triples once.
All triples of a split, all entities, filtered. No early stopping.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from measuring import add_options

from kg.config import KGConfig
from kg.reading.triples import read_triples
from kg.training.ranking import evaluate, make_queries
from kg.training.trainer import train_transe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="FB15k-237 in OpenKE's layout")
    parser.add_argument("--grid", nargs="+", default=["5:1:40", "6:1:40", "5:0.5:40", "5:1:60"])
    add_options(parser, negatives=256, dim=100, seeds=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    graph = read_triples([args.folder])
    sizes = len(graph.entities), len(graph.relations)
    known = [graph.train, graph.valid, graph.test]

    def run(config: KGConfig, split: np.ndarray) -> dict[str, Any]:
        begun = time.process_time()
        trained = train_transe(graph.train, *sizes, config, device="cpu")
        seconds = time.process_time() - begun
        found = evaluate(
            make_queries(split, known), trained.entity, trained.relation, config.p_norm
        )
        return {**found["both"], "train_cpu_seconds": seconds}

    tried: dict[str, float] = {}
    configs = {}
    for recipe in args.grid:
        margin, rate, epochs = (float(part) for part in recipe.split(":"))
        configs[recipe] = KGConfig(
            dim=args.dim,
            num_negatives=args.negatives,
            margin=margin,
            learning_rate=rate,
            epochs=int(epochs),
        )
        if len(args.grid) > 1:
            found = run(configs[recipe], graph.valid)
            tried[recipe] = found["mrr"]
            print(
                f"validation MRR {found['mrr']:.4f}  margin:rate:epochs {recipe}  "
                f"({found['train_cpu_seconds']:.0f} CPU s)",
                flush=True,
            )
    best = max(tried, key=lambda recipe: tried[recipe]) if tried else args.grid[0]
    runs = []
    for seed in range(args.seeds):
        runs.append(run(replace(configs[best], seed=seed), graph.test))
        print(f"seed {seed}: " + ", ".join(f"{k} {v:.4g}" for k, v in runs[-1].items()), flush=True)
    if runs:
        mrr = np.array([found["mrr"] for found in runs])
        print(f"test MRR {mrr.mean():.4f}, standard deviation {mrr.std(ddof=1):.4f}, {best}")
    print(json.dumps({"tried": tried, "chosen": best, "runs": runs, "dim": args.dim}))


if __name__ == "__main__":
    main()
