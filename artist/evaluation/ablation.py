"""Ablation of knowledge in training: with the graph, without it, and with shuffled vectors.

    S seeds   N captions   A arms

`evaluate` removes knowledge from a model that was trained with it, which does not show what the
model would have learned without. Here each arm is a separate training on the same captions in the
same order, and the arms are compared caption by caption:

lattice    the graph's vectors, by fusion `lattice`
none       no knowledge (pai-painter)
shuffled   fusion `lattice` with exchanged vectors: the model gets the positions and the identity of
           the entities, but not their meaning
easynlp    the graph's vectors, by the released code's fusion
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from artist.device import choose_dtype
from artist.evaluation.clusters import ENTITY, Clusters, find_clusters
from artist.evaluation.confidence_intervals import Interval, interval, widened
from artist.evaluation.controls import caption_groups
from artist.evaluation.likelihood import GIVEN, measure_likelihood
from artist.formats.image_tokenizer_folder import FrozenTokenizer
from artist.formats.model_folder import load_model
from artist.models.config import EASYNLP_ENTITIES
from artist.tables.encode import with_codes
from artist.tables.lattice_rows import RowsConfig, check_table, open_lattice, read_rows
from artist.tables.untrained_tokens import untrained_tokens
from artist.training.config import TrainConfig
from artist.training.dry_run import dry_run_finetune, duration
from artist.training.gpt_training import finetune
from data import schema
from data.device import choose_device
from data.errors import ConfigError
from data.kg_folder import ENTITY_NAMES, kg_fingerprint, open_names, read_vectors
from data.runs import Run, atomic, fingerprint, write_json
from data.seeds import stream
from data.shuffled_kg import named_entities, shuffle_graph
from data.tokenizer import tokenizer_folder, tokenizer_of

log = logging.getLogger(__name__)

ARMS = ("lattice", "none", "shuffled", "easynlp")
RESULTS = "ablation.json"
TABLE = "ablation.md"
LOSSES = "losses.parquet"
# `input`: `given`, or a control of `measure_likelihood`. `groups`: those of `Comparison.group`.
LOSSES_SCHEMA = pa.schema(
    [
        ("idx", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("input", pa.string()),
        ("nats", pa.float64()),  # per code
        ("cluster", pa.string()),
        ("image", pa.int64()),  # number of the image in the test table
        ("groups", pa.list_(pa.string())),
    ],
    metadata={"table": "losses", "version": "1"},
)
_FUSIONS = {"shuffled": "lattice"}  # arms whose name is not their fusion
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How much a caption's image costs more, in nats per code. Field names are JSON keys.

    Attributes:
        what: `none`: another arm; `lattice: shuffled`: the first arm's own models under a control
            of `measure_likelihood`.
        group: Group of captions: `all`, `with entity`, `unseen entity` and so on.
        captions: Number of captions.
        clusters: Number of clusters of captions.
        cost: Mean over seeds and captions, with an interval over both.
        by_seed: The mean of each seed.
    """

    what: str
    group: str
    captions: int
    clusters: int
    cost: Interval
    by_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """Likelihood of each arm on held-out captions, and the first arm compared with the others.

    Attributes:
        out: The folder with all models, `ablation.json`, `ablation.md` and `losses.parquet`.
        arms: The others are compared with the first.
        seeds: Seeds of the trainings.
        clustered: How the intervals are clustered, with the numbers of clusters.
        losses: Nats per code of each arm, over seeds and captions.
        comparisons: Positive where the first arm with its own knowledge is better.
        warnings: Caveats for readers of the figures.
    """

    out: Path
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    clustered: str
    losses: dict[str, Interval]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.markdown()}\nAll figures: {self.out / RESULTS}; per caption: "
            f"{self.out / LOSSES}."
        )

    def markdown(self) -> str:
        """Return two tables for a paper."""
        over = "captions and seeds" if len(self.seeds) > 1 else "captions only"
        seeds = ", ".join(map(str, self.seeds))
        lines = [
            f"Held-out images, seeds {seeds}; ± is a 95 % interval over {over}, {self.clustered}.",
            "",
            "| trained with | nats per code |",
            "| --- | --- |",
            *(f"| {arm} | {v.mean:.4f} ± {v.half_width:.4f} |" for arm, v in self.losses.items()),
            "",
            f"Cost of replacing the knowledge of `{self.arms[0]}` (paired, nats per code; above 0: "
            "knowledge helps; * the interval excludes 0):",
            "",
            "| replaced by | captions | number | clusters | cost | by seed |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for c in self.comparisons:
            seeds = " ".join(f"{value:+.4f}" for value in c.by_seed)
            clear = " *" if c.cost.clear else ""
            counts = f"{c.captions} | {c.clusters}"
            lines.append(f"| {c.what} | {c.group} | {counts} | {c.cost}{clear} | {seeds} |")
        lines += [line for warning in self.warnings for line in ("", f"Warning: {warning}")]
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
    init: Path | None = None,
    cluster_by: str = ENTITY,
    device: str = "auto",
    overwrite: bool = False,
) -> AblationReport:
    """Train every arm with every seed under equal settings, and compare them caption by caption.

    Each training is a model folder `<out>/seed-<n>/<arm>`. Finished trainings are kept; an
    unfinished one is resumed from its checkpoint.

    Args:
        table: Lattice table with images or codes.
        valid: Validation table, by which each training selects its weights.
        kg: The KG folder of the tables' entities.
        vqgan: VQGAN folder or checkpoint.
        out: The output folder.
        config: How to train; its fusion and seed are replaced.
        arms: Names from `ARMS`; the others are compared with the first.
        seeds: Seeds of the trainings.
        test: Table to compare on; by default `valid`.
        init: Model folder whose weights all trainings start from.
        cluster_by: The clusters of the intervals; see `artist.evaluation.clusters.find_clusters`.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace other runs' models.

    Raises:
        ToolkitError: Inputs do not match, or another run's output exists.
        Interrupted: SIGINT or SIGTERM; the same call resumes.
    """
    configs = _configs(arms, config, seeds)
    tokenizer = FrozenTokenizer.load(vqgan)
    table, valid, test = (
        with_codes(path, tokenizer, device) for path in (table, valid, test or valid)
    )
    tables = {"train": table, "valid": valid, "test": test}
    clusters, caveats = _test_captions(table, test, kg, config, cluster_by)
    measured: dict[str, list[_Measured]] = {arm: [] for arm in arms}
    for seed in seeds:
        folder = out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for arm in arms:
            graph, arm_tables = kg, tables
            if arm == "shuffled":
                graph, arm_tables = _shuffled_inputs(kg, tables, folder, seed, overwrite)
            log.info("Seed %d, arm %s: %s", seed, arm, folder / arm)
            trained = finetune(
                arm_tables["train"],
                valid=arm_tables["valid"],
                kg=graph,
                vqgan=vqgan,
                out=folder / arm,
                config=configs[arm, seed],
                init=init,
                device=device,
                overwrite=overwrite,
            )
            log.info("%s", trained)
            measured[arm].append(_measure(folder / arm, arm_tables, graph, config, seed, device))
    report = _compare(out, measured, tuple(seeds), clusters, caveats)
    inputs = {"kg": kg_fingerprint(kg), **{name: fingerprint(p) for name, p in tables.items()}}
    inputs |= {"init": fingerprint(init)} if init is not None else {}
    _write_losses(out / LOSSES, measured, tuple(seeds), clusters)
    write_json(out / RESULTS, _as_json(report, config, inputs))
    with atomic(out / TABLE) as file:
        file.write(report.markdown())
    return report


def dry_run_ablation(
    table: Path,
    *,
    config: TrainConfig,
    arms: Sequence[str],
    seeds: Sequence[int],
    **inputs: Any,
) -> str:
    """Take two steps of the first arm, and describe the memory and time of all trainings.

    Args:
        table: As for `ablate`.
        config: How to train.
        arms: Names from `ARMS`.
        seeds: Seeds of the trainings.
        **inputs: As for `artist.training.dry_run.dry_run_finetune`.

    Raises:
        ToolkitError: `ablate` would reject the inputs, or memory ran out.
    """
    configs = _configs(arms, config, seeds)
    report = dry_run_finetune(table, config=next(iter(configs.values())), **inputs)
    trainings = len(configs)
    seconds = trainings * (report.whole_seconds - report.encoding_seconds)
    return (
        f"{report}\nThe {trainings} trainings will take about "
        f"{duration(report.encoding_seconds + seconds)}, and the measurements some more."
    )


def check_arms(arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Check that arms and seeds can be compared.

    Raises:
        ConfigError: An arm is unknown, repeated, or the only one; or seeds are missing or repeated.
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


def _configs(
    arms: Sequence[str], config: TrainConfig, seeds: Sequence[int]
) -> dict[tuple[str, int], TrainConfig]:
    """Return the config of each arm and seed.

    Raises:
        ConfigError: Arms and seeds cannot be compared, or an arm has no use for a setting.
    """
    check_arms(arms, seeds)
    configs = {}
    for arm in arms:
        fusion = _FUSIONS.get(arm, arm)
        slots = EASYNLP_ENTITIES if fusion == "easynlp" else config.max_entities
        for seed in seeds:
            configs[arm, seed] = replace(config, fusion=fusion, max_entities=slots, seed=seed)
    return configs


# --- the shuffled graph ---------------------------------------------------------------------------
def _shuffled_inputs(
    kg: Path, tables: dict[str, Path], folder: Path, seed: int, overwrite: bool
) -> tuple[Path, dict[str, Path]]:
    """Write the graph with shuffled vectors, and copies of the tables that refer to it."""
    graph = folder / "shuffled-kg"
    paths = set(tables.values())
    shuffle_graph(kg, graph, named_entities([*paths]), seed=seed, overwrite=overwrite)
    made = {path: folder / f"shuffled-{path.stem}.parquet" for path in paths}
    for path in paths:
        _rename_graph(path, made[path], kg_fingerprint(graph), overwrite)
    return graph, {name: made[path] for name, path in tables.items()}


def _rename_graph(table: Path, out: Path, graph: str, overwrite: bool) -> None:
    """Write a copy of the table with the fingerprint of another graph (of the same names)."""
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
class _Measured(NamedTuple):
    """Losses (N,) of a model as given and under each control, masks of groups, idx and images."""

    losses: dict[str, Floats]
    groups: dict[str, NDArray[np.bool_]]
    idx: Sequence[str]
    images: NDArray[np.int64]


def _test_captions(
    table: Path, test: Path, kg: Path, config: TrainConfig, by: str
) -> tuple[Clusters, tuple[str, ...]]:
    """Return the clusters of the test captions, as a model with this config reads them.

    Also returns caveats about these captions.
    """
    tokenizer = tokenizer_of(table)
    reading = RowsConfig(
        text_len=config.text_len,
        pad_id=tokenizer.pad_id,
        max_entities=config.max_entities,
        policy=config.entity_policy,
    )
    trained, rows = (read_rows(path, reading) for path in (table, test))
    check_table(rows, tokenizer.fingerprint, "", None, str(test))
    clusters = find_clusters(rows, by, table=test, names=open_names(kg / ENTITY_NAMES))
    caveats = (
        clusters.few,
        untrained_tokens(rows, tokenizer, trained.tokens(tokenizer.vocab_size)),
    )
    return clusters, tuple(caveat for caveat in caveats if caveat)


def _measure(
    model: Path, tables: dict[str, Path], kg: Path, config: TrainConfig, seed: int, device: str
) -> _Measured:
    """Measure a trained model on the test table."""
    on = choose_device(device)
    loaded = load_model(model, on)
    rows, train = (
        read_rows(path, RowsConfig.of_model(loaded.gpt.config, tokenizer_of(path).pad_id))
        for path in (tables["test"], tables["train"])
    )
    seen = train.named_entities()
    found = measure_likelihood(
        loaded.gpt,
        rows,
        read_vectors(kg),
        dtype=choose_dtype(config.precision, on),
        seed=stream(seed, "controls"),  # two seeds share no shuffle
        seen=seen,
    )
    return _Measured(found.rows, caption_groups(rows, seen), rows.idx, found.images)


def crossed_interval(values: Floats, groups: NDArray[np.int64] | None = None) -> Interval:
    """Return the mean of values (S, N) with a 95 % interval over seeds and captions.

    The variances of the mean over seeds (Student's t with S - 1 degrees of freedom) and over
    captions are added. This counts their interaction twice, so the interval is slightly too wide
    rather than too narrow. With one seed it is over captions only.

    Args:
        values: One row per seed.
        groups: Groups of each caption, as for `interval`.
    """
    return widened(interval(values.mean(0), groups), values.mean(1))


def _compare(
    out: Path,
    measured: dict[str, list[_Measured]],
    seeds: tuple[int, ...],
    clusters: Clusters,
    warnings: tuple[str, ...],
) -> AblationReport:
    """Compare the first arm with the others, and with its own models under the controls."""
    first, *others = measured
    groups = measured[first][0].groups  # equal for all arms and seeds
    given = {arm: np.stack([m.losses[GIVEN] for m in found]) for arm, found in measured.items()}
    costs = {arm: given[arm] - given[first] for arm in others}  # (S, N)
    costs |= {
        f"{first}: {control}": np.stack(
            [m.losses[control] - m.losses[GIVEN] for m in measured[first]]
        )
        for control in ("none", "shuffled")
        if control in measured[first][0].losses
    }
    comparisons = [
        Comparison(
            what=what,
            group=group,
            captions=int(members.sum()),
            clusters=clusters.count(members),
            cost=crossed_interval(values[:, members], clusters.groups[members]),
            by_seed=tuple(float(v) for v in values[:, members].mean(1)),
        )
        for what, values in costs.items()
        for group, members in groups.items()
        if members.any() and not (":" in what and group == "without entity")
    ]
    return AblationReport(
        out=out,
        arms=tuple(measured),
        seeds=seeds,
        clustered=str(clusters),
        losses={arm: crossed_interval(values, clusters.groups) for arm, values in given.items()},
        comparisons=tuple(comparisons),
        warnings=warnings,
    )


def _write_losses(
    path: Path,
    measured: dict[str, list[_Measured]],
    seeds: tuple[int, ...],
    clusters: Clusters,
) -> None:
    """Write the loss of each caption under each trained model, with columns `LOSSES_SCHEMA`."""
    with atomic(path, "wb") as file, pq.ParquetWriter(file, LOSSES_SCHEMA) as writer:
        for arm, of_seeds in measured.items():
            for seed, found in zip(seeds, of_seeds, strict=True):
                N = len(found.idx)
                masks = found.groups.items()
                groups = [[name for name, members in masks if members[n]] for n in range(N)]
                for control, losses in found.losses.items():
                    columns = {
                        "idx": found.idx,
                        "arm": [arm] * N,
                        "seed": [seed] * N,
                        "input": [control] * N,
                        "nats": losses,
                        "cluster": clusters.labels,
                        "image": found.images,
                        "groups": groups,
                    }
                    writer.write_table(pa.table(columns, schema=LOSSES_SCHEMA))


def _as_json(report: AblationReport, config: TrainConfig, inputs: dict[str, str]) -> dict[str, Any]:
    def plain(value: Interval) -> dict[str, float | None]:
        width = value.half_width  # NaN, with a single image for all captions, is not JSON
        return {"mean": value.mean, "half_width": width if np.isfinite(width) else None}

    content = {
        "arms": report.arms,
        "seeds": report.seeds,
        "config": asdict(config),
        "inputs": inputs,
        "clustered": report.clustered,
        "warnings": report.warnings,
        "nats_per_code": {arm: plain(value) for arm, value in report.losses.items()},
        "costs": [{**asdict(c), "cost": plain(c.cost)} for c in report.comparisons],
    }
    parsed: dict[str, Any] = json.loads(json.dumps(content))
    return parsed
