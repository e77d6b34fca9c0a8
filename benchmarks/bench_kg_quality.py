"""Are our vectors as good as stock pykeen's?

Test MRR (filtered, both sides, all entities) over several seeds of stock `TransE` with Adam, with
AdaGrad, and ours, at equal dimension, epochs, batch size and number of negatives. The relevant
settings (stock: learning rate; ours: norm and margin) are chosen by the validation MRR with
seed 0; the test triples are evaluated once. Data: pykeen's bundled Nations, Kinships, UMLS, or
dumps given by --dumps, of which a part is held out.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSTOW_HOME", tempfile.mkdtemp(prefix="pystow-"))

import numpy as np
import torch
from measuring import add_options
from numpy.typing import NDArray

from kg.config import KGConfig
from kg.reading.triples import read_triples
from kg.training.ranking import evaluate, make_queries
from kg.training.splits import hold_out
from kg.training.trainer import train_transe

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Graph:
    name: str
    entities: int
    relations: int
    train: Ids
    valid: Ids
    test: Ids

    def mrr(self, split: str, entity: torch.Tensor, relation: torch.Tensor, p_norm: int) -> float:
        queries = make_queries(getattr(self, split), [self.train, self.valid, self.test])
        return evaluate(queries, entity, relation, p_norm)["both"]["mrr"]


def bundled(name: str) -> Graph:
    from pykeen.datasets import get_dataset

    data = get_dataset(dataset=name)
    parts = (
        factory.mapped_triples.numpy().astype(np.int32)
        for factory in (data.training, data.validation, data.testing)
    )
    return Graph(name, data.num_entities, data.num_relations, *parts)


def dumped(paths: Sequence[Path]) -> Graph:
    graph = read_triples(list(paths))
    rows, held_out = hold_out(graph.train, min(4000, len(graph.train) // 20), seed=0)
    name = "+".join(path.stem for path in paths)
    sizes = len(graph.entities), len(graph.relations)
    return Graph(name, *sizes, rows, held_out[::2], held_out[1::2])


def stock(graph: Graph, optimizer: str, rate: float, seed: int, args: argparse.Namespace):
    """Train the library's TransE: its margin loss, its L1 norm, its constraint."""
    from pykeen.models import TransE
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory

    factory = CoreTriplesFactory(
        torch.from_numpy(graph.train).long(),
        num_entities=graph.entities,
        num_relations=graph.relations,
    )
    model = TransE(triples_factory=factory, embedding_dim=args.dim, random_seed=seed)
    kind = {"Adam": torch.optim.Adam, "AdaGrad": torch.optim.Adagrad}[optimizer]
    torch.manual_seed(seed)
    SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=kind(model.get_grad_params(), lr=rate),
        negative_sampler_kwargs={"num_negs_per_pos": args.negatives},
        automatic_memory_optimization=False,
    ).train(
        triples_factory=factory,
        num_epochs=args.epochs,
        batch_size=args.batch_size,
        use_tqdm=False,
        pin_memory=False,
        checkpoint_directory=tempfile.gettempdir(),
    )
    entity, relation = (
        part[0](None).detach()
        for part in (model.entity_representations, model.relation_representations)
    )
    return entity, relation, 1


def ours(graph: Graph, setting: str, seed: int, args: argparse.Namespace):
    p_norm, margin = setting.split(":")
    config = KGConfig(
        dim=args.dim,
        epochs=args.epochs,
        batch_size=args.batch_size,
        num_negatives=args.negatives,
        p_norm=int(p_norm),
        margin=float(margin),
        seed=seed,
    )
    trained = train_transe(graph.train, graph.entities, graph.relations, config, device="cpu")
    return trained.entity, trained.relation, config.p_norm


def compare(graph: Graph, args: argparse.Namespace) -> dict[str, dict[str, object]]:
    ways: dict[str, tuple[Callable, list[str]]] = {
        "stock Adam": (lambda x, s: stock(graph, "Adam", float(x), s, args), ["0.001", "0.01"]),
        "stock AdaGrad": (lambda x, s: stock(graph, "AdaGrad", float(x), s, args), ["0.01", "0.1"]),
        "ours": (lambda x, s: ours(graph, x, s, args), ["1:6", "2:3", "2:9"]),
    }
    found = {}
    for name in args.ways or ways:
        make, choices = ways[name]
        begun = time.process_time()
        by_choice = {x: graph.mrr("valid", *make(x, 0)) for x in choices}
        best = max(by_choice, key=by_choice.get)
        scores = np.array([graph.mrr("test", *make(best, seed)) for seed in range(args.seeds)])
        # 95 % interval of the mean, Student's t for the few seeds
        t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(args.seeds, 2.0)
        half = t * scores.std(ddof=1) / np.sqrt(len(scores))
        seconds = time.process_time() - begun
        found[name] = {
            "mean": scores.mean(),
            "half": half,
            "chosen": best,
            "valid": by_choice,
            "cpu_seconds": seconds,
        }
        print(
            f"{graph.name:12} {name:14} test MRR {scores.mean():.3f} +- {half:.3f} "
            f"(setting {best} by validation; {seconds:.0f} CPU s)",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundled", nargs="*", default=["nations", "kinships", "umls"])
    parser.add_argument("--dumps", nargs="*", type=Path, default=[])
    parser.add_argument("--ways", nargs="*", help="only these, such as `ours`")
    add_options(parser, dim=50, epochs=40, negatives=16, batch_size=256, seeds=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # pykeen collects garbage after each epoch
    graphs = [dumped(args.dumps)] if args.dumps else [bundled(name) for name in args.bundled]
    found = {graph.name: compare(graph, args) for graph in graphs}
    settings = {k: v for k, v in vars(args).items() if k != "dumps"}
    print(json.dumps({**settings, "mrr": found}))


if __name__ == "__main__":
    main()
