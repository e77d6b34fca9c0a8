"""Image tokenizers on disk: a folder with `config.json` and `model.safetensors`."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from safetensors.torch import save_file

from artist.formats.state_dict import load_strict, read_state
from artist.formats.taming import read_taming_checkpoint
from artist.models.image_tokenizer import ImageTokenizer
from data.errors import InputError, did_you_mean
from data.runs import write_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# `model_type` in `config.json` -> module and class. Names, not imports: rooms above add theirs.
IMAGE_TOKENIZERS = {"vqgan": ("artist.models.vqgan", "VQGAN")}


@dataclass(frozen=True)
class FrozenTokenizer:
    """An image tokenizer whose weights no longer change, loaded and hashed once.

    Attributes:
        model: The tokenizer, in eval mode.
        fingerprint: Of the model; names the codes that it makes.
        source: Path it was loaded from.
    """

    model: ImageTokenizer
    fingerprint: str
    source: Path

    @classmethod
    def load(cls, path: Path) -> "FrozenTokenizer":
        """Load a tokenizer as `load_image_tokenizer` does."""
        model = load_image_tokenizer(path)
        return cls(model, model.fingerprint(), path)


def save_image_tokenizer(folder: Path, tokenizer: ImageTokenizer) -> None:
    """Write config and weights (float32) into `folder`, creating it if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {"model_type": tokenizer.model_type, **tokenizer.config.to_dict()})
    state = {k: v.detach().float().cpu().contiguous() for k, v in tokenizer.state_dict().items()}
    save_file(state, folder / WEIGHTS)


def load_image_tokenizer(path: Path, *, resolution: int = 256) -> ImageTokenizer:
    """Load the image tokenizer of a folder or of a taming-transformers checkpoint.

    Args:
        path: A folder written by `save_image_tokenizer`, or a checkpoint file.
        resolution: For a checkpoint file only: side of the images that it was trained on.

    Returns:
        The tokenizer on the CPU, in eval mode.

    Raises:
        InputError: The path is neither, or tensors are missing, unexpected or of another shape.
    """
    if path.is_file():
        return read_taming_checkpoint(path, resolution)
    if not path.is_dir():
        raise InputError(f"{path} does not exist. Train a VQGAN with `cli.py artist vqgan train`.")
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise InputError(
                f"{path} is not a folder of an image tokenizer: {name} is missing. Train a VQGAN "
                "with `cli.py artist vqgan train`."
            )
    try:
        values = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        model_type = values.pop("model_type", None) if isinstance(values, dict) else None
    except (ValueError, OSError) as error:
        raise InputError(f"{path / CONFIG} cannot be read: {error}.") from None
    if model_type not in IMAGE_TOKENIZERS:
        near = did_you_mean(str(model_type), IMAGE_TOKENIZERS)
        raise InputError(
            f"{path / CONFIG} does not describe an image tokenizer: model_type is "
            f"{model_type!r}{near}; known are {', '.join(IMAGE_TOKENIZERS)}."
        )
    module, name = IMAGE_TOKENIZERS[model_type]
    kind: type[ImageTokenizer] = getattr(import_module(module), name)
    tokenizer = kind(kind.config_class.from_dict(values))
    state = read_state(path / WEIGHTS, "cannot be read", "Copy or train the tokenizer again.")
    load_strict(tokenizer, state, str(path))
    return tokenizer.eval()
