"""VQGAN checkpoints of taming-transformers.

A checkpoint is a `.ckpt`, `.pt` or `.bin` file, flat or wrapped (`state_dict`, `model` ...), its
names optionally prefixed with `first_stage_model.`, with or without the networks of the loss. Its
sizes follow from the shapes of its tensors, except for the resolution.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from artist.formats.state_dict import load_strict, read_tensors
from artist.models.config import VQGANConfig
from artist.models.vqgan import VQGAN
from data.errors import InputError

_PREFIX = "first_stage_model."
# Names under which trainers store the weights, averaged ones after plain ones.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "generator", "ema")
_LOSSES = "loss."  # discriminator and LPIPS of taming's training; not part of the model


def read_taming_checkpoint(path: Path, resolution: int) -> VQGAN:
    """Return the VQGAN of a checkpoint file, on the CPU, in eval mode.

    Args:
        path: The file.
        resolution: Side of the images that it was trained on, in pixels.

    Raises:
        InputError: The file cannot be read, or its tensors are not those of a VQModel or GumbelVQ.
    """
    state = _read_tensors(path)
    model = VQGAN(infer_config(path, state, resolution))
    load_strict(model, state, str(path))
    return model.eval()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their own names."""
    content = read_tensors(
        path,
        "cannot be loaded as a checkpoint",
        "If it holds more than tensors, save its `state_dict` alone.",
    )
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not tensors by name.")
    if any(str(name).startswith(_PREFIX) for name in content):  # the rest is a transformer
        content = {
            name.removeprefix(_PREFIX): value
            for name, value in content.items()
            if name.startswith(_PREFIX)
        }
    return {
        name: value.float()
        for name, value in content.items()
        if isinstance(value, Tensor) and not name.startswith(_LOSSES)
    }


def infer_config(path: Path, state: Mapping[str, Tensor], resolution: int) -> VQGANConfig:
    """Return the config that the tensors of a checkpoint imply by their names and shapes.

    Raises:
        InputError: The tensors are not those of a VQModel or GumbelVQ; the message names `path`.
    """
    gumbel = "quantize.proj.weight" in state
    codebook = "quantize.embed.weight" if gumbel else "quantize.embedding.weight"
    try:
        ch, in_channels = state["encoder.conv_in.weight"].shape[:2]
        levels = 1 + max(_numbers(state, "encoder.down."))
        widths = [state[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(levels)]
        codebook_size, codebook_embed_dim = state[codebook].shape
        return VQGANConfig(
            resolution=resolution,
            in_channels=in_channels,
            out_channels=state["decoder.conv_out.weight"].shape[0],
            ch=ch,
            ch_mult=tuple(width // ch for width in widths),
            num_res_blocks=1 + max(_numbers(state, "encoder.down.0.block.")),
            attn_resolutions=tuple(
                resolution >> i
                for i in range(levels)
                if f"encoder.down.{i}.attn.0.q.weight" in state
            ),
            z_channels=state["encoder.conv_out.weight"].shape[0],
            codebook_size=codebook_size,
            codebook_embed_dim=codebook_embed_dim,
            quantizer="gumbel" if gumbel else "nearest",
        )
    except (KeyError, ValueError) as error:
        names = ", ".join(list(state)[:3]) or "none"
        raise InputError(
            f"{path} is not a VQGAN checkpoint of taming-transformers: {error} is missing "
            f"(its first tensors: {names})."
        ) from None


def _numbers(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    return [int(k.removeprefix(prefix).partition(".")[0]) for k in state if k.startswith(prefix)]
