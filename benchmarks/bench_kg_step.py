"""How much cheaper is our TransE step than stock pykeen's?

Both train inside pykeen's loop on the same random triples, one thread, alternating in one process:
stock `TransE` with Adam and dense tables, and ours (row-sparse, shared negatives). CPU seconds.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSTOW_HOME", tempfile.mkdtemp(prefix="pystow-"))

import numpy as np
import torch
from measuring import add_options, in_turn, processor

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
    add_options(parser, entities=100_000, relations=1000, negatives=32, batch_size=8192, dim=100)
    add_options(parser, p_norm=2, turns=3)
    parser.add_argument("--steps", type=int, default=4, help="steps per turn")
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
    seconds = in_turn({name: partial(run, 1) for name, run in runs.items()}, args.turns)  # epochs
    stock, ours = (seconds[name] / args.steps * 1000 for name in ("stock", "ours"))
    cpu = processor() or platform.processor()
    print(f"{cpu}, torch {torch.__version__}, one thread")
    print(f"stock pykeen, Adam: {stock:8.1f} CPU ms per step of {args.batch_size}")
    print(f"ours, row-sparse:   {ours:8.1f} CPU ms per step of {args.batch_size}")
    found = {"stock_ms": stock, "ours_ms": ours, "ratio": stock / ours, "cpu": cpu}
    print(json.dumps({**vars(args), **found}))


if __name__ == "__main__":
    main()
