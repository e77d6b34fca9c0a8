"""Ours and the released code: a training step, sampling, decoding, encoding; one thread.

The baseline is a plain re-creation of what EasyNLP's code computes: three attention projections and
a masked softmax; in training every image is encoded at each step, in float32; in sampling the whole
sequence is computed for each of 256 codes, with logits at every position, top-k, multinomial; one
float32 decode. Weights are random (they do not change the work). CPU seconds, alternating runs.
Uncached sampling takes minutes, so its cost is measured at `--points` lengths and integrated.

    python benchmarks/bench_reference.py step sample decode encode

Ours uses `data.malloc.reuse_freed_memory`, as the commands do; the baseline does not.
"""

import argparse
import ctypes
import json
import math
import platform
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from measuring import add_options, cpu_seconds
from torch import Tensor, nn

from artist.generation.config import SamplingConfig
from artist.generation.cuda_graph import CUDAGraphSampler
from artist.generation.sampling import sample
from artist.models.config import GPTConfig, VQGANConfig
from artist.models.gpt import GPT, parameter_groups
from artist.models.image_tokenizer import channels_last, to_uint8
from artist.models.vqgan import VQGAN
from artist.training.config import SIZES
from data.malloc import reuse_freed_memory

TEXT_LEN, LEARNING_RATE = 32, 4e-5


class ReferenceAttention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.key, self.query, self.value, self.proj = (
            nn.Linear(config.n_embd, config.n_embd) for _ in range(4)
        )
        size = config.block_size
        self.register_buffer("mask", torch.tril(torch.ones(size, size))[None, None])
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        B, S, C = x.shape
        k, q, v = (
            part(x).view(B, S, self.n_head, C // self.n_head).transpose(1, 2)
            for part in (self.key, self.query, self.value)
        )
        score = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        score = score.masked_fill(self.mask[:, :, :S, :S] == 0, float("-inf")).softmax(-1)
        return self.proj((score @ v).transpose(1, 2).contiguous().view(B, S, C))


class ReferenceGPT(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.n_embd
        self.tok_emb = nn.Embedding(config.vocab_size, width)
        self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln1": nn.LayerNorm(width),
                    "ln2": nn.LayerNorm(width),
                    "attn": ReferenceAttention(config),
                    "mlp": nn.Sequential(
                        nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
                    ),
                }
            )
            for _ in range(config.n_layer)
        )
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.image_vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok_emb(ids) + self.pos_emb[:, : ids.shape[1]]
        for block in self.blocks:
            x = x + block["attn"](block["ln1"](x))
            x = x + block["mlp"](block["ln2"](x))
        return self.head(self.ln_f(x))


def return_freed_memory() -> None:
    """Restore the C library's defaults, which the released code uses."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 65_536)  # M_MMAP_MAX
    libc.mallopt(-1, 131_072)  # M_TRIM_THRESHOLD
    libc.malloc_trim(0)


def in_turn(theirs: Callable[[], object], ours: Callable[[], object], rounds: int) -> list[float]:
    """Return the median CPU seconds of each; a run that is not counted precedes each one."""
    jobs = ((return_freed_memory, theirs), (reuse_freed_memory, ours))
    taken = []
    for _ in range(rounds):
        seconds = []
        for prepare, job in jobs:
            prepare()
            job()
            seconds.append(cpu_seconds(job))
        taken.append(seconds)
    return [float(m) for m in np.median(np.array(taken), axis=0)]


def text_of(config: GPTConfig, batch: int) -> Tensor:
    return torch.randint(config.image_vocab_size, config.vocab_size, (batch, TEXT_LEN))


def bench_step(options: argparse.Namespace, config: GPTConfig, vqgan: VQGAN) -> dict[str, float]:
    """Time one optimizer step: the reference encodes its images, ours starts from codes."""
    text = text_of(config, options.batch)
    images = torch.rand(options.batch, 3, 256, 256) * 2 - 1
    codes = torch.randint(config.image_vocab_size, (options.batch, config.image_len))

    reference = ReferenceGPT(config).train()
    their_optimizer = torch.optim.AdamW(reference.parameters(), lr=LEARNING_RATE, eps=1e-6)

    def theirs() -> None:
        with torch.no_grad():
            target = vqgan.encode(images)
        logits = reference(torch.cat([text, target], 1)[:, :-1])[:, TEXT_LEN - 1 :]
        F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1)).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        their_optimizer.step()
        their_optimizer.zero_grad()

    model = GPT(config).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4), lr=LEARNING_RATE, fused=True)

    def ours() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.code_losses(text, codes).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    their, our = in_turn(theirs, ours, options.rounds)
    return {"reference_s": their, "ours_bf16_s": our, "ratio": their / our}


@torch.no_grad()
def bench_sample(options: argparse.Namespace, config: GPTConfig) -> dict[str, float]:
    """Time 256 codes of a batch: the whole sequence at every step, and a key-value cache."""
    reference, model = ReferenceGPT(config).eval(), GPT(config).eval()
    text = text_of(config, options.batch)

    def step(length: int) -> None:
        ids = torch.cat([text, torch.randint(16_384, (options.batch, length - TEXT_LEN))], 1)
        logits = reference(ids)[:, -1]
        kept = logits.masked_fill(logits < logits.topk(100).values[:, -1:], float("-inf"))
        torch.multinomial(kept.softmax(-1), 1)

    points = np.linspace(TEXT_LEN, config.block_size - 1, options.points).astype(int)
    return_freed_memory()
    step(int(points[-1]))
    costs = [cpu_seconds(lambda n=n: step(int(n))) for n in points]
    their = float(np.interp(np.arange(TEXT_LEN, config.block_size), points, costs).sum())
    found = {"reference_s": their}
    seeds = list(range(options.batch))
    reuse_freed_memory()
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        run = lambda dtype=dtype: sample(  # noqa: E731
            model, text, None, seeds, SamplingConfig(top_k=100), dtype=dtype
        )
        found[f"ours_{name}_s"] = cpu_seconds(run)
        found[f"ratio_{name}"] = their / found[f"ours_{name}_s"]
        if options.compile:
            static = CUDAGraphSampler(
                model, options.batch, SamplingConfig(top_k=100), dtype=dtype, compile=True
            )
            static.sample(text, None, seeds)  # compiles
            run = lambda static=static: static.sample(text, None, seeds)  # noqa: E731
            found[f"ours_{name}_compiled_s"] = cpu_seconds(run)
            found[f"ratio_{name}_compiled"] = their / found[f"ours_{name}_compiled_s"]
    return found


@torch.inference_mode()
def bench_decode(options: argparse.Namespace, vqgan: VQGAN) -> dict[str, float]:
    """Time codes to images: float32, and bfloat16 with channels last."""
    fast = VQGAN(vqgan.config).eval()
    fast.load_state_dict(vqgan.state_dict())
    fast.decode_in(torch.bfloat16)
    codes = torch.randint(vqgan.config.codebook_size, (options.batch, vqgan.config.image_len))
    their, our = in_turn(lambda: vqgan.decode(codes), lambda: fast.decode(codes), options.rounds)
    levels = to_uint8(vqgan.decode(codes)).int() - to_uint8(fast.decode(codes)).int()
    return {
        "reference_s": their,
        "ours_bf16_s": our,
        "ratio": their / our,
        "mean_difference_of_255": float(levels.abs().float().mean()),
        "largest_difference_of_255": int(levels.abs().max()),
    }


@torch.inference_mode()
def bench_encode(options: argparse.Namespace, vqgan: VQGAN) -> dict[str, float]:
    """Time images to codes in float32: torch's default memory format, and channels last."""
    ours = VQGAN(vqgan.config).eval()
    ours.load_state_dict(vqgan.state_dict())
    channels_last(ours)
    images = torch.rand(options.batch, 3, 256, 256) * 2 - 1

    def theirs() -> Tensor:
        latents = vqgan.encode_latents(images)
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        table = vqgan.quantize.embedding.weight
        distance = rows.square().sum(1, keepdim=True) + table.square().sum(1)
        return (distance - 2 * torch.einsum("bd,nd->bn", rows, table)).argmin(1)

    their, our = in_turn(theirs, lambda: ours.encode(images), options.rounds)
    equal = (theirs() == ours.encode(images).flatten()).float().mean()
    return {
        "reference_s": their,
        "ours_fp32_s": our,
        "ratio": their / our,
        "equal_codes": float(equal),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["step", "sample", "decode", "encode"])
    parser.add_argument("--size", default="base", choices=SIZES)
    add_options(parser, batch=4, rounds=3, points=5)
    parser.add_argument("--compile", action="store_true", help="sample: compiled steps as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPTConfig(fusion="none", **SIZES[options.size])
    found: dict[str, dict[str, float]] = {}
    for what in options.what:
        vqgan = VQGAN(VQGANConfig()).eval()  # the released sizes: f16, 16,384 codes
        vqgan.quantize.embedding.weight.data.normal_()
        if what == "step":
            found[what] = bench_step(options, config, vqgan)
        elif what == "sample":
            found[what] = bench_sample(options, config)
        elif what == "decode":
            found[what] = bench_decode(options, vqgan)
        elif what == "encode":
            found[what] = bench_encode(options, vqgan)
        else:
            parser.error(f"{what} is none of step, sample, decode, encode")
        print(what, ", ".join(f"{k} {v:.4g}" for k, v in found[what].items()), flush=True)
    about = {"size": options.size, "batch": options.batch, "torch": torch.__version__}
    print(json.dumps({"benchmark": "reference", **about, "machine": platform.machine(), **found}))


if __name__ == "__main__":
    main()
