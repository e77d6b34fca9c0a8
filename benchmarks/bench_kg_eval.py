"""How much cheaper is full filtered ranking than by pykeen's RankBasedEvaluator?

The same vectors, the same triples, one thread, alternating in one process; CPU seconds. The metrics
must agree.
"""

import argparse
import gc
import json
import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSTOW_HOME", tempfile.mkdtemp(prefix="pystow-"))

import numpy as np
import torch
from measuring import add_options, in_turn

from kg.config import KGConfig
from kg.training.ranking import evaluate, make_queries
from kg.training.transe import make_model, tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, entities=100_000, relations=1000, dim=100, p_norm=2, turns=3)
    parser.add_argument("--triples", type=int, default=1_000_000, help="known triples")
    parser.add_argument("--asked", type=int, default=64, help="triples ranked, both sides")
    parser.add_argument("--batch-size", type=int, default=16, help="of pykeen's evaluator")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    sizes = (args.entities, args.relations, args.entities)
    columns = [(n * generator.random(args.triples) ** 3).astype(np.int32) for n in sizes]
    known = np.unique(np.stack(columns, axis=1), axis=0)
    asked = generator.permutation(known)[: args.asked]
    model = make_model(args.entities, args.relations, KGConfig(dim=args.dim, p_norm=args.p_norm))
    entity, relation = (weight.detach() for weight in tables(model))

    from pykeen.evaluation import RankBasedEvaluator

    def theirs() -> tuple[float, float]:
        found = RankBasedEvaluator(filtered=True).evaluate(
            model=model,
            mapped_triples=torch.from_numpy(asked).long(),
            additional_filter_triples=torch.from_numpy(known).long(),
            batch_size=args.batch_size,
            use_tqdm=False,
        )
        return (
            found.get_metric("both.realistic.inverse_harmonic_mean_rank"),
            found.get_metric("both.realistic.arithmetic_mean_rank"),
        )

    def ours() -> tuple[float, float]:
        found = evaluate(make_queries(asked, [known]), entity, relation, args.p_norm)
        return found["both"]["mrr"], found["both"]["mean_rank"]

    runs = {"pykeen": theirs, "ours": ours}
    figures = {name: run() for name, run in runs.items()}
    np.testing.assert_allclose(figures["ours"], figures["pykeen"], rtol=1e-4)
    gc.freeze()
    seconds = in_turn(runs, args.turns)
    cost = {name: value / args.asked * 1000 for name, value in seconds.items()}
    for name, ms in cost.items():
        print(f"{name:7} {ms:8.2f} CPU ms per triple (MRR {figures[name][0]:.6f})")
    print(json.dumps({**vars(args), "ms": cost, "ratio": cost["pykeen"] / cost["ours"]}))


if __name__ == "__main__":
    main()
