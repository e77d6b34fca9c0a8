"""Run by `test_devices.py` in a process of its own: torch counts devices before its first step."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from artist.generation.cuda_graph import CUDAGraphSampler
from artist.generation.sampling import sample
from artist.models.conditioning import Conditioning
from artist.models.config import FUSIONS
from artist.models.discriminator import PatchDiscriminator, discriminator_loss, reconstruction_loss
from artist.models.gpt import GPT
from artist.models.image_tokenizer import to_uint8
from artist.models.vqgan import VQGAN
from artist.tables.lattice_rows import Batch
from artist.training.config import TrainConfig
from artist.training.gpt_task import CodeLoss
from artist.training.optimizers import make_optimizers
from tests.accelerator import accelerator, moved
from tests.artist.codebook import codebook_loss, through_codebook
from tests.artist.models.test_gpt import TINY, L, T, entities_of, ids_of
from tests.artist.test_devices import GUIDED, SPANS
from tests.artist.world import VQ


def test_the_accelerator_refuses_what_a_gpu_refuses_and_what_makes_one_wait():
    with accelerator() as device:
        there, here = torch.ones(2).to(device), torch.ones(2)
        assert (there + 1).device == device
        with pytest.raises(RuntimeError, match="same device"):
            _ = there + here
        with pytest.raises(DataDependentOutputException):
            there.sum().item()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_training_step_stays_on_its_device_and_waits_for_nothing(fusion):
    with accelerator() as device:
        gpt = moved(GPT(replace(TINY, fusion=fusion)), device)
        ids = ids_of(2)
        batch = Batch(Conditioning(ids[:, :T] - 9, entities_of(SPANS)), ids[:, T:]).to(device)
        loss = CodeLoss(gpt, label_smoothing=0.1)(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(gpt.parameters(), 1.0)
        for optimizer in make_optimizers(gpt, TrainConfig(size="nano", optimizer="muon")):
            optimizer.step()
        assert loss.device == norm.device == device
        assert all(p.grad is not None for p in gpt.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_drawing_stays_on_its_device_and_waits_for_nothing(fusion):
    with accelerator() as device:
        gpt = moved(GPT(replace(TINY, fusion=fusion)), device).eval()
        text, empty = ids_of(2)[:, :T].to(device), torch.full((T,), 9).to(device)
        entities = entities_of(SPANS).to(device)
        drawn = sample(gpt, text, entities, [1, 2], GUIDED, empty_ids=empty)
        sampler = CUDAGraphSampler(gpt, 3, GUIDED, empty_ids=empty)
        again = sampler.sample(text, entities, [1, 2])
        assert drawn.device == again.device == device
        assert drawn.shape == again.shape == (2, L)


def test_codes_and_pictures_stay_on_their_device():
    with accelerator() as device:
        vqgan = moved(VQGAN(VQ), device).eval()
        codes = vqgan.encode(torch.rand(2, 3, 8, 8).to(device))
        assert codes.device == device
        assert to_uint8(vqgan.decode(codes)).device == device


def test_a_step_of_the_vqgan_s_training_stays_on_its_device():
    with accelerator() as device:
        vqgan, judge = moved(VQGAN(VQ), device), moved(PatchDiscriminator(), device)
        images = torch.rand(2, 3, 8, 8).to(device)
        out = through_codebook(vqgan, images)
        drawn = out.reconstruction
        loss = reconstruction_loss(drawn, images) + codebook_loss(out.latents, out.quantised)
        (loss + discriminator_loss(judge(images), judge(drawn))).backward()
        assert all(p.grad.device == device for p in vqgan.decoder.parameters())
