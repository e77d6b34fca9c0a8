"""Training speed at the size of CN-DBpedia on the available device, in triples per second.

Ours with --entities entities and --triples triples, placed as by `kg train`; and stock pykeen
(Adam, dense tables) on the same device at --stock-entities, where both run. Wall-clock seconds
after a synchronisation. Prints the name of the device and its peak memory. On a CPU, a small size
only checks that it runs: `--entities 100000 --triples 200000 --steps 10`.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("PYSTOW_HOME", tempfile.mkdtemp(prefix="pystow-"))

import numpy as np
import torch
from bench_kg_step import stock_step
from measuring import add_options

from data.device import choose_device
from kg.config import KGConfig
from kg.training.batches import Batches
from kg.training.resources import Placement, Requirements
from kg.training.row_adagrad import RowAdagrad
from kg.training.transe import make_loop, make_model, tables


def random_triples(size: int, entities: int, relations: int, seed: int = 0) -> torch.Tensor:
    """Return random triples; frequencies fall as 1 / rank^0.8."""
    generator = np.random.default_rng(seed)
    rows = np.empty((size, 3), np.int32)
    for column, count in enumerate((entities, relations, entities)):
        rows[:, column] = count * generator.random(size, np.float32) ** 5
    return torch.from_numpy(rows)


def timed(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def our_rate(entities: int, relations: int, size: int, args: argparse.Namespace) -> float:
    """Return triples per second, after two steps to warm up."""
    config = KGConfig(dim=args.dim, num_negatives=args.negatives, p_norm=args.p_norm)
    device = choose_device(args.device)
    place = Placement.choose(
        device, Requirements.of(size, entities, relations, config, args.batch_size)
    )
    model = make_model(entities, relations, config, place.tables)
    optimizer = RowAdagrad(tables(model), lr=1.0)
    rows = random_triples(size, entities, relations).to(place.triples)
    batches = iter(many := Batches(rows, entities, config, args.batch_size))
    loop = make_loop(model, optimizer, many, place.compute)
    print(f"tables on {place.tables}, triples on {place.triples}, computed on {place.compute}")

    def steps(count: int) -> None:
        for _ in range(count):
            batch = next(batches)
            loop._process_batch(batch, 0, len(batch.source)).backward()
            optimizer.step()
            optimizer.zero_grad()

    steps(2)
    return args.steps * args.batch_size / timed(lambda: steps(args.steps), device)


def stock_rate(args: argparse.Namespace) -> float:
    """Return the same for pykeen; an epoch has `steps` steps."""
    device = choose_device(args.device)
    size = args.steps * args.batch_size
    rows = random_triples(size, args.stock_entities, args.relations).long()
    with torch.device(device):
        run = stock_step(rows, args.stock_entities, args.relations, args)
    run(1)
    return size / timed(lambda: run(1), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, device="auto", entities=9_412_272, relations=377_910, triples=65_000_000)
    add_options(parser, stock_entities=1_000_000, negatives=256, batch_size=65_536, dim=100)
    add_options(parser, p_norm=2, steps=50)
    args = parser.parse_args()
    device = choose_device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}")
    large = our_rate(args.entities, args.relations, args.triples, args)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    print(f"ours, {args.entities} entities: {large:,.0f} triples/s, peak device memory {peak}")
    print(f"an epoch of {args.triples} triples: {args.triples / large:.1f} s")
    same = our_rate(args.stock_entities, args.relations, args.steps * args.batch_size * 2, args)
    stock = stock_rate(args)
    print(
        f"{args.stock_entities} entities: ours {same:,.0f}, stock {stock:,.0f} triples/s: "
        f"{same / stock:.1f}x"
    )
    result = {"device": name, "ours": large, "peak_bytes": peak, "ours_same": same, "stock": stock}
    print(json.dumps({**vars(args), **result, "ratio": same / stock}))


if __name__ == "__main__":
    main()
