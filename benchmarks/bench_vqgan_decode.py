"""How much faster is decoding in bfloat16 and channels last, and do pictures still look the same?

Baseline: the same model in float32, laid out as torch does by default. One thread, one process, the
two ways in turn; the ratio of the best times. Weights are random: speed does not depend on them.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import torch

from artist.vqgan import VQGAN, VQGANConfig, to_uint8


def best_seconds(
    work: Callable[[], object], others: Callable[[], object], rounds: int
) -> list[float]:
    """The best time of each of two jobs, run in turn."""
    best = [float("inf"), float("inf")]
    for job in (work, others):
        job()
    for _ in range(rounds):
        for i, job in enumerate((work, others)):
            begin = time.perf_counter()
            job()
            best[i] = min(best[i], time.perf_counter() - begin)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=128, help="side of the pictures")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--ch", type=int, default=128, help="width; 128 is the released model's")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = VQGANConfig(resolution=arguments.resolution, ch=arguments.ch)
    plain = VQGAN(config).eval()
    fast = VQGAN(config).eval()
    fast.load_state_dict(plain.state_dict())
    fast.decode_in(torch.bfloat16)
    codes = torch.randint(config.codebook_size, (arguments.batch_size, config.image_len))
    with torch.inference_mode():
        seconds = best_seconds(
            lambda: plain.decode_codes(codes), lambda: fast.decode_codes(codes), arguments.rounds
        )
        before, after = (to_uint8(m.decode_codes(codes)).short() for m in (plain, fast))
    result = {
        "question": "VQGAN decode, bfloat16 channels last against float32",
        "resolution": config.resolution,
        "batch_size": arguments.batch_size,
        "ch": config.ch,
        "float32_images_per_second": round(arguments.batch_size / seconds[0], 3),
        "bfloat16_images_per_second": round(arguments.batch_size / seconds[1], 3),
        "ratio": round(seconds[0] / seconds[1], 2),
        "mean_pixel_difference": round(float((after - before).abs().float().mean()), 3),
        "largest_pixel_difference": int((after - before).abs().max()),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
