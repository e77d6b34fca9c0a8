"""FID, KID and IS: the formulas, and the Inception statistics of a set of images.

    n images of a set   D width of the features (2048)   V classes (1008)

FID (Heusel et al. 2017): squared Fréchet distance of two Gaussians with the sets' means and
covariances. It is biased: fewer images give a higher FID, so compare only at equal n.
KID (Bińkowski et al. 2018): unbiased squared maximum mean discrepancy under the kernel
(x.y / D + 1)^3, mean over random subsets.
IS (Salimans et al. 2016): exp of the mean divergence of p(class | image) from p(class), over
splits. It uses no reference: a model with one perfect image per class gets the best score.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from artist.evaluation.config import FID_LIKE, EvaluateConfig
from artist.evaluation.image_sets import CaptionedImage
from artist.evaluation.inception import SIDE, Loaded
from artist.models.image_tokenizer import channels_last
from data.errors import ConfigError, InputError
from data.runs import atomic
from data.seeds import stream

SMALL = 2000  # images; figures from fewer are marked


class Spread(NamedTuple):
    """Mean and standard deviation over subsets or splits; not a confidence interval."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the figures depend on in addition to the images. Field names are JSON keys.

    Attributes:
        weights: sha256 of the weights file; empty if unknown.
        like: The tool whose resizing and normalisation is used; see `prepare`.
        crop: How images were cropped before.
    """

    weights: str
    like: str
    crop: str


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Inception statistics of a set of images.

    Attributes:
        n: Number of images.
        mean: Mean of the features, (D,) float64.
        covariance: Unbiased, (D, D) float64.
        features: (n, D) float32; empty (0, D) if loaded from a file with mean and covariance only.
        logits: (n, V) float32, for IS; not stored in files.
        settings: How they were computed.
    """

    n: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    settings: Settings


def prepare(pixels: NDArray[np.uint8], like: str) -> Tensor:
    """Convert an image (H, W, 3) to the network's input (3, 299, 299), about [-1, 1].

    pytorch-fid: bilinear between pixel centres, without antialiasing; 2 x / 255 - 1.
    clean-fid: Pillow's bicubic with antialiasing, in floats (Parmar et al. 2022); (x - 128) / 128.
    torch-fidelity: bilinear between pixel corners, as in TensorFlow 1; (x - 128) / 128.
    """
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float()  # (3, H, W)
    if like == "pytorch-fid":
        size = (SIDE, SIDE)
        x = F.interpolate(x[None] / 255, size, mode="bilinear", align_corners=False)[0]
        return 2 * x - 1
    if like == "clean-fid":
        return (_resize_by_pillow(pixels) - 128) / 128
    if like == "torch-fidelity":
        rows, columns = (_between_corners(size) for size in x.shape[1:])
        return (rows @ x @ columns.mT - 128) / 128
    raise ConfigError(f"{like!r} is unknown; use one of {', '.join(FID_LIKE)}.")


def _resize_by_pillow(pixels: NDArray[np.uint8]) -> Tensor:
    from PIL import Image

    bands = [Image.fromarray(pixels[..., n].astype(np.float32)) for n in range(3)]
    resized = [np.asarray(b.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for b in bands]
    return torch.from_numpy(np.stack(resized))


def _between_corners(size: int) -> Tensor:
    """Return weights (299, size) of linear interpolation with pixel 0 at 0, not at one half."""
    position = torch.arange(SIDE, dtype=torch.float64) * (size / SIDE)
    below = position.floor().long().clamp(max=size - 1)
    above = (below + 1).clamp(max=size - 1)
    share = position - below
    weights = torch.zeros(SIDE, size, dtype=torch.float64)
    weights.scatter_add_(1, below[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, above[:, None], share[:, None])
    return weights.float()


@torch.inference_mode()
def measure_images(
    images: Iterable[CaptionedImage],
    inception: Loaded,
    *,
    crop: str,
    like: str = FID_LIKE[0],
    batch_size: int = 32,
    label: str = "images",
) -> Statistics:
    """Compute the Inception statistics of a set of images.

    Args:
        images: In any order and of any size.
        inception: On its device.
        crop: Description of how the images were cropped.
        like: See `prepare`.
        batch_size: Images per batch.
        label: Label of the progress bar.
    """
    network = inception.network
    device = next(network.parameters()).device
    channels_last(network)  # 1.4 times as fast on a CPU
    pooled, logits = [], []
    bar = tqdm(desc=f"inception, {label}", unit="image", leave=False, disable=None)
    for batch in _batches((prepare(p.pixels, like) for p in images), batch_size):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # as exact as on CPUs
            found = network(batch.to(device, memory_format=torch.channels_last))
        pooled.append(found.pooled.float().cpu().numpy())
        logits.append(found.logits.float().cpu().numpy())
        bar.update(len(batch))
    bar.close()
    return statistics(
        np.concatenate(pooled),
        np.concatenate(logits),
        Settings(weights=inception.sha256, like=like, crop=crop),
    )


def _batches(images: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    waiting = []
    for image in images:
        waiting.append(image)
        if len(waiting) == size:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)


def statistics(
    features: NDArray[np.float32], logits: NDArray[np.float32], settings: Settings
) -> Statistics:
    """Return the statistics of features (n, D) of two or more images.

    Raises:
        InputError: There are fewer than two.
    """
    if len(features) < 2:
        raise InputError("one image has no covariance: give at least two, better thousands.")
    wide = features.astype(np.float64)
    return Statistics(
        n=len(features),
        mean=wide.mean(0),
        covariance=np.cov(wide, rowvar=False),
        features=features,
        logits=logits,
        settings=settings,
    )


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return FID: |m - m'|^2 + tr(C + C' - 2 (C C')^1/2), at least zero."""
    n, m = len(a.features), len(b.features)
    low_rank = n > 0 and m > 0 and n + m < len(a.mean)
    cross = _cross_of_features(a, b) if low_rank else _cross_of_covariances(a, b)
    distance = ((a.mean - b.mean) ** 2).sum()
    distance += np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(max(distance, 0.0))


def _cross_of_covariances(a: Statistics, b: Statistics) -> float:
    """Return tr (C C')^1/2 from the eigenvalues of C^1/2 C' C^1/2, a symmetric matrix.

    Unlike `scipy.linalg.sqrtm` of C C' this needs no complex numbers, and no constant added to
    singular covariances.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    return float(np.sqrt(product.clip(min=0)).sum())


def _cross_of_features(a: Statistics, b: Statistics) -> float:
    """Return the same as the sum of the singular values of X X'^T, where C = X^T X.

    X are centred features. With fewer images than dimensions this (n, n') matrix is a hundred
    times faster.
    """
    x, y = ((s.features - s.mean) / np.sqrt(s.n - 1) for s in (a, b))
    return float(np.linalg.svd(x @ y.T, compute_uv=False).sum())


def kernel_distance(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    *,
    subsets: int = EvaluateConfig.kid_subsets,
    subset_size: int = EvaluateConfig.kid_subset_size,
    seed: int = 0,
) -> Spread:
    """Return KID of features (n, D) and (m, D) over random subsets without replacement.

    The subsets are no larger than the smaller set.
    """
    size = min(subset_size, len(a), len(b))
    rng = np.random.default_rng(stream(seed, "kid"))
    found = []
    for _ in range(subsets):
        x, y = (f[rng.choice(len(f), size, replace=False)].astype(np.float64) for f in (a, b))
        found.append(_discrepancy(x, y))
    return Spread(float(np.mean(found)), float(np.std(found)))


def _discrepancy(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the unbiased squared maximum mean discrepancy of two samples (n, D)."""
    n, D = x.shape
    xx, yy, xy = ((s @ t.T / D + 1) ** 3 for s, t in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def inception_score(
    logits: NDArray[np.float32], *, splits: int = EvaluateConfig.is_splits, seed: int = 0
) -> Spread:
    """Return IS of shuffled logits (n, V) over `splits` equal parts, at most n."""
    order = np.random.default_rng(stream(seed, "is")).permutation(len(logits))
    shuffled = torch.from_numpy(logits[order]).double()
    found = []
    for part in shuffled.tensor_split(min(splits, len(logits))):
        log_p = part.log_softmax(1)
        log_mean = log_p.logsumexp(0) - math.log(len(part))
        found.append(math.exp(float((log_p.exp() * (log_p - log_mean)).sum(1).mean())))
    return Spread(float(np.mean(found)), float(np.std(found)))


@dataclass(frozen=True, kw_only=True)
class ImageMetrics:
    """FID, KID and IS of a set of images, with their settings. Field names are JSON keys.

    Attributes:
        fid: Fréchet Inception distance.
        kid: Kernel Inception distance over subsets; None if the reference file has no features.
        inception_score: Of the images, without the reference.
        n: Number of images.
        n_reference: Number of images of the reference.
        kid_subsets: Number of subsets.
        kid_subset_size: Images per subset.
        is_splits: Number of splits of the images.
        settings: How the images were prepared.
        settings_reference: How the reference was prepared.
        published_weights: Whether the weights are the published file, by hash.
    """

    fid: float
    kid: Spread | None
    inception_score: Spread
    n: int
    n_reference: int
    kid_subsets: int
    kid_subset_size: int
    is_splits: int
    settings: Settings
    settings_reference: Settings
    published_weights: bool

    @property
    def small(self) -> bool:
        """Whether there are too few images for figures comparable with published ones."""
        return min(self.n, self.n_reference) < SMALL


def compare(
    images: Statistics,
    reference: Statistics,
    *,
    published: bool,
    config: EvaluateConfig | None = None,
) -> ImageMetrics:
    """Compute FID, KID and IS of a set of images against a reference.

    Raises:
        InputError: Weights or resizing of the two differ.
    """
    config = config or EvaluateConfig()
    ours, theirs = images.settings, reference.settings
    if len(reference.mean) != len(images.mean):
        raise InputError(
            f"the reference statistics have {len(reference.mean)} dimensions, Inception's features "
            f"{len(images.mean)}. Measure the reference again from its images."
        )
    for name, what in (
        ("weights", "with other Inception weights"),
        ("like", "with other resizing"),
    ):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if other and mine != other:
            raise InputError(
                f"the reference statistics were computed {what} ({other[:16]}, the images "
                f"{mine[:16]}). Measure the reference again from its images."
            )
    kid = None
    if len(reference.features):
        kid = kernel_distance(
            images.features,
            reference.features,
            subsets=config.kid_subsets,
            subset_size=config.kid_subset_size,
            seed=config.seed,
        )
    return ImageMetrics(
        fid=frechet_distance(images, reference),
        kid=kid,
        inception_score=inception_score(images.logits, splits=config.is_splits, seed=config.seed),
        n=images.n,
        n_reference=reference.n,
        kid_subsets=config.kid_subsets,
        kid_subset_size=min(config.kid_subset_size, images.n, reference.n),
        is_splits=min(config.is_splits, images.n),
        settings=ours,
        settings_reference=theirs,
        published_weights=published,
    )


def save_statistics(path: Path, found: Statistics) -> None:
    """Write statistics as `.npz`: pytorch-fid's `mu` and `sigma`, the features, and metadata."""
    about = {"n": found.n, **asdict(found.settings)}
    with atomic(path, "wb") as file:
        np.savez(
            file,
            mu=found.mean,
            sigma=found.covariance,
            features=found.features,
            about=np.array(json.dumps(about)),
        )


def load_statistics(path: Path) -> Statistics:
    """Load statistics of `save_statistics`, or pytorch-fid's `mu` and `sigma` alone (n is then 0).

    Raises:
        InputError: The file is neither.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        mean, covariance = found["mu"].astype(np.float64), found["sigma"].astype(np.float64)
        about = json.loads(str(found["about"])) if "about" in found else {}
    except Exception as error:  # numpy and zipfile raise many types
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(
            f"{path} does not contain image statistics ({reason}). Expected an .npz with mu and "
            "sigma."
        ) from None
    D = len(mean)
    if covariance.shape != (D, D) or not np.isfinite(covariance).all():
        raise InputError(f"{path}: sigma must be finite and {D}x{D}, found {covariance.shape}.")
    return Statistics(
        n=int(about.get("n", 0)),
        mean=mean,
        covariance=covariance,
        features=found.get("features", np.zeros((0, D), dtype=np.float32)),
        logits=np.zeros((0, 0), dtype=np.float32),
        settings=Settings(
            weights=about.get("weights", ""), like=about.get("like", ""), crop=about.get("crop", "")
        ),
    )
