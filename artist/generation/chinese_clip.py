"""Chinese CLIP (Yang et al. 2022) as a `TextImageScorer`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artist.generation.text_image_scorer import read_json
from data.errors import InputError
from data.runs import fingerprint

_TEXT_LEN = 52  # tokens per text, including [CLS] and [SEP]
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # defaults of CLIP's preprocessor
_STD = (0.26862954, 0.26130258, 0.27577711)


class ChineseCLIP:
    """A Chinese CLIP: images and texts to unit vectors of one space.

    Args:
        folder: As saved by transformers: `config.json`, weights, `vocab.txt` or `tokenizer.json`,
            and optionally `preprocessor_config.json`.
        device: Device of the model.

    Raises:
        InputError: The folder does not contain a complete Chinese CLIP.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        from transformers import BertTokenizer, ChineseCLIPModel
        from transformers.utils import logging

        quiet: Any = logging.disable_progress_bar  # it is shown even without a terminal
        quiet()
        clip: Any = ChineseCLIPModel  # its type hints lack output_loading_info
        try:
            model, about = clip.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
            self.tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises many types here
            reason = str(error).strip().partition("\n")[0][:200]
            raise InputError(f"{folder} cannot be loaded as a Chinese CLIP: {reason}") from None
        missing = sorted(about["missing_keys"])
        if missing:
            raise InputError(
                f"{folder} lacks {len(missing)} of a Chinese CLIP's tensors, the first is "
                f"{missing[0]}."
            )
        words = model.config.text_config.vocab_size
        if len(self.tokenizer) != words:
            raise InputError(
                f"{folder}: the tokenizer has {len(self.tokenizer)} tokens, the model {words}. "
                "Copy the model's own vocab.txt there."
            )
        self.model = model.eval().to(device).requires_grad_(False)
        self.device = torch.device(device)
        self.folder = folder
        preprocessor = folder / "preprocessor_config.json"
        settings = read_json(preprocessor) if preprocessor.exists() else {}
        self.side = int(model.config.vision_config.image_size)
        self._mean = torch.tensor(settings.get("image_mean", _MEAN))[:, None, None]
        self._std = torch.tensor(settings.get("image_std", _STD))[:, None, None]

    @property
    def fingerprint(self) -> str:
        """Digest of the files of the folder."""
        return fingerprint(self.folder)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Return unit vectors (N, E) of texts, truncated to 52 tokens."""
        limit = min(_TEXT_LEN, self.model.config.text_config.max_position_embeddings)
        found = []
        for begin in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                list(texts[begin : begin + batch_size]),
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(self.device)
            found.append(self.model.get_text_features(**tokens).pooler_output)
        return _unit(torch.cat(found))

    @torch.inference_mode()
    def images(self, images: Iterable[NDArray[np.uint8]], batch_size: int = 32) -> Tensor:
        """Return unit vectors (N, E) of images (H, W, 3), each resized to CLIP's square input."""
        found, waiting = [], []
        for pixels in images:
            waiting.append(self._prepare(pixels))
            if len(waiting) == batch_size:
                found.append(self._image_features(waiting))
                waiting = []
        if waiting:
            found.append(self._image_features(waiting))
        return _unit(torch.cat(found)) if found else torch.zeros(0, 1)

    def _image_features(self, waiting: list[Tensor]) -> Tensor:
        features: Tensor = self.model.get_image_features(torch.stack(waiting).to(self.device))
        pooled: Tensor = features.pooler_output  # type: ignore[attr-defined]
        return pooled

    def _prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        from PIL import Image

        size = (self.side, self.side)
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3, S, S)
        return (x - self._mean) / self._std


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu()
