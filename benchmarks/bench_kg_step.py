"""How much cheaper is our TransE step than stock pykeen's?

Both train inside pykeen's loop on the same random triples, one thread, alternating in one process:
stock `TransE` with Adam and dense tables, and ours (row-sparse, shared negatives). CPU seconds.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSTOW_HOME", tempfile.mkdtemp(prefix="pystow-"))

import numpy as np
import torch

from kg.config import KGConfig
from kg.training.batches import Batches
from kg.training.row_adagrad import RowAdagrad
from kg.training.transe import make_loop, make_model, tables


def stock_step(
    triples: torch.Tensor, entities: int, relations: int, args: argparse.Namespace
) -> Callable[[int], None]:
    """Return a function that makes steps of stock pykeen."""
    from pykeen.losses import NSSALoss
    from pykeen.models import TransE
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory

    factory = CoreTriplesFactory(triples, num_entities=entities, num_relations=relations)
    model = TransE(
        triples_factory=factory,
        embedding_dim=args.dim,
        scoring_fct_norm=args.p_norm,
        loss=NSSALoss(),
        random_seed=0,
    )
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=torch.optim.Adam(model.get_grad_params()),
        negative_sampler_kwargs={"num_negs_per_pos": args.negatives},
        automatic_memory_optimization=False,
    )

    def run(epochs: int) -> None:
        loop.train(
            triples_factory=factory,
            num_epochs=loop._epoch + epochs,
            batch_size=args.batch_size,
            use_tqdm=False,
            continue_training=loop._epoch > 0,
            pin_memory=False,
            checkpoint_directory=tempfile.gettempdir(),
        )

    return run


def our_step(
    triples: torch.Tensor, entities: int, relations: int, args: argparse.Namespace
) -> Callable[[int], None]:
    """Return a function that makes steps of ours."""
    config = KGConfig(dim=args.dim, p_norm=args.p_norm, num_negatives=args.negatives)
    model = make_model(entities, relations, config)
    batches = Batches(triples.int(), entities, config, args.batch_size)
    loop = make_loop(model, RowAdagrad(tables(model), lr=1.0), batches, torch.device("cpu"))

    def run(epochs: int) -> None:
        loop.train(
            triples_factory=None,
            num_epochs=loop._epoch + epochs,
            batch_size=loop.batches.batch_size,
            use_tqdm=False,
            continue_training=True,
            checkpoint_directory=tempfile.gettempdir(),
        )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--relations", type=int, default=1000)
    parser.add_argument("--negatives", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--p-norm", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    # Heads and tails as in real graphs: few very frequent, most rare.
    zipf = 1 / np.arange(1, args.entities + 1) ** 0.8
    size = args.steps * args.batch_size
    column = [
        generator.choice(args.entities, size, p=zipf / zipf.sum()),
        generator.integers(0, args.relations, size),
        generator.choice(args.entities, size, p=zipf / zipf.sum()),
    ]
    triples = torch.from_numpy(np.stack(column, axis=1))
    runs = {
        "stock": stock_step(triples, args.entities, args.relations, args),
        "ours": our_step(triples, args.entities, args.relations, args),
    }
    for run in runs.values():
        run(1)  # warm up
    gc.freeze()
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.turns):
        for name, run in runs.items():
            begun = time.process_time()
            run(1)  # an epoch of `steps` steps
            spent[name].append((time.process_time() - begun) / args.steps * 1000)
    stock, ours = (statistics.median(spent[name]) for name in ("stock", "ours"))
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    print(f"{cpu}, torch {torch.__version__}, one thread")
    print(f"stock pykeen, Adam: {stock:8.1f} CPU ms per step of {args.batch_size}")
    print(f"ours, row-sparse:   {ours:8.1f} CPU ms per step of {args.batch_size}")
    print(
        json.dumps(
            {**vars(args), "stock_ms": stock, "ours_ms": ours, "ratio": stock / ours, "cpu": cpu}
        )
    )


if __name__ == "__main__":
    main()
