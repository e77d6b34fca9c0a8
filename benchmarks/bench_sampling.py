"""How much does the key-value cache save when codes are sampled?

Baseline: plain sampling, which, as the released code does, runs the whole sequence again for each
code. Its cost is measured at `--points` lengths and integrated, since the whole of it takes
minutes. Ours: `sample`, whole. Both in the same run, one thread, random weights (they do not
change the work).

    python benchmarks/bench_sampling.py --size base --batch 4 --precision bf16
"""

import argparse
import json
import platform
import time

import numpy as np
import torch

from artist.config import SIZES, SamplingConfig
from artist.gpt import GPT, GPTConfig
from artist.sample import sample


def seconds(run, repeats: int = 1) -> float:
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base", choices=SIZES)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--baseline-precision", default="fp32", choices=["bf16", "fp32"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPTConfig(fusion="none", **SIZES[options.size])
    model = GPT(config).eval()
    text = torch.randint(16_384, config.vocab_size, (options.batch, config.text_len))
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}

    lengths = np.linspace(config.text_len, config.block_size - 1, options.points).astype(int)
    costs = []
    dtype = dtypes[options.baseline_precision]
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for length in lengths:
            ids = torch.randint(0, 16_384, (options.batch, int(length)))
            model(ids)
            costs.append(seconds(lambda ids=ids: model(ids)))
    plain = float(np.interp(np.arange(config.text_len, config.block_size), lengths, costs).sum())

    seeds = list(range(options.batch))
    ours = seconds(
        lambda: sample(model, text, None, seeds, SamplingConfig(), dtype=dtypes[options.precision])
    )
    print(
        f"plain, {options.baseline_precision}: {plain:.1f} CPU s (integrated over {len(lengths)} "
        f"lengths); cached, {options.precision}: {ours:.1f} CPU s; ratio {plain / ours:.1f}"
    )
    print(
        json.dumps(
            {
                "benchmark": "sampling",
                "baseline": f"plain sampling, {options.baseline_precision}",
                "ratio": round(plain / ours, 2),
                **vars(options),
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
