"""Training, sampling and decoding on the available device; intended for a GPU.

First the results are compared: equal weights on the CPU and on the device, in float32. Then:

train    images per second at each batch size, in steps of `artist finetune`, eager and compiled;
         the share of the device's rate for large bfloat16 matrix products, measured here
sample   256 codes per row at each batch size: CUDA graphs compared with the same model launched
         step by step, and with the time to read weights and cache, measured here
draw     complete images, including decoding, without and with guidance

Wall seconds after a synchronisation, peak memory of the device. Weights are random. On a CPU it is
only a functional test:

    python benchmarks/bench_artist_device.py --size nano --resolution 32 --train-batches 2
        --sample-batches 1 2 --steps 2 --matrix 512 --no-compile
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import add_options
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from artist.device import choose_dtype
from artist.generation.config import SamplingConfig
from artist.generation.cuda_graph import CUDAGraphSampler
from artist.generation.sampling import sample
from artist.models.compiled import Compiled
from artist.models.conditioning import Conditioning, Entities
from artist.models.config import GPTConfig, VQGANConfig
from artist.models.gpt import GPT
from artist.models.image_tokenizer import to_uint8
from artist.models.vqgan import VQGAN
from artist.tables.lattice_rows import Batch
from artist.training.config import SIZES, TrainConfig
from artist.training.gpt_task import CodeLoss
from artist.training.memory import peak_bytes
from artist.training.optimizers import make_optimizers
from data.device import choose_device

TEXT_LEN, ENTITIES = 32, 8


class Bench:
    """Options, device and inputs of all measurements."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = choose_device(options.device)
        self.dtype = choose_dtype(options.precision, self.device)
        self.vqgan_config = VQGANConfig(resolution=options.resolution)  # f16, 16,384 codes
        self.config = GPTConfig(
            text_len=TEXT_LEN, image_len=self.vqgan_config.image_len, **SIZES[options.size]
        )

    def model(self, device: torch.device | None = None) -> GPT:
        torch.manual_seed(0)
        return GPT(self.config).to(device or self.device)

    def captions(self, rows: int, device: torch.device | None = None) -> tuple[Tensor, Entities]:
        draw = torch.Generator().manual_seed(1)
        first, last = self.config.image_vocab_size, self.config.vocab_size
        text = torch.randint(first, last, (rows, TEXT_LEN), generator=draw)
        vectors = torch.randn(rows, ENTITIES, self.config.entity_dim, generator=draw)
        covers = torch.rand(rows, ENTITIES, TEXT_LEN, generator=draw) < 0.1
        entities = Entities(vectors, covers, torch.zeros(self.config.entity_dim))
        on = device or self.device
        return text.to(on), entities.to(on)

    def codes(self, rows: int) -> Tensor:
        draw = torch.Generator().manual_seed(2)
        size = (rows, self.config.image_len)
        return torch.randint(self.config.image_vocab_size, size, generator=draw).to(self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], repeats: int = 1) -> float:
        """Return the seconds per run, after a warm-up run."""
        run()
        self.wait()
        begun = time.perf_counter()
        for _ in range(repeats):
            run()
        self.wait()
        return (time.perf_counter() - begun) / repeats

    def fresh_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    # --- limits of the device -----------------------------------------------------------------
    def matrix_rate(self) -> float:
        """Return the FLOP/s of a large matrix product in the measured precision."""
        n = self.options.matrix
        a, b = (torch.randn(n, n, device=self.device, dtype=self.dtype) for _ in range(2))
        return 2 * n**3 / self.seconds(lambda: a @ b, 10)

    def memory_rate(self) -> float:
        """Return bytes per second, read and written, of a copy larger than any cache."""
        n = self.options.matrix**2 * 4
        a, b = (torch.zeros(n, dtype=torch.uint8, device=self.device) for _ in range(2))
        return 2 * n / self.seconds(lambda: b.copy_(a), 10)

    # --- the same numbers as on the CPU ---------------------------------------------------------
    @torch.no_grad()
    def correctness(self) -> dict[str, Any]:
        cpu = torch.device("cpu")
        here, there = self.model(cpu).eval(), self.model().eval()
        codes, draw = self.codes(2), SamplingConfig(top_k=100)
        expected = here.code_losses(self.captions(2, cpu)[0], codes.cpu(), self.captions(2, cpu)[1])
        found = there.code_losses(self.captions(2)[0], codes, self.captions(2)[1])
        text, entities = self.captions(2)
        drawn = sample(there, text, entities, [1, 2], draw)
        static = CUDAGraphSampler(there, 2, draw).sample(text, entities, [1, 2])
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            low = there.code_losses(text, codes, entities)
        return {
            "loss_difference_fp32": float((found.cpu() - expected).abs().max()),
            "loss_difference_low": float((low.float().mean() - found.mean()).abs()),
            "codes_equal_graphs_and_steps": float((drawn == static).float().mean()),
        }

    # --- training -------------------------------------------------------------------------------
    def flop_per_image(self) -> float:
        """Return the FLOP of forward and backward: products, and causal attention (half)."""
        c, sequence = self.config, self.config.block_size - 1
        blocks = c.n_layer * (12 * c.n_embd**2 + sequence * c.n_embd) * sequence
        return 6.0 * (blocks + c.n_embd * c.image_vocab_size * c.image_len)

    def train(self, rows: int, compiled: bool, matrix_rate: float) -> dict[str, Any]:
        self.fresh_memory()
        config = TrainConfig(size=self.options.size)
        model = self.model().train()
        optimizers = make_optimizers(model, config)
        loss_of: torch.nn.Module = CodeLoss(model, 0.0)
        if compiled:
            loss_of = Compiled(loss_of)
        text, entities = self.captions(rows)
        batch = Batch(Conditioning(text - self.config.image_vocab_size, entities), self.codes(rows))

        def step() -> None:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                loss = loss_of(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad(set_to_none=True)

        step()
        rate = rows / self.seconds(step, self.options.steps)
        return {
            "images_per_second": rate,
            "share_of_matrix_rate": rate * self.flop_per_image() / matrix_rate,
            "peak_gib": peak_bytes(self.device) / 2**30,
        }

    # --- sampling -------------------------------------------------------------------------------
    def bytes_read(self, rows: int) -> float:
        """Return the bytes of the weights at every step, and of the filled part of the cache."""
        c, size = self.config, self.dtype.itemsize
        weights = (12 * c.n_layer * c.n_embd**2 + c.n_embd * c.image_vocab_size) * size
        filled = c.image_len * (c.text_len + c.image_len / 2)
        return weights * c.image_len + rows * filled * 2 * c.n_layer * c.n_embd * size

    @torch.no_grad()
    def sample(self, rows: int, memory_rate: float) -> dict[str, Any]:
        self.fresh_memory()
        model, draw, seeds = self.model().eval(), SamplingConfig(top_k=100), list(range(rows))
        text, entities = self.captions(rows)
        begun = time.perf_counter()
        static = CUDAGraphSampler(model, rows, draw, dtype=self.dtype)
        self.wait()
        recording = time.perf_counter() - begun
        ours = self.seconds(lambda: static.sample(text, entities, seeds), 2)
        steps = self.seconds(lambda: sample(model, text, entities, seeds, draw, dtype=self.dtype))
        return {
            "ms": 1000 * ours,
            "codes_of_images_per_second": rows / ours,
            "ratio_to_step_by_step": steps / ours,
            "ratio_to_memory_limit": ours / (self.bytes_read(rows) / memory_rate),
            "seconds_to_record": recording,
            "peak_gib": peak_bytes(self.device) / 2**30,
        }

    @torch.inference_mode()
    def draw(self, rows: int, guided: bool) -> dict[str, Any]:
        """Generate complete images and copy them to the host."""
        self.fresh_memory()
        model = self.model().eval()
        vqgan = VQGAN(self.vqgan_config).eval().to(self.device).decoding_in(self.dtype)
        text, entities = self.captions(rows)
        config = SamplingConfig(top_k=100, cfg_scale=3.0 if guided else 1.0)
        static = CUDAGraphSampler(model, rows, config, empty_ids=text[0], dtype=self.dtype)
        codes = static.sample(text, entities, list(range(rows)))

        def images() -> Tensor:
            drawn = static.sample(text, entities, list(range(rows)))
            return to_uint8(vqgan.decode(drawn)).cpu()

        return {
            "pictures_per_second": rows / self.seconds(images),
            "decode_ms": 1000 * self.seconds(lambda: vqgan.decode(codes)),
            "peak_gib": peak_bytes(self.device) / 2**30,
        }

    def profiled(self, rows: int) -> str:
        """Return a profile of step-by-step sampling."""
        on = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            on.append(ProfilerActivity.CUDA)
        model = self.model().eval()
        text, entities = self.captions(rows)
        with profile(activities=on) as seen:
            sample(model, text, entities, list(range(rows)), SamplingConfig(), dtype=self.dtype)
        by = "self_cuda_time_total" if len(on) > 1 else "self_cpu_time_total"
        return str(seen.key_averages().table(sort_by=by, row_limit=15))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["train", "sample", "draw"])
    add_options(parser, device="auto", precision="auto", resolution=256, steps=10, matrix=8192)
    parser.add_argument("--size", default="base", choices=SIZES)
    parser.add_argument("--train-batches", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--sample-batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    bench = Bench(options)
    on_gpu = bench.device.type == "cuda"
    name = torch.cuda.get_device_name(bench.device) if on_gpu else "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "size": options.size}

    def note(what: str, measure: Callable[[], dict[str, Any]]) -> None:
        try:
            found[what] = measure()
        except torch.OutOfMemoryError:
            found[what] = {}
        said = ", ".join(f"{k} {v:.4g}" for k, v in found[what].items())
        print(what, said or "out of memory", flush=True)

    print(f"{name}, torch {torch.__version__}, {options.size}, {bench.dtype}")
    matrix_rate, memory_rate = bench.matrix_rate(), bench.memory_rate()
    rates = {"tflop_per_second": matrix_rate / 1e12, "gb_per_second": memory_rate / 1e9}
    note("rates", lambda: rates)
    note("correctness", bench.correctness)
    if "train" in options.what:
        for rows in options.train_batches:
            for compiled in (False, True)[: 1 + options.compile]:
                way = "compiled" if compiled else "eager"
                note(f"train {rows} {way}", partial(bench.train, rows, compiled, matrix_rate))
    if "sample" in options.what:
        for rows in options.sample_batches:
            note(f"sample {rows}", partial(bench.sample, rows, memory_rate))
    if "draw" in options.what:
        for rows in options.sample_batches:
            for guided in (False, True):
                way = "guided" if guided else "plain"
                note(f"draw {rows} {way}", partial(bench.draw, rows, guided))
    if options.profile:
        print(bench.profiled(options.sample_batches[0]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
