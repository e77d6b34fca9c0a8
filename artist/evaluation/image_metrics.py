"""FID, KID and IS from Inception's features: formulas, and the statistics of a set of pictures.

    n pictures of a set   D width of the features (2048)   V classes (1008)

FID (Heusel et al. 2017): squared Fréchet distance of two Gaussians with the sets' means and
covariances. It is biased: fewer pictures give a larger figure, so figures compare only at equal n.
KID (Bińkowski et al. 2018): unbiased squared maximum mean discrepancy under the kernel
(x.y / D + 1)^3, mean over random subsets.
IS (Salimans et al. 2016): exp of the mean divergence of p(class | picture) from p(class), over
splits. It knows no reference: a model that draws one perfect picture of each class wins.
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

from artist.evaluation.config import FID_LIKE
from artist.evaluation.image_sets import Picture
from artist.evaluation.inception import SIDE, Loaded
from artist.models.image_tokenizer import channels_last
from data.errors import ConfigError, InputError
from data.runs import atomic
from data.seeds import stream

SMALL = 2000  # pictures; figures from fewer are marked
KID_SUBSETS, KID_SUBSET_SIZE, IS_SPLITS = 100, 1000, 10


class Spread(NamedTuple):
    """A mean over subsets or splits and their standard deviation: not an interval of the truth."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What figures depend on, besides the pictures.

    Attributes:
        weights: sha256 of the file of weights; empty where it is not known.
        like: Whose resizing and normalisation: see `prepare`.
        crop: How pictures were cut before.
    """

    weights: str
    like: str
    crop: str


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What FID and KID need of a set of pictures.

    Attributes:
        n: Pictures.
        mean: Of the features, (D,) float64.
        covariance: Unbiased, (D, D) float64.
        features: (n, D) float32; empty (0, D) in files that hold only mean and covariance.
        logits: (n, V) float32, for IS; empty in files.
        settings: How they were made.
    """

    n: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    settings: Settings


def prepare(pixels: NDArray[np.uint8], like: str) -> Tensor:
    """A picture (H, W, 3) as the network sees it: (3, 299, 299), about [-1, 1].

    pytorch-fid: bilinear between pixel centres, without antialiasing; 2 x / 255 - 1.
    clean-fid: Pillow's bicubic with antialiasing, in floats (Parmar et al. 2022); (x - 128) / 128.
    torch-fidelity: bilinear as TensorFlow 1 did it, between pixel corners; (x - 128) / 128.
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
    raise ConfigError(f"{like!r} is not known; use one of {', '.join(FID_LIKE)}.")


def _resize_by_pillow(pixels: NDArray[np.uint8]) -> Tensor:
    from PIL import Image

    bands = [Image.fromarray(pixels[..., n].astype(np.float32)) for n in range(3)]
    resized = [np.asarray(b.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for b in bands]
    return torch.from_numpy(np.stack(resized))


def _between_corners(size: int) -> Tensor:
    """Weights (299, size) of linear interpolation where pixel 0 lies at 0, not at a half."""
    place = torch.arange(SIDE, dtype=torch.float64) * (size / SIDE)
    below = place.floor().long().clamp(max=size - 1)
    above = (below + 1).clamp(max=size - 1)
    share = place - below
    weights = torch.zeros(SIDE, size, dtype=torch.float64)
    weights.scatter_add_(1, below[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, above[:, None], share[:, None])
    return weights.float()


@torch.inference_mode()
def measure_pictures(
    pictures: Iterable[Picture],
    inception: Loaded,
    *,
    crop: str,
    like: str = FID_LIKE[0],
    batch_size: int = 32,
    label: str = "pictures",
) -> Statistics:
    """Features of pictures and their statistics.

    Args:
        pictures: In any order and of any sizes.
        inception: On its device.
        crop: What was done to the pictures before, in words.
        like: See `prepare`.
        batch_size: Pictures that go through the network at once.
        label: For the bar.
    """
    network = inception.network
    device = next(network.parameters()).device
    channels_last(network)  # 1.4 times as fast on a CPU
    pooled, logits = [], []
    bar = tqdm(desc=f"inception, {label}", unit="picture", leave=False, disable=None)
    for batch in _batches((prepare(p.pixels, like) for p in pictures), batch_size):
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


def _batches(pictures: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    waiting = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) == size:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)


def statistics(
    features: NDArray[np.float32], logits: NDArray[np.float32], settings: Settings
) -> Statistics:
    """Mean and covariance of features (n, D), of two pictures or more.

    Raises:
        InputError: There is only one.
    """
    if len(features) < 2:
        raise InputError("one picture has no covariance: give at least two, better thousands.")
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
    """|m - m'|^2 + tr(C + C' - 2 (C C')^1/2), never below zero."""
    n, m = len(a.features), len(b.features)
    few = n > 0 and m > 0 and n + m < len(a.mean)
    cross = _cross_of_features(a, b) if few else _cross_of_covariances(a, b)
    distance = ((a.mean - b.mean) ** 2).sum()
    distance += np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(max(distance, 0.0))


def _cross_of_covariances(a: Statistics, b: Statistics) -> float:
    """Tr (C C')^1/2: the roots of the eigenvalues of C^1/2 C' C^1/2, a symmetric matrix.

    So there are no complex numbers, and nothing is added to singular covariances.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    return float(np.sqrt(product.clip(min=0)).sum())


def _cross_of_features(a: Statistics, b: Statistics) -> float:
    """The same as the sum of the singular values of X X'^T, for centred features C = X^T X.

    An (n, n') matrix: with fewer pictures than dimensions a hundred times quicker.
    """
    x, y = ((s.features - s.mean) / np.sqrt(s.n - 1) for s in (a, b))
    return float(np.linalg.svd(x @ y.T, compute_uv=False).sum())


def kernel_distance(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    *,
    subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
    seed: int = 0,
) -> Spread:
    """KID of features (n, D) and (m, D): over random subsets, each without repetition.

    A set that is smaller than `subset_size` sets the size of the subsets.
    """
    size = min(subset_size, len(a), len(b))
    rng = np.random.default_rng(stream(seed, "kid"))
    found = []
    for _ in range(subsets):
        x, y = (f[rng.choice(len(f), size, replace=False)].astype(np.float64) for f in (a, b))
        found.append(_discrepancy(x, y))
    return Spread(float(np.mean(found)), float(np.std(found)))


def _discrepancy(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Unbiased squared maximum mean discrepancy of two samples (n, D) of equal size."""
    n, D = x.shape
    xx, yy, xy = ((s @ t.T / D + 1) ** 3 for s, t in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def inception_score(
    logits: NDArray[np.float32], *, splits: int = IS_SPLITS, seed: int = 0
) -> Spread:
    """IS of logits (n, V), shuffled, over splits of equal size; fewer where there are too few."""
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
    """Figures of one set of pictures against another, and all that they depend on.

    Attributes:
        fid: Fréchet Inception distance.
        kid: Its mean and standard deviation over subsets; None where the reference is a file
            without features.
        inception_score: Of the pictures, without the reference.
        n: Pictures measured.
        n_reference: Pictures of the reference.
        kid_subsets: How many subsets.
        kid_subset_size: Of how many pictures.
        is_splits: Into how many parts the pictures were dealt.
        settings: How the pictures were made to be seen by the network.
        settings_reference: The reference's.
        published_weights: Whether the weights are the published file, by its hash.
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
        """Whether too few pictures were measured for the figures to compare with others'."""
        return min(self.n, self.n_reference) < SMALL


def compare(
    pictures: Statistics,
    reference: Statistics,
    *,
    published: bool,
    subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
    splits: int = IS_SPLITS,
    seed: int = 0,
) -> ImageMetrics:
    """All figures of a set of pictures against a reference.

    Raises:
        InputError: The two were measured with other weights or resized otherwise.
    """
    ours, theirs = pictures.settings, reference.settings
    if len(reference.mean) != len(pictures.mean):
        raise InputError(
            f"the reference statistics have {len(reference.mean)} dimensions, Inception's features "
            f"{len(pictures.mean)}. Measure the reference again from its pictures."
        )
    for name, what in (("weights", "with other Inception weights"), ("like", "resized otherwise")):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if other and mine != other:
            raise InputError(
                f"the reference statistics were made {what} ({other[:16]}, the pictures "
                f"{mine[:16]}). Measure the reference again from its pictures."
            )
    kid = None
    if len(reference.features):
        kid = kernel_distance(
            pictures.features,
            reference.features,
            subsets=subsets,
            subset_size=subset_size,
            seed=seed,
        )
    return ImageMetrics(
        fid=frechet_distance(pictures, reference),
        kid=kid,
        inception_score=inception_score(pictures.logits, splits=splits, seed=seed),
        n=pictures.n,
        n_reference=reference.n,
        kid_subsets=subsets,
        kid_subset_size=min(subset_size, pictures.n, reference.n),
        is_splits=min(splits, pictures.n),
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
    """Statistics from `save_statistics`, or pytorch-fid's `mu` and `sigma` alone (n is then 0).

    Raises:
        InputError: The file holds neither.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        mean, covariance = found["mu"].astype(np.float64), found["sigma"].astype(np.float64)
        about = json.loads(str(found["about"])) if "about" in found else {}
    except Exception as error:  # numpy and zipfile raise many kinds here
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(
            f"{path} does not hold statistics of pictures ({reason}). Expected an .npz with mu and "
            "sigma."
        ) from None
    D = len(mean)
    if covariance.shape != (D, D) or not np.isfinite(covariance).all():
        raise InputError(f"{path}: sigma must be finite and {D}x{D}, it is {covariance.shape}.")
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
