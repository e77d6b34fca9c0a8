"""Jacobi decoding of one image at a time, compared with one code per pass; one thread.

Without a model it measures the cost of a pass over a window compared with a pass over one code,
with random weights. A window pays if it gives more codes per pass than that. With a trained model
it samples images of a table's captions, with `--jacobi-window` and without, at both precisions.

    python benchmarks/bench_jacobi.py [--size base]
    python benchmarks/bench_jacobi.py --model runs/demo/models/seed-0/lattice --kg runs/demo/kg
        --table runs/demo/tables/valid.parquet --temperature 0.35 --top-k 0

CPU seconds, medians over alternating runs.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from measuring import add_options, in_turn

from artist.device import choose_dtype
from artist.formats.model_folder import load_model
from artist.generation.artist_pipeline import Artist, entity_vectors
from artist.generation.config import SamplingConfig
from artist.generation.sampling import sample
from artist.models.config import GPTConfig
from artist.models.gpt import GPT, KVCache
from artist.models.packed_linear import packed
from artist.tables.lattice_rows import Batches
from artist.training.config import SIZES

CPU = torch.device("cpu")


@torch.no_grad()
def cost_of_a_pass(options: argparse.Namespace, dtype: torch.dtype) -> dict[str, float]:
    """Return the time of a pass over W codes as a multiple of that over one, by W."""
    model = GPT(GPTConfig(fusion="none", **SIZES[options.size])).eval()
    cache = KVCache(model.config, 1, device=CPU, dtype=dtype)
    middle = model.config.block_size // 2

    def run(codes: int) -> None:
        for _ in range(options.passes):
            cache.length = middle
            model(torch.zeros(1, codes, dtype=torch.long), cache=cache)

    seconds = {}
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for codes in (1, *options.windows):
            with packed(model, codes, dtype):
                run(codes)
                seconds[codes] = in_turn({"run": lambda n=codes: run(n)}, options.rounds)["run"]
    return {f"cost of {n}": seconds[n] / seconds[1] for n in options.windows}


def sampling(options: argparse.Namespace, dtype: torch.dtype) -> dict[str, float]:
    """Return codes per pass and time as a share of that without a window, by W."""
    model = load_model(options.model, CPU)
    artist = Artist(model, entity_vectors(model, options.kg))
    rows = artist.rows(pq.read_table(options.table))
    batches = Batches(rows, artist.vectors, model.gpt.config)
    empty = model.gpt.text_ids(model.empty_ids)
    passes: dict[int, list[int]] = {window: [] for window in (0, *options.windows)}
    model.gpt.register_forward_hook(lambda *_: passes[current[0]].append(1))
    current, ratios = [0], {window: list[float]() for window in options.windows}
    for n in np.random.default_rng(0).choice(len(rows), options.images, replace=False):
        caption = batches.get(np.array([n])).conditioning
        text = model.gpt.text_ids(caption.token_ids)

        def draw(window: int, n: int, text=text, entities=caption.entities) -> None:
            current[0] = window
            config = SamplingConfig(
                temperature=options.temperature,
                top_k=options.top_k or None,
                cfg_scale=options.cfg_scale,
                jacobi_window=window or None,
            )
            sample(model.gpt, text, entities, [int(n)], config, empty_ids=empty, dtype=dtype)

        jobs = {str(window): (lambda w=window, n=n: draw(w, n)) for window in passes}
        seconds = in_turn(jobs, options.rounds)
        for window in options.windows:
            ratios[window].append(seconds["0"] / seconds[str(window)])
    total = len(passes[0])
    return {
        **{f"codes per pass, {w}": total / len(passes[w]) for w in options.windows},
        **{f"speed, {w}": float(np.median(ratios[w])) for w in options.windows},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base", choices=SIZES)
    for name in ("model", "kg", "table"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--windows", type=int, nargs="+", default=[4, 6, 8])
    add_options(parser, rounds=3, passes=4, images=8, top_k=100)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--cfg-scale", type=float, default=1.0)
    options = parser.parse_args()
    if options.model and not (options.kg and options.table):
        parser.error("--model needs --kg and --table")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype != torch.float32 and choose_dtype("auto", CPU) != dtype:
            continue  # not faster than fp32 on this machine
        found[name] = (sampling if options.model else cost_of_a_pass)(options, dtype)
        print(name, ", ".join(f"{k}: {v:.2f}" for k, v in found[name].items()), flush=True)
    about = {"baseline": "one code per pass", "machine": platform.machine()}
    print(json.dumps({"benchmark": "jacobi", **about, "torch": torch.__version__, **found}))


if __name__ == "__main__":
    main()
