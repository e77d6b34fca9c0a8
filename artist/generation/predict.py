"""Prompts to pictures: draw codes, decode them, write them as TSV, PNG files and a gallery.

Each picture has a seed of its own, derived from the run's seed, the row's `idx` and its number.
So it can be drawn again alone, and a run that was interrupted draws only what is missing.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from artist.device import choose_dtype
from artist.formats.model_folder import Model, load_model, read_config
from artist.formats.predictions import PREDICTIONS
from artist.generation.config import SamplingConfig
from artist.generation.cuda_graph import StaticSampler
from artist.generation.gallery import Card, Entity, Picture, PictureRow, write_gallery
from artist.generation.rerank import rank, write_scores
from artist.generation.sampling import sample
from artist.generation.text_image_scorer import ClipScorer
from artist.models.image_tokenizer import from_uint8, to_uint8
from artist.tables.lattice_rows import Batches, Rows, RowsConfig, check_table, rows_from_table
from data.device import choose_device
from data.errors import ConfigError, InputError, SchemaError
from data.images import decode_base64, decode_image, encode_png, encode_webp, square
from data.kg_folder import ENTITY_NAMES, kg_fingerprint, open_names, read_vectors
from data.runs import Run, StageReport, atomic, fingerprint
from data.seeds import stream
from data.tsv import Rejects, one_line, read_rows

GALLERY = "gallery.html"
SCORES = "scores.tsv"
IMAGE_FORMATS: dict[str, Callable[[NDArray[np.uint8], dict[str, str]], bytes]] = {
    "png": encode_png,
    "webp": encode_webp,
}
IMAGES = "images"


@dataclass(frozen=True)
class Prompts:
    """What to draw: an id and a text for each, and perhaps an encoded image to complete."""

    idx: list[str]
    texts: list[str]
    images: list[bytes] = field(default_factory=list)


def read_prompts(
    tsv: Path | None, texts: Sequence[str] = (), *, with_images: bool = False
) -> Prompts:
    """The prompts of a TSV file (`idx<TAB>text`, a third column ignored), then those given as text.

    Args:
        tsv: The file.
        texts: Prompts beside it.
        with_images: The third column holds an image in base64, and is read.

    Raises:
        InputError: There are none, or a line of the file cannot be used. (In training a bad row is
            set aside; a prompt that nobody draws would go unnoticed.)
    """
    idx, found, images = [], [], []
    if with_images and (tsv is None or texts):
        raise InputError("images to complete come from a TSV: `idx<TAB>text<TAB>image in base64`.")
    if tsv is not None:
        rejects = Rejects()
        for row in read_rows(tsv, {3} if with_images else {2, 3}, rejects):
            idx.append(row.fields[0])
            found.append(row.fields[1])
            if with_images:
                try:
                    images.append(decode_base64(row.fields[2]))
                    decode_image(images[-1])
                except InputError as error:
                    raise InputError(f"{tsv}, line {row.line}: {error}.") from None
        if rejects.count:
            raise InputError(
                f"{tsv}, {rejects.first}; {rejects.count} such lines. Prompts are "
                f"`idx<TAB>text{'<TAB>image' if with_images else ''}`, one a line."
            )
    idx += [str(len(idx) + n + 1) for n in range(len(texts))]
    found += texts
    if not found:
        raise InputError("there is nothing to draw: give a TSV of prompts, or --text.")
    return Prompts(idx, found, images)


def matching_settings(model: Path) -> dict[str, Any]:
    """How the captions that a model was trained on were matched; prompts must be matched alike."""
    settings: dict[str, Any] = read_config(model)["lattice"]
    return settings


@dataclass(frozen=True, kw_only=True)
class PredictReport(StageReport):
    """What was drawn and where it lies."""

    prompts: int
    images: int
    with_entity: int

    def __str__(self) -> str:
        return (
            f"{self.outcome()}: {self.images} pictures of {self.prompts} prompts "
            f"({self.with_entity} with a known entity).\nLook at {self.out / GALLERY}"
        )


def predict(
    prompts: pa.Table,
    *,
    model: Path,
    kg: Path | None,
    out: Path,
    num_images: int = 1,
    candidates: int | None = None,
    clip: Path | None = None,
    images: Sequence[bytes] = (),
    keep_top: float = 0.5,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "auto",
    image_format: str = "png",
    compile: bool = False,
    overwrite: bool = False,
) -> PredictReport:
    """Draw pictures for matched prompts.

    Args:
        prompts: Rows with the columns of `data.schema.LATTICE`, matched as the model's training
            captions were; ids must be different.
        model: The model folder.
        kg: The KG folder it was trained with; only models of fusion `none` do without.
        out: The folder to write.
        num_images: Pictures a prompt.
        candidates: Draw so many pictures a prompt and keep those that `clip` finds nearest to it.
        clip: The folder of a Chinese CLIP.
        images: An encoded image a prompt, to be completed; none: draw from nothing.
        keep_top: How much of each image is kept, from the top; rounded to whole rows of codes.
        sampling: How codes are chosen.
        seed: The same seed gives the same pictures on one machine.
        batch_size: Pictures drawn at once.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `bf16` or `fp32`.
        image_format: Of the files, and in the TSV: `png`, or `webp`, a tenth as large.
        compile: See `Artist`.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: The artefacts do not belong together, or an output is in the way.
    """
    if num_images < 1:
        raise ConfigError(f"num_images={num_images} must be at least 1.")
    if image_format not in IMAGE_FORMATS:
        raise ConfigError(
            f"image_format={image_format!r} is unknown; use one of {', '.join(IMAGE_FORMATS)}."
        )
    if (candidates is None) != (clip is None):
        raise ConfigError("candidates and a CLIP that chooses among them go together.")
    if candidates is not None and candidates < num_images:
        raise ConfigError(f"candidates={candidates} are fewer than num_images={num_images}.")
    if images and not 0 < keep_top < 1:
        raise ConfigError(f"keep_top={keep_top} must lie between 0 and 1: a share of the image.")
    sampling = sampling or SamplingConfig()
    on = choose_device(device)
    settings: dict[str, Any] = {
        "num_images": num_images,
        "sampling": asdict(sampling),
        "seed": seed,
        "precision": str(choose_dtype(precision, on)),
        "image_format": image_format,
        **({"compile": True} if compile else {}),
    }
    said = json.dumps([prompts["idx"].to_pylist(), prompts["text"].to_pylist()])
    inputs = {
        "model": fingerprint(model),
        "kg": kg_fingerprint(kg) if kg is not None else "",
        "prompts": hashlib.sha256(said.encode()).hexdigest(),
    }
    if images:
        settings["keep_top"] = keep_top
        inputs["images"] = hashlib.sha256(b"".join(map(_digest, images))).hexdigest()
    if clip is not None:
        settings["candidates"] = candidates
        inputs["clip"] = fingerprint(clip)
    with Run.open(
        out, kind="predictions", settings=settings, inputs=inputs, overwrite=overwrite
    ) as run:
        if run.finished:
            return PredictReport(out=out, **run.finished.counts, already_finished=True)
        loaded = load_model(model, on)
        artist = Artist(loaded, entity_vectors(loaded, kg), precision=precision, compile=compile)
        rows = artist.rows(prompts)
        check_table(rows, loaded.tokenizer.fingerprint, loaded.kg_fingerprint, kg, "the prompts")
        start = _Start(artist, images, keep_top) if images else None
        # Before anything is drawn: a folder that is no CLIP is said at once.
        scorer = ClipScorer(clip, on) if clip is not None else None
        drawn = candidates or num_images
        folder = run.work / IMAGES
        files = draw_missing(
            artist, rows, folder, drawn, sampling, seed, batch_size, start, image_format
        )
        captions = [[""] * len(row) for row in files]
        if scorer is not None:
            ranked = rank(scorer, rows.texts, files)
            write_scores(run.work / SCORES, rows.idx, ranked, num_images)
            files = [[one.file for one in row[:num_images]] for row in ranked]
            captions = [[f"CLIP {one.score:.1f}" for one in row[:num_images]] for row in ranked]
            for one in chain.from_iterable(row[num_images:] for row in ranked):
                one.file.unlink()
        write_tsv(run.work / PREDICTIONS, rows, files)
        names = open_names(kg / ENTITY_NAMES) if kg is not None else []
        cards = [
            prompt_card(
                loaded,
                rows,
                n,
                names,
                rows=[
                    *([PictureRow(label="given", pictures=[start.shown(n)])] if start else []),
                    PictureRow(
                        label="completed" if start else "",
                        pictures=[
                            Picture(content=f.read_bytes(), caption=said)
                            for f, said in zip(files[n], captions[n], strict=True)
                        ],
                    ),
                ],
            )
            for n in range(len(rows))
        ]
        write_gallery(
            run.work / GALLERY,
            title="Pictures",
            subtitle=f"Drawn by {model.name} with seed {seed}.",
            cards=cards,
            footer=f"Model {model.name}, {fingerprint(model)[:12]}; "
            f"{f'KG {kg.name}' if kg is not None else 'no KG'}; "
            f"{describe(sampling)}.",
        )
        counts: dict[str, Any] = {
            "prompts": len(rows),
            "images": len(rows) * num_images,
            "with_entity": int((np.diff(rows.first_entity) > 0).sum()),
        }
        run.finish(counts)
    return PredictReport(out=out, **counts)


def entity_vectors(model: Model, kg: Path | None) -> NDArray[np.float32]:
    """The vectors (num_entities, D) of a model's graph; of no use to a model without one.

    Raises:
        ConfigError: The model needs a graph and none is given.
        SchemaError: It was trained with another.
    """
    if kg is None:
        if model.gpt.config.fusion != "none":
            raise ConfigError("this model knows entities: give its KG folder as --kg.")
        return np.zeros((1, model.gpt.config.entity_dim), np.float32)
    if model.kg_fingerprint and kg_fingerprint(kg) != model.kg_fingerprint:
        raise SchemaError(f"{kg} is another KG than the one the model was trained with.")
    return read_vectors(kg)


class Artist:
    """A loaded model with a graph's vectors: draws rows of a lattice table.

    Args:
        model: From `load_model`, on its device.
        vectors: `(num_entities, D)` of the KG it was trained with.
        precision: `auto`, `bf16` or `fp32`; of the GPT and of the VQGAN's decoder.
        compile: Compile the steps, which pays for many pictures. Rounding differs then, so a
            picture may differ from one drawn without.
    """

    def __init__(
        self,
        model: Model,
        vectors: NDArray[np.float32],
        precision: str = "auto",
        *,
        compile: bool = False,
    ) -> None:
        self.model, self.vectors, self.compile = model, vectors, compile
        self.device = next(model.gpt.parameters()).device
        self.dtype = choose_dtype(precision, self.device)
        # Not float16: some VQGANs' features leave its range.
        half = self.dtype == torch.bfloat16
        self.decoder = model.image_tokenizer.decoding_in(torch.bfloat16 if half else torch.float32)
        self._static: StaticSampler | None = None  # of the last setting

    def rows(self, table: pa.Table) -> Rows:
        """Rows of a lattice table, cut to this model's text length."""
        config = RowsConfig.of_model(self.model.gpt.config, self.model.tokenizer.pad_id)
        return rows_from_table(table, config)

    def draw(
        self,
        rows: Rows,
        chosen: Sequence[int],
        seeds: Sequence[int],
        sampling: SamplingConfig,
        *,
        use_entities: bool = True,
        given: torch.Tensor | None = None,
    ) -> NDArray[np.uint8]:
        """One picture for each chosen row and its seed: pixels (B, H, W, 3).

        `given` (B, G) are the codes that each picture begins with; see `top_codes`.
        """
        gpt = self.model.gpt
        batch = Batches(rows, self.vectors, gpt.config).get(np.asarray(chosen)).to(self.device)
        text_ids = gpt.text_ids(batch.conditioning.token_ids)
        entities = batch.conditioning.entities if use_entities else None
        if self.compile or self.device.type == "cuda":
            codes = self._sampler(len(text_ids), sampling).draw(
                text_ids, entities, seeds, given=given
            )
        else:
            codes = sample(
                gpt,
                text_ids,
                entities,
                seeds,
                sampling,
                empty_ids=self._empty_ids(),
                given=given,
                dtype=self.dtype,
            )
        with torch.inference_mode():
            images = self.decoder.decode(codes)  # (B, 3, H, W)
        pixels: NDArray[np.uint8] = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
        return pixels

    def _sampler(self, rows: int, sampling: SamplingConfig) -> StaticSampler:
        """The last one, if it is of this setting and large enough; else a new one."""
        last = self._static
        if last is None or last.config != sampling or last.rows < rows:
            self._static = None  # its memory first
            self._static = StaticSampler(
                self.model.gpt,
                rows,
                sampling,
                empty_ids=self._empty_ids(),
                dtype=self.dtype,
                compile=self.compile,
            )
        assert self._static is not None
        return self._static

    def _empty_ids(self) -> torch.Tensor:
        return self.model.gpt.text_ids(self.model.empty_ids.to(self.device))

    @torch.inference_mode()
    def top_codes(self, images: Sequence[NDArray[np.uint8]], share: float) -> torch.Tensor:
        """The codes (B, G) of the upper part of pictures (H, W, 3), in whole rows of codes."""
        tokenizer = self.model.image_tokenizer
        rows = min(max(1, round(share * tokenizer.grid_size)), tokenizer.grid_size - 1)
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        codes = tokenizer.encode(from_uint8(pixels))
        return codes[:, : rows * tokenizer.grid_size]


class _Start:
    """The images that a run completes, a few at a time."""

    def __init__(self, artist: Artist, images: Sequence[bytes], share: float) -> None:
        self.artist, self.images, self.share = artist, images, share
        self.size = artist.model.image_tokenizer.resolution

    def pixels(self, n: int) -> NDArray[np.uint8]:
        return square(decode_image(self.images[n]), self.size)

    def codes(self, chosen: Sequence[int]) -> torch.Tensor:
        return self.artist.top_codes([self.pixels(n) for n in chosen], self.share)

    def shown(self, n: int) -> Picture:
        return Picture(content=encode_png(self.pixels(n)))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def picture_seed(seed: int, idx: str, number: int) -> int:
    """The seed of a row's n-th picture."""
    return stream(seed, "picture", idx, number)


def picture_name(row: int, idx: str, number: int, kind: str = "png") -> str:
    """A file name that is unique and stays in its folder, whatever the row's idx holds.

    The row's number makes it unique where idx differ in case only, and keeps `con` and `nul` off.
    """
    readable = re.sub(r"[^\w-]+", "_", idx, flags=re.ASCII).strip("_")[:40]
    parts = (f"{row + 1:05d}", readable, str(number))
    return f"{'_'.join(part for part in parts if part)}.{kind}"


def describe(sampling: SamplingConfig) -> str:
    """The settings that are on, for a footer."""
    on = {k: v for k, v in asdict(sampling).items() if v is not None}
    if sampling.cfg_scale == 1.0:
        del on["cfg_schedule"]
    return ", ".join(f"{k} {v if isinstance(v, str) else f'{v:g}'}" for k, v in on.items())


def prompt_card(
    model: Model,
    table: Rows,
    n: int,
    names: Sequence[str],
    *,
    rows: Sequence[PictureRow],
    types: Mapping[str, str] | None = None,
    badges: Sequence[str] = (),
    note: str = "",
) -> Card:
    """The n-th row's card for the gallery: its text, its lattice, its pictures.

    Args:
        model: For its tokenizer and text length.
        table: The matched prompts.
        n: Which of them.
        names: Names of all entities, by id.
        rows: The pictures.
        types: What an entity is, by name; shown beside it.
        badges: See `Card`.
        note: See `Card`; that a prompt was cut is said there too.
    """
    surfaces = next(iter(model.tokenizer.encode([table.texts[n]]))).surfaces
    length = model.gpt.config.text_len
    if len(surfaces) > length:
        cut = f"the model reads its first {length} tokens only"
        note = f"{note}; {cut}" if note else cut
    span = range(table.first_entity[n], table.first_entity[n + 1])
    found = [(int(table.starts[k]), int(table.ends[k]), names[table.entity_ids[k]]) for k in span]
    return Card(
        prompt=table.texts[n],
        tokens=surfaces[:length],
        entities=[
            Entity(start=start, end=end, label=name, note=(types or {}).get(name, ""))
            for start, end, name in found
        ],
        badges=badges,
        note=note,
        rows=rows,
    )


def draw_missing(
    artist: Artist,
    rows: Rows,
    folder: Path,
    num_images: int,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int,
    start: _Start | None = None,
    image_format: str = "png",
) -> list[list[Path]]:
    """Draw the pictures that are not in the folder yet; the paths of all, row by row."""
    folder.mkdir(exist_ok=True)
    encode = IMAGE_FORMATS[image_format]
    files = [
        [folder / picture_name(n, idx, i, image_format) for i in range(num_images)]
        for n, idx in enumerate(rows.idx)
    ]
    missing = [(n, i) for n, row in enumerate(files) for i, f in enumerate(row) if not f.exists()]
    with tqdm(total=len(missing), desc="drawing", unit="picture", disable=None) as bar:
        for begin in range(0, len(missing), batch_size):
            part = missing[begin : begin + batch_size]
            seeds = [picture_seed(seed, rows.idx[n], i) for n, i in part]
            chosen = [n for n, _ in part]
            given = start.codes(chosen) if start is not None else None
            pictures = artist.draw(rows, chosen, seeds, sampling, given=given)
            for (n, i), drawn, pixels in zip(part, seeds, pictures, strict=True):
                note = {"prompt": rows.texts[n], "idx": rows.idx[n], "seed": str(drawn)}
                with atomic(files[n][i], "wb") as file:
                    file.write(encode(pixels, note))
            bar.update(len(part))
    return files


def write_tsv(path: Path, rows: Rows, files: list[list[Path]]) -> None:
    """`idx, text, gen_imgbase64`: one picture as base64, several as a JSON list of them."""
    with atomic(path) as file:
        for n, row in enumerate(files):
            images = [base64.b64encode(f.read_bytes()).decode() for f in row]
            cell = images[0] if len(images) == 1 else json.dumps(images)
            file.write(f"{one_line(rows.idx[n])}\t{one_line(rows.texts[n])}\t{cell}\n")
