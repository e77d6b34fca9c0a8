"""VQGANs on disk: our folder (`config.json`, `model.safetensors`), and taming-transformers' files.

A taming checkpoint is a `.ckpt`, `.pt` or `.bin` file, flat or wrapped in `state_dict`, its names
perhaps prefixed with `first_stage_model.`, the losses' networks perhaps among them. Its sizes are
read from the shapes of its tensors, all but the resolution, which no shape tells.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from artist.formats.state_dict import load_strict, read_state, read_tensors
from artist.models.config import VQGANConfig
from artist.models.vqgan import VQGAN
from data.errors import InputError
from data.runs import write_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_PREFIX = "first_stage_model."
_LOSSES = "loss."  # discriminator and LPIPS of taming's training; no part of the model


def save_vqgan(folder: Path, model: VQGAN) -> None:
    """Write config and weights (float32) into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {"model_type": "vqgan", **model.config.to_dict()})
    state = {k: v.detach().float().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)


def load_vqgan(path: Path, *, resolution: int = 256) -> VQGAN:
    """The VQGAN of a folder or of a taming-transformers checkpoint, on the CPU, in `eval` mode.

    Args:
        path: A folder written by `save_vqgan`, or a checkpoint file.
        resolution: For a checkpoint file only: the side of the images that it was trained on.

    Raises:
        InputError: It is neither, or tensors are missing, superfluous or of another shape.
    """
    if path.is_dir():
        config, state = _read_folder(path)
    elif path.is_file():
        state = _read_checkpoint(path)
        config = infer_config(path, state, resolution)
    else:
        raise InputError(f"{path} does not exist. Make a VQGAN with `cli.py artist vqgan train`.")
    model = VQGAN(config)
    load_strict(model, state, str(path))
    return model.eval()


def vqgan_fingerprint(model: VQGAN) -> str:
    """A name for what a VQGAN computes: equal for equal sizes and weights, wherever they lie.

    So codes belong to a VQGAN and to its copy in a model folder alike. Settings at their default
    are left out: one that is new in a later version does not rename the models of an earlier one.
    """
    plain = VQGANConfig().to_dict()
    special = {k: v for k, v in model.config.to_dict().items() if v != plain[k]}
    digest = hashlib.sha256(json.dumps(special, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _read_folder(folder: Path) -> tuple[VQGANConfig, dict[str, Tensor]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} is not a VQGAN folder: {name} is missing. Make one with "
                "`cli.py artist vqgan train`."
            )
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("model_type", None) != "vqgan":
            raise InputError(f"{folder / CONFIG} does not describe a VQGAN.")
    except (ValueError, OSError) as error:
        raise InputError(f"{folder / CONFIG} cannot be read: {error}.") from None
    state = read_state(folder / WEIGHTS, "cannot be read", "Copy or train the VQGAN again.")
    return VQGANConfig.from_dict(values), state


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a taming checkpoint by their own names."""
    content = read_tensors(
        path,
        "cannot be loaded as a checkpoint",
        "If it holds more than tensors, save its `state_dict` alone.",
    )
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
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
    """The config that the shapes of a taming checkpoint tell.

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
