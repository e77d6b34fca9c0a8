"""What knowledge is worth to a training: with the graph, without it, and with a false one.

    S seeds   N captions   A arms

`evaluate` takes knowledge from a model that was trained with it, so it cannot tell what the model
would have learnt without. Here each arm is a training of its own, on the same captions in the same
order, and the arms are compared caption by caption:

lattice    the graph's vectors, by fusion `lattice`
none       no knowledge (pai-painter)
shuffled   fusion `lattice` with each entity's vector dealt to another entity: it knows where the
           words are, and which is which, but nothing of what they mean
easynlp    the graph's vectors, by the released code's fusion
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from artist.device import choose_dtype
from artist.evaluation.intervals import Interval, interval
from artist.evaluation.likelihood import GIVEN, has_unseen, measure_likelihood
from artist.formats.image_tokenizer_folder import FrozenTokenizer
from artist.formats.model_folder import load_model
from artist.models.config import EASYNLP_ENTITIES
from artist.tables.encode import with_codes
from artist.tables.lattice_rows import RowsConfig, open_lattice, read_rows
from artist.training.config import TrainConfig
from artist.training.finetune import finetune
from data import schema
from data.device import choose_device
from data.errors import ConfigError
from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, kg_fingerprint, read_vectors
from data.runs import Run, atomic, fingerprint, write_json
from data.seeds import stream
from data.tokenizer import tokenizer_folder, tokenizer_of

log = logging.getLogger(__name__)

ARMS = ("lattice", "none", "shuffled", "easynlp")
RESULTS = "ablation.json"
TABLE = "ablation.md"
_FUSIONS = {"shuffled": "lattice"}  # of the arms that are not named by theirs
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How much more a caption's picture costs without something, in nats per code.

    Attributes:
        what: `none`: another arm, trained without; `lattice: shuffled`: the first arm's own models,
            told something else when they are asked.
        group: Which captions: `all`, `with entity`, `unseen entity` and so on.
        captions: How many.
        cost: Mean over seeds and captions, with an interval over both.
        by_seed: The mean of each seed.
    """

    what: str
    group: str
    captions: int
    cost: Interval
    by_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """The arms' likelihood on held-out captions, and the first arm compared with the others.

    Attributes:
        out: The folder with all models, `ablation.json` and `ablation.md`.
        arms: The first one is what the others are compared with.
        seeds: Of the trainings.
        losses: Nats per code of each arm, over seeds and captions.
        comparisons: Positive where the first arm, told what it was trained with, is better.
    """

    out: Path
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    losses: dict[str, Interval]
    comparisons: tuple[Comparison, ...]

    def __str__(self) -> str:
        return f"{self.markdown()}\nAll of it is in {self.out / RESULTS}."

    def markdown(self) -> str:
        """Two tables for a paper."""
        over = "captions and seeds" if len(self.seeds) > 1 else "captions only"
        seeds = ", ".join(map(str, self.seeds))
        lines = [
            f"Held-out pictures, seeds {seeds}; ± is a 95 % interval over {over}.",
            "",
            "| trained with | nats per code |",
            "| --- | --- |",
            *(f"| {arm} | {v.mean:.4f} ± {v.half_width:.4f} |" for arm, v in self.losses.items()),
            "",
            f"What it costs `{self.arms[0]}` to be without its knowledge (paired, nats per code; "
            "above 0: knowledge helps; * the interval leaves out 0):",
            "",
            "| instead | captions | number | cost | each seed |",
            "| --- | --- | --- | --- | --- |",
        ]
        for c in self.comparisons:
            seeds = " ".join(f"{value:+.4f}" for value in c.by_seed)
            clear = " *" if c.cost.clear else ""
            lines.append(f"| {c.what} | {c.group} | {c.captions} | {c.cost}{clear} | {seeds} |")
        return "\n".join(lines) + "\n"


def ablate(
    table: Path,
    *,
    valid: Path,
    kg: Path,
    vqgan: Path,
    out: Path,
    config: TrainConfig,
    arms: Sequence[str] = ("lattice", "none", "shuffled"),
    seeds: Sequence[int] = (0, 1, 2),
    test: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> AblationReport:
    """Train every arm with every seed, alike in all else, and compare them caption by caption.

    Each training is a model folder `<out>/seed-<n>/<arm>`; finished ones are not trained again and
    an unfinished one goes on from its checkpoint.

    Args:
        table: Lattice table with images or codes.
        valid: The same, by which each training chooses its weights.
        kg: The KG folder whose entities the tables name.
        vqgan: VQGAN folder or checkpoint.
        out: The folder for everything.
        config: How to train; its fusion and its seed are replaced.
        arms: Names from `ARMS`; the others are compared with the first.
        seeds: Of the trainings.
        test: Captions to compare on; by default `valid`.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace other runs' models.

    Raises:
        ToolkitError: An input does not fit the others, or an output is in the way.
        Interrupted: SIGINT or SIGTERM; repeated, the command goes on.
    """
    check_arms(arms, seeds)
    tokenizer = FrozenTokenizer.load(vqgan)
    table, valid, test = (
        with_codes(path, tokenizer, device) for path in (table, valid, test or valid)
    )
    tables = {"train": table, "valid": valid, "test": test}
    shared = {"vqgan": vqgan, "device": device, "overwrite": overwrite}
    measured: dict[str, list[dict[str, Floats]]] = {arm: [] for arm in arms}
    groups: dict[str, NDArray[np.bool_]] = {}
    pictures: NDArray[np.int64] = np.zeros(0, np.int64)
    for seed in seeds:
        folder = out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for arm in arms:
            graph, named = kg, tables
            if arm == "shuffled":
                graph, named = _misnamed(kg, tables, folder, seed, overwrite)
            log.info("Seed %d, arm %s: %s", seed, arm, folder / arm)
            trained = finetune(
                named["train"],
                valid=named["valid"],
                kg=graph,
                out=folder / arm,
                config=_config_of(arm, config, seed),
                **shared,  # type: ignore[arg-type]
            )
            log.info("%s", trained)
            rows, members, pictures = _measure(
                folder / arm, named["train"], named["test"], graph, config, seed, device
            )
            measured[arm].append(rows)
            groups = groups or members
    report = _compare(out, measured, groups, pictures, tuple(seeds))
    inputs = {"kg": kg_fingerprint(kg), **{name: fingerprint(p) for name, p in tables.items()}}
    write_json(out / RESULTS, _as_json(report, config, inputs))
    with atomic(out / TABLE) as file:
        file.write(report.markdown())
    return report


def check_arms(arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse what cannot be compared.

    Raises:
        ConfigError: An arm is unknown, named twice, or alone; or there is no seed.
    """
    for arm in arms:
        if arm not in ARMS:
            raise ConfigError(f"arm {arm!r} is unknown; use some of {', '.join(ARMS)}.")
    if len(arms) < 2 or len(set(arms)) < len(arms):
        raise ConfigError(
            f"arms={','.join(arms)}: give two or more different ones; the first is compared with "
            "the others."
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError("give one seed or more, each once.")


def _config_of(arm: str, config: TrainConfig, seed: int) -> TrainConfig:
    fusion = _FUSIONS.get(arm, arm)
    slots = EASYNLP_ENTITIES if fusion == "easynlp" else config.max_entities
    return replace(config, fusion=fusion, max_entities=slots, seed=seed)


# --- the false graph ------------------------------------------------------------------------------
def _misnamed(
    kg: Path, tables: dict[str, Path], folder: Path, seed: int, overwrite: bool
) -> tuple[Path, dict[str, Path]]:
    """The graph with its vectors dealt to the wrong names, and the tables that say they use it."""
    graph = folder / "shuffled-kg"
    paths = set(tables.values())
    named = np.unique(np.concatenate([_entity_ids(path) for path in paths]))
    shuffle_graph(kg, graph, named, seed=seed, overwrite=overwrite)
    made = {path: folder / f"shuffled-{path.stem}.parquet" for path in paths}
    for path in paths:
        _rename_graph(path, made[path], kg_fingerprint(graph), overwrite)
    return graph, {name: made[path] for name, path in tables.items()}


def shuffle_graph(
    kg: Path, out: Path, named: NDArray[np.int64], *, seed: int, overwrite: bool = False
) -> None:
    """A KG folder like `kg` in which the entities `named` have exchanged their vectors.

    None keeps its own (where there are two or more). The others keep theirs, so the vectors that a
    model meets are the same ones.
    """
    inputs = {"kg": kg_fingerprint(kg)}
    with Run.open(
        out, kind="kg", settings={"shuffled": seed}, inputs=inputs, overwrite=overwrite
    ) as run:
        if run.finished:
            return
        vectors = np.array(read_vectors(kg), dtype=np.float32)
        order = np.random.default_rng(stream(seed, "shuffled graph")).permutation(named)
        vectors[order] = vectors[np.roll(order, 1)]
        shutil.copyfile(kg / ENTITY_NAMES, run.work / ENTITY_NAMES)
        save_file({VECTORS_KEY: vectors}, run.work / VECTORS)
        run.finish({"entities": len(vectors), "exchanged": len(named)})


def _entity_ids(table: Path) -> NDArray[np.int64]:
    """Ids of all entities that a lattice table names."""
    lists = open_lattice(table).read(columns=["lex_ids"])["lex_ids"]
    ids: NDArray[np.int64] = np.unique(lists.combine_chunks().flatten().to_numpy())
    return ids.astype(np.int64)


def _rename_graph(table: Path, out: Path, graph: str, overwrite: bool) -> None:
    """The same table, said to be built with another graph (of the same names)."""
    source = open_lattice(table)
    inputs = {"table": fingerprint(table)}
    settings = {"kg_fingerprint": graph}
    with Run.open(
        out, kind="codes", settings=settings, inputs=inputs, folder=False, overwrite=overwrite
    ) as run:
        if run.finished:
            return
        target = schema.with_metadata(source.schema_arrow, {"kg_fingerprint": graph})
        with schema.table_writer(run.work, target) as writer:
            for batch in source.iter_batches(4096):
                writer.write_batch(batch.replace_schema_metadata(target.metadata))
        shutil.copytree(tokenizer_folder(table), tokenizer_folder(out), dirs_exist_ok=True)
        run.finish({"rows": source.num_rows})


# --- measuring ------------------------------------------------------------------------------------
def _measure(
    model: Path, train: Path, test: Path, kg: Path, config: TrainConfig, seed: int, device: str
) -> tuple[dict[str, Floats], dict[str, NDArray[np.bool_]], NDArray[np.int64]]:
    """A model's losses under each way of telling, groups of captions, and who shares a picture."""
    on = choose_device(device)
    loaded = load_model(model, on)
    rows, seen = (
        read_rows(path, RowsConfig.of_model(loaded.gpt.config, tokenizer_of(path).pad_id))
        for path in (test, train)
    )
    found = measure_likelihood(
        loaded.gpt,
        rows,
        read_vectors(kg),
        dtype=choose_dtype(config.precision, on),
        seed=stream(seed, "controls"),  # no shuffling is shared by two seeds
        seen=np.unique(seen.entity_ids),
    )
    known = np.diff(rows.first_entity) > 0
    unseen = has_unseen(rows, np.unique(seen.entity_ids))
    groups = {
        "all": np.ones(len(rows), bool),
        "with entity": known,
        "unseen entity": unseen,
        "seen entities only": known & ~unseen,
        "without entity": ~known,
    }
    return found.rows, groups, found.pictures


def crossed_interval(values: Floats, groups: NDArray[np.int64] | None = None) -> Interval:
    """The mean of values (S, N) with a 95 % interval for other seeds and other captions.

    The variances of the mean over seeds (Student's t with S - 1 degrees of freedom) and over
    captions are added, which counts their interaction twice: the interval is a little too wide
    rather than too narrow. With one seed it is over captions only.

    Args:
        values: One row a seed.
        groups: The picture of each caption (N,).
    """
    captions = interval(values.mean(0), groups)
    S = len(values)
    if S < 2:
        return captions
    from scipy.stats import t

    seeds = float(t.ppf(0.975, S - 1)) * values.mean(1).std(ddof=1) / np.sqrt(S)
    return Interval(captions.mean, float(np.hypot(captions.half_width, seeds)))


def _compare(
    out: Path,
    measured: dict[str, list[dict[str, Floats]]],
    groups: dict[str, NDArray[np.bool_]],
    pictures: NDArray[np.int64],
    seeds: tuple[int, ...],
) -> AblationReport:
    first, *others = measured
    told = {arm: np.stack([rows[GIVEN] for rows in found]) for arm, found in measured.items()}
    costs = {arm: told[arm] - told[first] for arm in others}  # (S, N)
    costs |= {
        f"{first}: {control}": np.stack([rows[control] - rows[GIVEN] for rows in measured[first]])
        for control in ("none", "shuffled")
        if control in measured[first][0]
    }
    comparisons = [
        Comparison(
            what=what,
            group=group,
            captions=int(who.sum()),
            cost=crossed_interval(values[:, who], pictures[who]),
            by_seed=tuple(float(v) for v in values[:, who].mean(1)),
        )
        for what, values in costs.items()
        for group, who in groups.items()
        if who.any() and not (":" in what and group == "without entity")
    ]
    return AblationReport(
        out=out,
        arms=tuple(measured),
        seeds=seeds,
        losses={arm: crossed_interval(values, pictures) for arm, values in told.items()},
        comparisons=tuple(comparisons),
    )


def _as_json(report: AblationReport, config: TrainConfig, inputs: dict[str, str]) -> dict[str, Any]:
    def plain(value: Interval) -> dict[str, float | None]:
        width = value.half_width  # NaN, where all captions share a picture, is not JSON
        return {"mean": value.mean, "half_width": width if np.isfinite(width) else None}

    content = {
        "arms": report.arms,
        "seeds": report.seeds,
        "config": asdict(config),
        "inputs": inputs,
        "nats_per_code": {arm: plain(value) for arm, value in report.losses.items()},
        "costs": [{**asdict(c), "cost": plain(c.cost)} for c in report.comparisons],
    }
    parsed: dict[str, Any] = json.loads(json.dumps(content))
    return parsed
