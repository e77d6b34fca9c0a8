"""Does a step cost more with 9.4 million entities than with a million, and do they fit in memory?

Two parts, one thread:
- the step at both sizes, alternating in one process (CPU seconds);
- a whole run at the large size in a process of its own: tables, steps, sampled ranking after
  each epoch, checkpoints, the best vectors saved as in a KG folder. It reports the
  memory above the imports (anonymous pages, sampled; the kernel's file cache is not the run's)
  against the entity and relation tables themselves.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from measuring import PeakMemory, add_options, in_child, in_turn
from numpy.typing import NDArray

from kg.config import KGConfig
from kg.kg_store import save_vectors
from kg.training.batches import Batches
from kg.training.ranking import evaluate, make_queries
from kg.training.row_adagrad import RowAdagrad
from kg.training.trainer import train_transe
from kg.training.transe import make_loop, make_model, tables


def graph(size: int, entities: int, relations: int) -> NDArray[np.int32]:
    """Return random triples; frequencies fall as 1 / rank^0.8."""
    generator = np.random.default_rng(0)

    def column(count: int) -> NDArray[np.int32]:
        return (count * generator.random(size) ** 5).astype(np.int32)

    return np.stack([column(entities), column(relations), column(entities)], axis=1)


def stepper(entities: int, relations: int, args: argparse.Namespace):
    """Return a function that makes `args.steps` steps."""
    config = KGConfig(num_negatives=args.negatives, p_norm=args.p_norm)
    model = make_model(entities, relations, config)
    optimizer = RowAdagrad(tables(model), lr=1.0)
    rows = torch.from_numpy(graph(args.steps * args.batch_size, entities, relations))
    batches = Batches(rows, entities, config, args.batch_size)
    loop = make_loop(model, optimizer, batches, torch.device("cpu"))

    def run() -> None:
        batches.epoch += 1
        for batch in batches:
            loop._process_batch(batch, 0, len(batch.source)).backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def compare(args: argparse.Namespace) -> dict[str, float]:
    sizes = {"1M": (1_000_000, 1000), "large": (args.entities, args.relations)}
    runs = {name: stepper(*size, args) for name, size in sizes.items()}
    in_turn(runs, 1)  # warm up
    seconds = in_turn(runs, args.turns)
    return {name: value / args.steps * 1000 for name, value in seconds.items()}


def whole_run(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Train and save; return the peak bytes above the imports and the CPU seconds of each part."""
    torch.set_num_threads(1)
    triples = graph(args.triples, args.entities, args.relations)
    small = KGConfig(dim=4, epochs=1, batch_size=256)
    train_transe(triples[:1000] % 100, 100, 100, small, device="cpu")  # imports and compiled loops
    gc.collect()
    with PeakMemory() as peak:
        queries = make_queries(triples[:500], [triples])
        config = KGConfig(num_negatives=args.negatives, p_norm=args.p_norm, epochs=args.epochs)
        begun = time.process_time()
        trained = train_transe(
            triples,
            args.entities,
            args.relations,
            config,
            device="cpu",
            work=folder,
            measure=lambda e, r: evaluate(queries, e, r, 2, num_candidates=5000)["both"]["mrr"],
            checkpoint_seconds=1,
        )
        seconds = {"train": time.process_time() - begun}
        for path in folder.iterdir():
            path.unlink()
        begun = time.process_time()
        save_vectors(folder, trained.entity, trained.relation)
        seconds["save"] = time.process_time() - begun
    table = 4 * config.dim * (args.entities + args.relations)
    return {"above_imports": peak.growth, "table": table, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, entities=9_412_272, relations=377_910, negatives=32, p_norm=2)
    add_options(parser, batch_size=8192, turns=5)
    parser.add_argument("--steps", type=int, default=20, help="per turn")
    parser.add_argument("--triples", type=int, default=1_000_000, help="of the whole run")
    parser.add_argument("--epochs", type=int, default=3, help="of the whole run")
    parser.add_argument("--folder", type=Path, help="where the whole run writes (20 GB)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    times = compare(args)
    ratio = times["large"] / times["1M"]
    print(f"CPU ms per step: 1 M entities {times['1M']:.1f}, {args.entities} {times['large']:.1f}")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = in_child(whole_run, args, Path(folder))
    print(
        f"whole run: {run['above_imports'] / 1e9:.2f} GB above the imports, the tables "
        f"{run['table'] / 1e9:.2f} GB; CPU s: training {run['train']:.0f}, saving {run['save']:.0f}"
    )
    print(
        json.dumps(
            {
                **{k: str(v) for k, v in vars(args).items()},
                "ms": times,
                "step_ratio": ratio,
                "memory_ratio": run["above_imports"] / run["table"],
                **run,
            }
        )
    )


if __name__ == "__main__":
    main()
