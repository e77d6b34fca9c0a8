"""Tests that `test_devices.py` runs in their own process, because torch counts devices once."""

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


def test_the_accelerator_refuses_mixed_devices_and_synchronisation():
    with accelerator() as device:
        remote, local = torch.ones(2).to(device), torch.ones(2)
        assert (remote + 1).device == device
        with pytest.raises(RuntimeError, match="same device"):
            _ = remote + local
        with pytest.raises(DataDependentOutputException):
            remote.sum().item()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_training_step_stays_on_its_device_without_synchronisation(fusion):
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
def test_sampling_stays_on_its_device_without_synchronisation(fusion):
    with accelerator() as device:
        gpt = moved(GPT(replace(TINY, fusion=fusion)), device).eval()
        text, empty = ids_of(2)[:, :T].to(device), torch.full((T,), 9).to(device)
        entities = entities_of(SPANS).to(device)
        drawn = sample(gpt, text, entities, [1, 2], GUIDED, empty_ids=empty)
        sampler = CUDAGraphSampler(gpt, 3, GUIDED, empty_ids=empty)
        again = sampler.sample(text, entities, [1, 2])
        assert drawn.device == again.device == device
        assert drawn.shape == again.shape == (2, L)


def test_codes_and_images_stay_on_their_device():
    with accelerator() as device:
        vqgan = moved(VQGAN(VQ), device).eval()
        codes = vqgan.encode(torch.rand(2, 3, 8, 8).to(device))
        assert codes.device == device
        assert to_uint8(vqgan.decode(codes)).device == device


def test_a_step_of_vqgan_training_stays_on_its_device():
    with accelerator() as device:
        vqgan, discriminator = moved(VQGAN(VQ), device), moved(PatchDiscriminator(), device)
        images = torch.rand(2, 3, 8, 8).to(device)
        out = through_codebook(vqgan, images)
        decoded = out.reconstruction
        loss = reconstruction_loss(decoded, images) + codebook_loss(out.latents, out.quantised)
        adversarial = discriminator_loss(discriminator(images), discriminator(decoded))
        (loss + adversarial).backward()
        assert all(p.grad.device == device for p in vqgan.decoder.parameters())
