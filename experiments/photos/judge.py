"""The judge of photographs: a small CNN and simple features, both of all classes' photographs.

    N images   C classes   D width of the CNN's features

The CNN learns to name the class of a real photograph, for all classes of the folder, also those
that the models never see. It is trained once per folder, and no model is trained on it. Superclass
and group follow from its class probabilities; the groups of simple features from a ridge regression
on the same photographs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from artist.formats.state_dict import load_strict, read_state
from artist.models.image_tokenizer import channels_last, from_uint8
from artist.training.process_group import ProcessGroup
from artist.training.task import Phase, Task
from artist.training.trainer import Trainer, TrainerConfig
from data.device import choose_device
from data.runs import Run, StageReport
from data.seeds import stream
from experiments.photos.config import PhotosConfig
from experiments.photos.features import image_features
from experiments.photos.measures import ClassShares, Floats, MeansR2, Measure, PairAUC
from experiments.photos.photo_folder import TRAIN, VAL, PhotoFolder, decode_photographs

NETWORK = "judge.safetensors"
FEATURES = "features.safetensors"
_BATCH = 64
_SHIFT = 6  # pixels that training images are shifted by at most, of 64
_LEAST_STD = 0.1  # smallest standard deviation of a feature, as a share of their mean
_RIDGE = 100.0  # regularisation of the ridge regression; features have a variance of 1
Pixels = NDArray[np.uint8]


class JudgeNetwork(nn.Module):
    """Four stages of convolutions and a linear layer, from images (N, 3, H, W) to logits (N, C)."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                       nn.BatchNorm2d(after), nn.ReLU(inplace=True)]  # fmt: skip
            if before > 3:
                layers += [nn.Conv2d(after, after, 3, padding=1, bias=False),
                           nn.BatchNorm2d(after), nn.ReLU(inplace=True)]  # fmt: skip
        self.stages = nn.Sequential(*layers)
        self.classify = nn.Linear(widths[-1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the features (N, D) before the last layer."""
        found: Tensor = self.stages(images).mean(dim=(2, 3))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return the class logits."""
        logits: Tensor = self.classify(self.features(images))
        return logits


@dataclass(frozen=True)
class LabelledImages:
    """Images (B, 3, H, W) in [-1, 1] and class numbers (B,)."""

    images: Tensor
    labels: Tensor

    @property
    def num_rows(self) -> int:
        """Images of the batch."""
        return len(self.images)

    def to(self, device: torch.device) -> "LabelledImages":
        """Return the batch on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


class ClassLoss(nn.Module):
    """Cross-entropy of the classes, with label smoothing."""

    def __init__(self, network: JudgeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: LabelledImages) -> Tensor:
        """Return a scalar."""
        logits = self.network(batch.images).float()
        return F.cross_entropy(logits, batch.labels, label_smoothing=0.1)


class JudgeTask(Task):
    """The CNN, trained on photographs that are mirrored, shifted and blurred at random.

    Half of them are blurred: what a VQGAN decodes lacks detail, and all images to judge come from
    one.

    Args:
        pixels: Photographs (N, H, W, 3).
        labels: Their class numbers (N,).
        config: Steps and width.
        device: Where to train.
    """

    model: JudgeNetwork

    def __init__(
        self, pixels: Pixels, labels: NDArray[np.int64], config: PhotosConfig, device: torch.device
    ) -> None:
        self.pixels, self.labels, self.config = pixels, labels, config
        self.processes, self.batch_size = ProcessGroup(device), _BATCH
        torch.manual_seed(stream(0, "judge"))
        self.model = JudgeNetwork(int(labels.max()) + 1, config.judge_width)
        channels_last(self.model.to(device))
        self.modules = nn.ModuleDict({"judge": self.model})
        self.learning_rate = 2e-3
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.learning_rate, weight_decay=0.05
        )
        self.optimizers = [self.optimizer]
        self._phase = Phase(ClassLoss(self.model), list(self.model.parameters()), self.optimizers)

    def phases(self, step: int) -> Sequence[Phase]:
        """Return the only phase."""
        return [self._phase]

    def batches(self, step: int) -> Sequence[LabelledImages]:
        """Return photographs sampled with replacement."""
        rng = np.random.default_rng(stream(0, "judge", step))
        chosen = rng.integers(len(self.pixels), size=self.batch_size)
        pixels = self.pixels[chosen]
        most = max(1, _SHIFT * pixels.shape[1] // 64)
        padded = np.pad(pixels, ((0, 0), (most, most), (most, most), (0, 0)), mode="reflect")
        H, W = pixels.shape[1:3]
        for n, (y, x) in enumerate(rng.integers(2 * most + 1, size=(len(pixels), 2)).tolist()):
            pixels[n] = padded[n, y : y + H, x : x + W]
        mirrored = rng.random(len(pixels)) < 0.5
        pixels[mirrored] = pixels[mirrored, :, ::-1]
        images, blurred = _to_images(pixels), torch.from_numpy(rng.random(len(pixels)) < 0.5)
        half = F.avg_pool2d(images[blurred], 2)
        images[blurred] = F.interpolate(half, scale_factor=2.0, mode="bilinear")
        return [LabelledImages(images, torch.from_numpy(self.labels[chosen]))]

    def set_learning_rates(self, step: int) -> float:
        """Set a linear warm-up over a tenth of the steps, then half a cosine."""
        done = step / self.config.judge_steps
        rate = self.learning_rate * min(10 * (done + 1 / self.config.judge_steps), 1.0)
        rate *= 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def validate(self, step: int, dtype: torch.dtype) -> dict[str, float]:
        """Return nothing: the weights of the last step are kept."""
        return {}


@dataclass(frozen=True, kw_only=True)
class JudgeReport(StageReport):
    """Accuracy of the CNN on the test photographs of all classes."""

    class_accuracy: float
    photographs: int

    def __str__(self) -> str:
        return (
            f"{self.outcome()}: the class of {100 * self.class_accuracy:.1f} % of "
            f"{self.photographs} test photographs is right"
        )


def train_judge(
    folder: PhotoFolder, out: Path, *, config: PhotosConfig, device: str, overwrite: bool
) -> JudgeReport:
    """Train the CNN and compute the features of all photographs; a finished judge is kept.

    Args:
        folder: The photographs.
        out: The folder to write: network and features.
        config: Resolution, steps and width.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace the judge of another folder or of other settings.

    Raises:
        ToolkitError: A photograph cannot be decoded, or another output exists.
        Interrupted: SIGINT or SIGTERM; the same call resumes.
    """
    settings = {
        "resolution": config.resolution,
        "steps": config.judge_steps,
        "width": config.judge_width,
    }
    inputs = {"photographs": folder.fingerprint}
    with Run.open(
        out, kind="photo judge", settings=settings, inputs=inputs, overwrite=overwrite
    ) as run:
        if run.finished:
            return JudgeReport(out=out, **run.finished.counts, already_finished=True)
        on = choose_device(device)
        train, labels = load_pixels(folder, TRAIN, config.resolution)
        task = JudgeTask(train, labels, config, on)
        trainer = Trainer(task, TrainerConfig(total_steps=config.judge_steps), run.work)
        trainer.run()
        val, val_labels = load_pixels(folder, VAL, config.resolution)
        network = task.model.eval()
        deep, _ = _run(network, train)
        val_deep, val_logits = _run(network, val)
        save_file(
            {
                "train.labels": labels, "train.simple": image_features(train), "train.deep": deep,
                "val.labels": val_labels, "val.simple": image_features(val), "val.deep": val_deep,
                "val.logits": val_logits,
            },
            run.work / FEATURES,
        )  # fmt: skip
        state = {k: v.cpu().contiguous().numpy() for k, v in network.state_dict().items()}
        save_file(state, run.work / NETWORK)
        trainer.checkpoints.clear()
        counts: dict[str, Any] = {
            "class_accuracy": float((val_logits.argmax(1) == val_labels).mean()),
            "photographs": len(val),
        }
        run.finish(counts)
    return JudgeReport(out=out, **counts)


def load_pixels(folder: PhotoFolder, split: str, size: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Decode all photographs of a split: pixels (N, H, W, 3) and class numbers (N,)."""
    by_class = folder.photographs(split)
    labels = np.repeat(np.arange(len(by_class)), [len(found) for found in by_class])
    return decode_photographs((one for found in by_class for one in found), size), labels


class Judge:
    """The measures of images of some classes.

    Args:
        path: The folder that `train_judge` wrote.
        folder: The photographs it was trained on.
        config: The same settings.
    """

    def __init__(self, path: Path, folder: PhotoFolder, config: PhotosConfig) -> None:
        found = load_file(path / FEATURES)
        self.labels, self.test_labels = found["train.labels"], found["val.labels"]
        self.test_logits = found["val.logits"]
        self.network = JudgeNetwork(len(folder.classes), config.judge_width).eval()
        advice = "Train the judge again with --overwrite."
        load_strict(self.network, read_state(path / NETWORK, "cannot be read", advice), str(path))
        self._scales = {kind: _Scale.of(found[f"train.{kind}"]) for kind in ("simple", "deep")}
        self.means = {
            kind: self._class_means(scale.apply(found[f"train.{kind}"]), self.labels)
            for kind, scale in self._scales.items()
        }
        self._test = {kind: found[f"val.{kind}"] for kind in self._scales}
        self.superclass = _numbers([c.superclass for c in folder.classes])
        self.group = _numbers([c.group for c in folder.classes])
        simple = self._scales["simple"].apply(found["train.simple"])
        targets = np.eye(int(self.group.max()) + 1)[self.group[self.labels]]
        self.ridge = Ridge(alpha=_RIDGE).fit(simple, targets)

    def measure(self, images: Pixels, labels: NDArray[np.int64]) -> dict[str, Measure]:
        """Return the measures of images (N, H, W, 3) of classes (N,), by name.

        The classes of the images, in ascending order, are those that are compared.
        """
        deep, logits = _run(self.network, images)
        return self._measures({"simple": image_features(images), "deep": deep}, logits, labels)

    def measure_photographs(self, classes: NDArray[np.int64], count: int) -> dict[str, Measure]:
        """Return the measures of up to `count` test photographs of each of the classes."""
        chosen = np.concatenate([np.flatnonzero(self.test_labels == c)[:count] for c in classes])
        features = {kind: values[chosen] for kind, values in self._test.items()}
        return self._measures(features, self.test_logits[chosen], self.test_labels[chosen])

    def _measures(
        self, features: dict[str, NDArray[np.float32]], logits: Floats, labels: NDArray[np.int64]
    ) -> dict[str, Measure]:
        classes = np.unique(labels)
        scaled = {kind: self._scales[kind].apply(values) for kind, values in features.items()}
        means = {kind: self._class_means(values, labels) for kind, values in scaled.items()}
        real = {kind: values[classes] for kind, values in self.means.items()}
        ridge = self.ridge.predict(scaled["simple"]).argmax(1)

        def share(right: NDArray[np.bool_]) -> ClassShares:
            return ClassShares(self._class_means(right[:, None].astype(float), labels)[:, 0])

        return {
            "auc_simple": PairAUC.of_means(means["simple"], real["simple"]),
            "auc_cnn": PairAUC.of_means(means["deep"], real["deep"]),
            "r2_simple": MeansR2(means["simple"], real["simple"]),
            "group_cnn": share(_most_likely(logits, self.group) == self.group[labels]),
            "superclass_cnn": share(
                _most_likely(logits, self.superclass) == self.superclass[labels]
            ),
            "group_ridge": share(ridge == self.group[labels]),
        }

    def _class_means(self, values: Floats, labels: NDArray[np.int64]) -> Floats:
        """Return the mean of values (N, F) for each class that occurs, ascending: (n, F)."""
        return np.stack([values[labels == c].mean(0) for c in np.unique(labels)])


@dataclass(frozen=True)
class _Scale:
    """Mean and standard deviation of features (F,) over the training photographs."""

    mean: Floats
    std: Floats

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "_Scale":
        wide = values.astype(np.float64)
        std = wide.std(0)
        # Features that hardly vary, such as the share of a rare colour, would outweigh all others.
        return cls(wide.mean(0), np.maximum(std, _LEAST_STD * std.mean()))

    def apply(self, values: NDArray[np.float32]) -> Floats:
        return np.asarray((values - self.mean) / self.std)


def _numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each name among the different names."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _most_likely(logits: Floats, parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most likely parent (N,) of class logits (N, C); class c belongs to parent[c]."""
    exp = np.exp(logits - logits.max(1, keepdims=True))
    sums = exp @ np.eye(int(parent.max()) + 1)[parent]
    return np.asarray(sums.argmax(1))


@torch.inference_mode()
def _run(network: JudgeNetwork, pixels: Pixels) -> tuple[NDArray[np.float32], Floats]:
    """Return features (N, D) and logits (N, C) of images (N, H, W, 3)."""
    device = next(network.parameters()).device
    parts = []
    for begin in range(0, len(pixels), 256):
        deep = network.features(_to_images(pixels[begin : begin + 256]).to(device))
        parts.append((deep.float().cpu().numpy(), network.classify(deep).float().cpu().numpy()))
    return np.concatenate([deep for deep, _ in parts]), np.concatenate([out for _, out in parts])


def _to_images(pixels: Pixels) -> Tensor:
    """Return images (N, 3, H, W) in [-1, 1] of pixels (N, H, W, 3)."""
    return from_uint8(torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2))
