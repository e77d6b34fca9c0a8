"""The tensor code on other devices.

Without a GPU: it can run there. With one (`-m gpu`): its results equal those of the CPU. These
comparisons also run between CPU and CPU, which tests the tests.
"""

import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from unittest.mock import MagicMock

import pytest
import torch

from artist.generation.config import SamplingConfig
from artist.generation.cuda_graph import CUDAGraphSampler
from artist.generation.sampling import sample, sample_plain
from artist.models.conditioning import Entities
from artist.models.config import FUSIONS
from artist.models.gpt import GPT
from artist.models.vqgan import VQGAN
from tests.artist.models.test_gpt import TINY, T, entities_of, ids_of
from tests.artist.world import VQ
from tests.conftest import ROOT

SPANS = [[(0, 2), (1, 4)], []]
GUIDED = SamplingConfig(top_k=3, top_p=0.9, cfg_scale=2.0, cfg_schedule="cosine")
CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
MIDDLING = replace(TINY, image_vocab_size=50, image_len=60, n_layer=2, n_head=4, n_embd=32)


def middling(fusion: str, device: torch.device) -> GPT:
    torch.manual_seed(0)
    return GPT(replace(MIDDLING, fusion=fusion)).eval().to(device)


def captions(device: torch.device) -> tuple[torch.Tensor, Entities]:
    return ids_of(2)[:, :T].to(device) + 41, entities_of(SPANS).to(device)


def test_the_tensor_code_stays_on_its_device_without_synchronisation():
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"torch {torch.__version__} does not support devices written in Python")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/artist/accelerated.py"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_losses_and_gradients_equal_those_of_the_cpu(name, fusion):
    found = []
    for device in (CPU, torch.device(name)):
        gpt = middling(fusion, device)
        text, entities = captions(device)
        codes = torch.arange(120, device=device).view(2, 60) % 50
        losses = gpt.code_losses(text, codes, entities)
        losses.mean().backward()
        found.append((losses.detach().cpu(), [p.grad.cpu() for p in gpt.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("config", [SamplingConfig(top_k=5), GUIDED])
def test_sampled_codes_are_the_cpu_s(name, fusion, config):
    """60 codes after 6 tokens: the positions of the CUDA graph sampler span three blocks."""
    plain = sample_plain(
        middling(fusion, CPU), *captions(CPU), [1, 2], config, empty_ids=torch.full((T,), 50)
    )
    device = torch.device(name)
    text, entities = captions(device)
    empty = torch.full((T,), 50, device=device)
    sampler = CUDAGraphSampler(middling(fusion, device), 3, config, empty_ids=empty)
    assert bool(sampler.graphs) == (name == "cuda")
    for _ in range(2):
        assert torch.equal(sampler.sample(text, entities, [1, 2]).cpu(), plain)
    again = sampler.sample(text, entities, [1, 2], given=plain[:, :30].to(device))
    assert torch.equal(again.cpu(), plain)
    eager = sample(middling(fusion, device), text, entities, [1, 2], config, empty_ids=empty)
    assert torch.equal(eager.cpu(), plain)


@pytest.mark.parametrize("name", DEVICES)
def test_in_bfloat16_both_samplers_agree_on_the_first_code(name):
    """Later codes can differ by rounding."""
    device = torch.device(name)
    gpt, config = middling("lattice", device), SamplingConfig(top_k=1)
    text, entities = captions(device)
    sampler = CUDAGraphSampler(gpt, 2, config, dtype=torch.bfloat16).sample(text, entities, [1, 2])
    eager = sample(gpt, text, entities, [1, 2], config, dtype=torch.bfloat16)
    assert (sampler[:, 0] == eager[:, 0]).all()
    assert next(gpt.parameters()).dtype == torch.float32  # only the sampler's copy is cast


@pytest.mark.parametrize("name", DEVICES)
def test_encoding_and_decoding_equal_the_cpu_s(name):
    found = []
    for device in (CPU, torch.device(name)):
        torch.manual_seed(0)
        vqgan = VQGAN(VQ).eval()
        torch.nn.init.normal_(vqgan.quantize.embedding.weight)
        images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
        vqgan = vqgan.to(device).decoding_in(torch.float32)
        with torch.no_grad():
            codes = vqgan.encode(images.to(device))
            found.append((codes.cpu(), vqgan.decode(codes).cpu()))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-3)


def test_a_cuda_graph_sampler_refuses_more_rows_than_its_batch_size():
    sampler = CUDAGraphSampler(middling("none", CPU), 1, SamplingConfig())
    text, _ = captions(CPU)
    with pytest.raises(ValueError, match="2 rows for a sampler of batch size 1"):
        sampler.sample(text, None, [1, 2])


class Recording:
    """A CUDA graph for tests without a GPU: replaying runs the captured step again."""

    def __init__(self):
        self.step = None

    def pool(self):
        return None

    def replay(self):
        self.step()


def test_a_captured_graph_serves_its_block_of_positions_and_leaves_no_state(monkeypatch):
    """The steps are real; only the capture is simulated."""
    config = SamplingConfig(top_k=5)
    gpt, (text, entities) = middling("lattice", CPU), captions(CPU)
    sampler = CUDAGraphSampler(gpt, 2, config)
    step, made, recording = sampler._step, [], None

    @contextmanager
    def graph(one, pool):
        nonlocal recording
        recording = one
        yield
        recording = None

    def observed(seen):
        if recording is not None:
            made.append(seen)
            recording.step = partial(step, seen)
        else:
            step(seen)

    monkeypatch.setattr(sampler, "_step", observed)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    sampler._capture()
    assert made == [32, 64, 96] == list(sampler.graphs)
    monkeypatch.setattr(sampler, "_step", None)  # only replays from here
    codes = sampler.sample(text, entities, [1, 2])
    assert torch.equal(codes, sample_plain(gpt, text, entities, [1, 2], config))


def test_a_failed_capture_is_a_warning_and_steps_run_one_by_one(monkeypatch, caplog):
    config = SamplingConfig(top_k=5)
    gpt, (text, entities) = middling("lattice", CPU), captions(CPU)
    sampler = CUDAGraphSampler(gpt, 2, config)
    monkeypatch.setattr(torch.cuda, "Stream", MagicMock(side_effect=RuntimeError("no such thing")))
    sampler._capture()
    assert "Sampling without CUDA graphs, slower at small batches: no such thing" in caplog.text
    codes = sampler.sample(text, entities, [1, 2])
    assert torch.equal(codes, sample_plain(gpt, text, entities, [1, 2], config))
