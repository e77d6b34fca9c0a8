"""Generate images for matched prompts: a TSV, image files and a gallery.

Each image has its own seed, derived from the run's seed, the row's `idx` and the image's number. So
it can be generated again alone, and an interrupted run generates only the missing images.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artist.device import choose_dtype
from artist.formats.model_folder import read_seen_tokens
from artist.formats.predictions import GALLERY, IMAGES, PREDICTIONS, SCORES, write_predictions
from artist.generation.completion import Completion
from artist.generation.config import PredictConfig, SamplingConfig
from artist.generation.gallery import Card, GalleryImage, ImageRow, write_gallery
from artist.generation.image_files import generate_missing
from artist.generation.pipeline_protocol import ImagePipeline, load_pipeline
from artist.generation.prompt_cards import prompt_card
from artist.generation.rerank import rank, write_scores
from artist.generation.text_image_scorer import TextImageScorer, load_text_image_scorer
from artist.tables.lattice_rows import Rows, check_table
from artist.tables.untrained_tokens import untrained_tokens
from data.device import choose_device
from data.errors import ConfigError
from data.images import encode_png
from data.kg_folder import ENTITY_NAMES, kg_fingerprint, open_names
from data.runs import Run, StageReport, fingerprint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictReport(StageReport):
    """Result of `predict`."""

    prompts: int
    images: int
    with_entity: int

    def __str__(self) -> str:
        return (
            f"{self.outcome()}: {self.images} images of {self.prompts} prompts "
            f"({self.with_entity} with a known entity).\nLook at {self.out / GALLERY}"
        )


def predict(
    prompts: pa.Table,
    *,
    model: Path,
    kg: Path | None,
    out: Path,
    clip: Path | None = None,
    images: Sequence[bytes] = (),
    sampling: SamplingConfig | None = None,
    config: PredictConfig | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> PredictReport:
    """Generate images for matched prompts.

    Args:
        prompts: Rows with the columns of `data.schema.LATTICE`, matched with the settings of the
            model's training captions; ids must be unique.
        model: The model folder, of any family.
        kg: The KG folder it was trained with; optional for models without entities only.
        out: The folder to write.
        clip: Folder of a text-image scorer, such as a Chinese CLIP, that ranks the candidates.
        images: An encoded image per prompt, to be completed; empty: generate whole images.
        sampling: Sampling settings.
        config: Number and format of the images, and how they are computed.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: The inputs do not belong together, or another output exists at `out`.
    """
    sampling, config = sampling or SamplingConfig(), config or PredictConfig()
    if (config.candidates is None) != (clip is None):
        raise ConfigError("candidates and clip go together: the CLIP ranks the candidates.")
    if images and not 0 < config.keep_top < 1:
        raise ConfigError(
            f"keep_top={config.keep_top} must be between 0 and 1: a share of the image."
        )
    on = choose_device(device)
    settings: dict[str, Any] = {
        "num_images": config.num_images,
        "sampling": sampling.as_dict(),
        "seed": config.seed,
        "precision": str(choose_dtype(config.precision, on)),
        "image_format": config.image_format,
        **({"compile": True} if config.compile else {}),
        **({"keep_top": config.keep_top} if images else {}),
        **({"candidates": config.candidates} if clip is not None else {}),
    }
    inputs = _fingerprints(prompts, model, kg, images, clip)
    with Run.open(
        out, kind="predictions", settings=settings, inputs=inputs, overwrite=overwrite
    ) as run:
        if run.finished:
            return PredictReport(out=out, **run.finished.counts, already_finished=True)
        pipeline = load_pipeline(
            model, kg=kg, device=on, precision=config.precision, compile=config.compile
        )
        rows = pipeline.rows(prompts)
        tokenizer = pipeline.tokenizer.fingerprint
        check_table(rows, tokenizer, pipeline.kg_fingerprint, kg, "the prompts")
        if caveat := untrained_tokens(rows, pipeline.tokenizer, read_seen_tokens(model)):
            _log.warning("Warning: %s", caveat)
        completion = Completion(pipeline, images, config.keep_top) if images else None
        # Loaded first: an invalid folder is an error before images are generated.
        scorer = load_text_image_scorer(clip, on) if clip is not None else None
        files = generate_missing(
            pipeline,
            rows,
            run.work / IMAGES,
            num_images=config.candidates or config.num_images,
            sampling=sampling,
            seed=config.seed,
            batch_size=config.batch_size,
            completion=completion,
            image_format=config.image_format,
        )
        captions = [[""] * len(row) for row in files]
        if scorer is not None:
            files, captions = _keep_best(scorer, run.work / SCORES, rows, files, config.num_images)
        write_predictions(run.work / PREDICTIONS, rows.idx, rows.texts, files)
        write_gallery(
            run.work / GALLERY,
            title="Images",
            subtitle=f"Generated by {model.name} with seed {config.seed}.",
            cards=_cards(pipeline, rows, kg, files, captions, completion),
            footer=f"Model {model.name}, {fingerprint(model)[:12]}; "
            f"{f'KG {kg.name}' if kg is not None else 'no KG'}; {sampling}.",
        )
        counts: dict[str, Any] = {
            "prompts": len(rows),
            "images": len(rows) * config.num_images,
            "with_entity": int((np.diff(rows.first_entity) > 0).sum()),
        }
        run.finish(counts)
    return PredictReport(out=out, **counts)


def _fingerprints(
    prompts: pa.Table,
    model: Path,
    kg: Path | None,
    images: Sequence[bytes],
    clip: Path | None,
) -> dict[str, str]:
    """Return a digest of each input."""
    content = json.dumps([prompts["idx"].to_pylist(), prompts["text"].to_pylist()])
    inputs = {
        "model": fingerprint(model),
        "kg": kg_fingerprint(kg) if kg is not None else "",
        "prompts": hashlib.sha256(content.encode()).hexdigest(),
    }
    if images:
        digests = b"".join(hashlib.sha256(image).digest() for image in images)
        inputs["images"] = hashlib.sha256(digests).hexdigest()
    if clip is not None:
        inputs["clip"] = fingerprint(clip)
    return inputs


def _keep_best(
    scorer: TextImageScorer, scores: Path, rows: Rows, files: list[list[Path]], num_images: int
) -> tuple[list[list[Path]], list[list[str]]]:
    """Write the scores of all candidates and delete all but the best; their files and captions."""
    ranked = rank(scorer, rows.texts, files)
    write_scores(scores, rows.idx, ranked, num_images)
    for row in ranked:
        for candidate in row[num_images:]:
            candidate.file.unlink()
    best = [row[:num_images] for row in ranked]
    return (
        [[one.file for one in row] for row in best],
        [[f"CLIP {one.score:.1f}" for one in row] for row in best],
    )


def _cards(
    pipeline: ImagePipeline,
    rows: Rows,
    kg: Path | None,
    files: list[list[Path]],
    captions: list[list[str]],
    completion: Completion | None,
) -> list[Card]:
    """Return a gallery card per prompt, with the given image first where images are completed."""
    names = open_names(kg / ENTITY_NAMES) if kg is not None else []
    cards = []
    for n, (row, texts) in enumerate(zip(files, captions, strict=True)):
        generated = [
            GalleryImage(content=file.read_bytes(), caption=text)
            for file, text in zip(row, texts, strict=True)
        ]
        image_rows = [ImageRow(label="completed" if completion else "", images=generated)]
        if completion is not None:
            given = GalleryImage(content=encode_png(completion.pixels(n)))
            image_rows.insert(0, ImageRow(label="given", images=[given]))
        cards.append(
            prompt_card(pipeline.tokenizer, pipeline.text_len, rows, n, names, rows=image_rows)
        )
    return cards
