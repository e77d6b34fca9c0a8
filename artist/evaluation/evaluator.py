"""Run every measurement that the given sources allow, and write one folder.

This module chooses the measurements and their order, and lists what was left out. The measurements
are in `likelihood`, `reconstruction`, `fid_kid_is` and `clip_score`, the output in
`evaluation_folder` and `report`.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artist.device import choose_dtype
from artist.evaluation.clip_score import TextMatch, match
from artist.evaluation.clusters import Clusters, class_file
from artist.evaluation.config import EvaluateConfig, Sources
from artist.evaluation.evaluation_folder import (
    REPORT,
    read_summary,
    write_captions,
    write_evaluation,
)
from artist.evaluation.examples import Part, clip_parts, likelihood_parts
from artist.evaluation.fid_kid_is import (
    ImageMetrics,
    Statistics,
    compare,
    load_statistics,
    measure_images,
    save_statistics,
)
from artist.evaluation.findings import Findings, NotMeasured
from artist.evaluation.image_sets import CaptionedImage, ImageSet
from artist.evaluation.inception import Loaded, load_inception
from artist.evaluation.inputs import Inputs, fingerprints
from artist.evaluation.likelihood import Likelihood, OtherGraph, measure_likelihood
from artist.evaluation.reconstruction import Reconstruction, decoded, measure_reconstruction
from artist.evaluation.report import write_report
from artist.evaluation.results import Evaluation, Unchanged
from artist.formats.predictions import IMAGES, PREDICTIONS, write_predictions
from artist.generation.artist_pipeline import Artist
from artist.generation.config import SamplingConfig
from artist.generation.image_files import generate_missing
from artist.generation.text_image_scorer import TextImageScorer, load_text_image_scorer
from artist.tables.untrained_tokens import untrained_tokens
from data.device import choose_device
from data.errors import ArtefactError, ConfigError
from data.kg_folder import ENTITY_NAMES, open_names, read_vectors
from data.runs import Run, fingerprint

_STATISTICS = ".npz"


def evaluate(
    sources: Sources,
    *,
    out: Path | None = None,
    save_reference: Path | None = None,
    config: EvaluateConfig | None = None,
    sampling: SamplingConfig | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> Evaluation | Unchanged:
    """Measure everything that the sources allow, and write it to `out` if given.

    Args:
        sources: Paths of what is measured.
        out: The folder to write.
        save_reference: File (`.npz`) for the reference's statistics, for later runs.
        config: How to measure.
        sampling: How to generate images.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace the output of another run.

    Raises:
        ToolkitError: Sources are missing or do not match.
    """
    config, sampling = config or EvaluateConfig(), sampling or SamplingConfig()
    inputs = Inputs(sources, choose_device(device))
    if out is not None:
        return _evaluate_to_folder(out, inputs, config, sampling, save_reference, overwrite)
    _check_statistics(sources, save_reference, overwrite)
    with tempfile.TemporaryDirectory() as work:
        evaluator = Evaluator(inputs, config, sampling, Path(work))
        found = evaluator.run(fingerprints(sources))
        evaluator.save_reference(save_reference)
    return found


def _evaluate_to_folder(
    out: Path,
    inputs: Inputs,
    config: EvaluateConfig,
    sampling: SamplingConfig,
    save_reference: Path | None,
    overwrite: bool,
) -> Evaluation | Unchanged:
    """Measure and write the folder `out`, unless an equal run has finished it."""
    sources, made_from = inputs.sources, fingerprints(inputs.sources)
    if (classes := class_file(config.cluster_by)) is not None:
        made_from["cluster_by"] = fingerprint(classes)
    settings = {**asdict(config), **sampling.as_dict(), "device": inputs.device.type}
    with Run.open(
        out, kind="evaluation", settings=settings, inputs=made_from, overwrite=overwrite
    ) as run:
        if run.finished and (save_reference is None or save_reference.exists()):
            return Unchanged(out=out, summary=read_summary(out))
        if run.finished:
            raise ArtefactError(
                f"{out} is finished and contains no statistics. To write {save_reference}, pass "
                "--overwrite, or leave out --out."
            )
        _check_statistics(sources, save_reference, overwrite)
        evaluator = Evaluator(inputs, config, sampling, run.work)
        found = replace(evaluator.run(made_from), out=out)
        write_evaluation(run.work, found)
        if sources.model is not None:
            write_captions(
                run.work, found, evaluator.inputs, evaluator.clip_of, evaluator.clusters.labels
            )
        write_report(run.work / REPORT, found, evaluator.examples(found))
        evaluator.save_reference(save_reference)
        run.finish({"warnings": len(found.warnings), "not_measured": len(found.not_measured)})
    return found


def _check_statistics(sources: Sources, path: Path | None, overwrite: bool) -> None:
    """Check the path for the reference's statistics before anything is measured."""
    if path is None:
        return
    if path.suffix != _STATISTICS:
        raise ConfigError(f"--save-reference {path} must end in {_STATISTICS}.")
    if sources.inception is None:
        raise ConfigError("--save-reference needs --inception FILE to measure the reference with.")
    if path.exists() and not overwrite:
        raise ArtefactError(f"{path} exists. Give it as --reference, or pass --overwrite.")


class Evaluator:
    """The steps of an evaluation.

    Args:
        inputs: What to measure.
        config: How to measure.
        sampling: How to generate images.
        work: A folder for generated images; existing ones are kept.

    Attributes:
        clip_of: 100 times the cosine similarity of each image and its caption, by idx.
    """

    def __init__(
        self, inputs: Inputs, config: EvaluateConfig, sampling: SamplingConfig, work: Path
    ) -> None:
        self.inputs, self.config, self.sampling, self.work = inputs, config, sampling, work
        self.sources = inputs.sources
        self.not_measured: list[NotMeasured] = []
        self.clip_of: dict[str, float] = {}
        self._of_reference: Statistics | None = None

    def run(self, inputs: dict[str, str]) -> Evaluation:
        """Run all steps in order of their cost; `inputs` are the fingerprints of the sources."""
        inception = self._inception()  # bad weights are refused before hours of work
        folder, device = self.sources.clip, self.inputs.device
        clip = load_text_image_scorer(folder, device) if folder is not None else None
        found: dict[str, Any] = {}
        if self.sources.model is not None:
            found["likelihood"] = self._likelihood()
            found["reconstruction"] = self._reconstruction()
        if inception is not None:
            found["images"], found["images_ceiling"] = self._images(inception)
        else:
            self._miss("FID, KID and IS", "--inception FILE (pt_inception-2015-12-05-6726825d.pth)")
        if clip is not None:
            found["match"], found["match_ceiling"] = self._match(clip)
        else:
            self._miss("text-image match (Chinese CLIP score, R-precision)", "--clip FOLDER")
        return Evaluation(
            sources=self.sources,
            inputs=inputs,
            config=self.config,
            sampling=self.sampling,
            findings=Findings(**found),
            not_measured=self.not_measured,
            warnings=self.inputs.warnings,
        )

    def save_reference(self, path: Path | None) -> None:
        """Write the statistics of the reference, if both `path` and a reference are given."""
        if path is not None and self._of_reference is not None:
            save_statistics(path, self._of_reference)

    def examples(self, evaluation: Evaluation) -> list[Part]:
        """Return captions with images for the report."""
        found, count, parts = evaluation.findings, self.config.examples, list[Part]()
        if self.clip_of:
            parts = clip_parts(self.images, self.inputs.captions, self.clip_of, count)
        if found.likelihood is not None:
            parts += likelihood_parts(
                self.inputs,
                found.likelihood,
                found.reconstruction,
                count=count,
                sampling=self.sampling,
                seed=self.config.seed,
            )
        return parts

    def _miss(self, what: str, how: str) -> None:
        self.not_measured.append(NotMeasured(what=what, how=how))

    def _inception(self) -> Loaded | None:
        if self.sources.inception is None:
            return None
        loaded = load_inception(self.sources.inception)
        loaded.network.to(self.inputs.device)
        if not loaded.published:
            self.inputs.warn(
                f"The Inception weights are not the published file (sha256 {loaded.sha256[:8]}…, "
                "expected 6726825d…): FID, KID and IS are not comparable with others."
            )
        return loaded

    def _likelihood(self) -> Likelihood:
        other = None
        if self.sources.other_kg is not None:
            other = OtherGraph(
                names=self.inputs.names,
                other_names=open_names(self.sources.other_kg / ENTITY_NAMES),
                vectors=read_vectors(self.sources.other_kg),
            )
        uses_entities = self.inputs.model.gpt.config.fusion != "none"
        seen = self.inputs.seen_entities if uses_entities else None
        if seen is None and uses_entities:
            self._miss("likelihood by whether entities occur in training", "--train-table TABLE")
        if other is None and uses_entities:
            self._miss("likelihood with another graph's vectors", "--other-kg FOLDER")
        tokenizer, trained = self.inputs.model.tokenizer, self.inputs.trained_tokens
        for caveat in (
            self.clusters.few,
            untrained_tokens(self.inputs.rows, tokenizer, trained),
        ):
            if caveat:
                self.inputs.warn(caveat)
        return measure_likelihood(
            self.inputs.model.gpt,
            self.inputs.rows,
            self.inputs.vectors,
            dtype=choose_dtype(self.config.precision, self.inputs.device),
            batch_size=self.config.batch_size,
            shuffles=self.config.shuffles,
            seed=self.config.seed,
            seen=seen,
            other=other,
            clusters=self.clusters,
        )

    def _reconstruction(self) -> Reconstruction | None:
        if not self.inputs.has_images:
            self._miss(
                "reconstruction by the image tokenizer",
                "a TABLE with images, not only codes (`artist encode --keep-images`)",
            )
            return None
        codes = self.inputs.rows.codes[self.inputs.first_rows]
        pixels = (image.pixels for image in self.inputs.originals())
        return measure_reconstruction(
            self.inputs.model.image_tokenizer,
            codes,
            pixels,
            self.config.batch_size,
            clusters=self.clusters.groups[self.inputs.first_rows, 0],
        )

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters of the table's captions."""
        return self.inputs.clusters(self.config.cluster_by)

    @cached_property
    def images(self) -> ImageSet:
        """The images to measure: those given, or generated ones."""
        if self.sources.pictures is not None:
            return ImageSet(path=self.sources.pictures)
        chosen = np.arange(len(self.inputs.rows))
        if self.config.draw is not None and self.config.draw < len(chosen):
            rng = np.random.default_rng(self.config.seed)
            chosen = np.sort(rng.permutation(chosen)[: self.config.draw])
        rows = self.inputs.rows.take(chosen)
        artist = Artist(self.inputs.model, self.inputs.vectors, precision="auto")
        files = generate_missing(
            artist,
            rows,
            self.work / IMAGES,
            num_images=1,
            sampling=self.sampling,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
        )
        write_predictions(self.work / PREDICTIONS, rows.idx, rows.texts, files)
        return ImageSet(path=self.work / PREDICTIONS)

    def _images(self, inception: Loaded) -> tuple[ImageMetrics | None, ImageMetrics | None]:
        self._of_reference = reference = self._reference(inception)
        if reference is None:
            self._miss("FID, KID and IS", "--reference FOLDER, TSV, table or statistics")
            return None, None
        crop = self.images.crop if self.sources.pictures is not None else self._square
        found = self._statistics(self.images, crop, inception, "images")
        self.inputs.warn_of_rejects(self.images)
        metrics, ceiling = self._compare(found, reference, inception), None
        if self.sources.model is not None and self.inputs.has_images:
            codes = self.inputs.rows.codes[self.inputs.first_rows]
            pixels = decoded(self.inputs.model.image_tokenizer, codes)
            decoded_images = (CaptionedImage("", None, p) for p in pixels)
            found = self._statistics(decoded_images, self._square, inception, "reconstructions")
            ceiling = self._compare(found, reference, inception)
        return metrics, ceiling

    def _reference(self, inception: Loaded) -> Statistics | None:
        given = self.sources.reference
        if given is not None and given.suffix == _STATISTICS:
            found = load_statistics(given)
            if not found.settings.weights:
                self.inputs.warn(f"{given} does not name its weights and resizing.")
            return found
        if given is not None:
            images = ImageSet(path=given)
            found = self._statistics(images, images.crop, inception, "reference")
            self.inputs.warn_of_rejects(images)
            return found
        if not self.inputs.has_images:
            return None
        if self.sources.model is None:
            assert self.sources.table is not None
            images = ImageSet(path=self.sources.table)
            return self._statistics(images, images.crop, inception, "reference")
        return self._statistics(self.inputs.originals(), self._square, inception, "reference")

    @property
    def _square(self) -> str:
        """The crop of the table's images for a model, and of generated images."""
        return f"centre square at {self.inputs.model.image_tokenizer.resolution} pixels"

    def _statistics(
        self, images: Iterable[CaptionedImage], crop: str, inception: Loaded, label: str
    ) -> Statistics:
        return measure_images(
            images,
            inception,
            crop=crop,
            like=self.config.fid_like,
            batch_size=self.config.batch_size,
            label=label,
        )

    def _compare(
        self, images: Statistics, reference: Statistics, inception: Loaded
    ) -> ImageMetrics:
        return compare(images, reference, published=inception.published, config=self.config)

    def _match(self, clip: TextImageScorer) -> tuple[TextMatch | None, TextMatch | None]:
        found, scores = self._match_images(clip, iter(self.images), "the images")
        self.inputs.warn_of_rejects(self.images)
        self.clip_of = scores
        ceiling = None
        if self.sources.model is not None and self.inputs.has_images:
            ceiling, _ = self._match_images(clip, self.inputs.originals(), "the table's images")
        return found, ceiling

    def _clusters_of(self, ids: Sequence[str]) -> NDArray[np.int64] | None:
        """Return the cluster of each idx (N,); None without a model or an idx's caption."""
        if self.sources.model is None:
            return None
        cluster_of = dict(zip(self.inputs.rows.idx, self.clusters.groups[:, 0], strict=True))
        if not cluster_of.keys() >= set(ids):
            return None
        return np.array([cluster_of[idx] for idx in ids], dtype=np.int64)

    def _match_images(
        self, clip: TextImageScorer, images: Iterator[CaptionedImage], what: str
    ) -> tuple[TextMatch | None, dict[str, float]]:
        """Return the match of images, and their scores by idx."""
        captions: list[str] = []
        ids: list[str] = []
        without_caption = 0

        def with_caption() -> Iterator[NDArray[np.uint8]]:
            nonlocal without_caption
            for image in images:
                text = image.text or self.inputs.captions.get(image.idx)
                if text is None:
                    without_caption += 1
                    continue
                captions.append(text)
                ids.append(image.idx)
                yield image.pixels

        embeddings = clip.images(with_caption(), self.config.batch_size)
        if not captions:
            self._miss(
                f"text-image match of {what}",
                "a TSV of idx, text and image, or a TABLE with the same idx",
            )
            return None, {}
        if without_caption:
            self.inputs.warn(f"{without_caption} of {what} have no caption and no score.")
        found, scores = match(
            embeddings,
            clip.texts(captions),
            captions,
            clip=clip.fingerprint,
            candidates=self.config.candidates,
            clusters=self._clusters_of(ids),
        )
        by_idx: dict[str, list[float]] = {}
        for idx, score in zip(ids, scores.tolist(), strict=True):
            by_idx.setdefault(idx, []).append(score)
        return found, {idx: float(np.mean(several)) for idx, several in by_idx.items()}
