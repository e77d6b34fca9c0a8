"""`kg convert`: an open knowledge graph as triples of names and a file of mentions."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.errors import ConfigError, InputError
from data.runs import Run, StageReport, fingerprint
from data.tsv import Rejects, compression
from kg.reading.source_format import DESCRIPTIONS, TSV, detect_format
from kg.sources.collector import Collector
from kg.sources.config import FORMATS, ConvertConfig
from kg.sources.wikidata_json import is_json

_log = logging.getLogger(__name__)
_REJECTS = ".rejects.tsv"
_LINE = "dropped: "


@dataclass(frozen=True, kw_only=True)
class ConvertReport(StageReport):
    """The result of `kg convert`."""

    mentions: Path
    counts: dict[str, Any]

    def __str__(self) -> str:
        c = self.counts
        size = f"{c['triples']:,} triples"
        if "entities" in c:
            size += f", {c['entities']:,} entities, {c['relations']:,} relations"
        lines = [
            f"{self.outcome()}: {size}",
            f"{self.mentions}: {c.get('mentions', 0):,} mentions",
            f"read: {c['format']}; {c['lines']:,} lines, {c['rejected']:,} rejected",
        ]
        if c["rejected"]:
            lines[-1] += f" ({self.out}{_REJECTS}; {c['first_rejected']})"
        lines += [
            f"dropped: {n:,} {_plural(name)}"
            for name, n in sorted(c["dropped"].items(), key=lambda pair: -pair[1])
        ]
        if c.get("items_without_a_name"):
            lines.append(f"{c['items_without_a_name']:,} items have no name in this language")
        if c.get("entities_with_the_same_name"):
            lines.append(
                f"{c['entities_with_the_same_name']:,} entities have the same name as another, "
                "and their id in brackets; the bare name is a mention of each"
            )
        if "entities" in c:  # OwnThink's rows still contain literals
            lines.append(f"all tails are entities: kg train {self.out} --min-tail-count 1")
        return "\n".join(lines)


def _plural(reason: str) -> str:
    return {
        "an end has no name": "statements of which an end has no name",
        "value is not an item": "statements whose value is not an item",
        "blank node": "statements with a blank node or an unknown value",
        "disambiguation page": "statements of disambiguation pages",
        "an end is in another language": "assertions with an end in another language",
        "weight below the minimum": "assertions below the minimum weight",
        "lemma in another language": "lemmas in another language",
        "relation of another type": "relations of other types",
    }.get(reason, reason.replace("literal", "literals", 1))


def convert_graph(
    sources: Sequence[Path],
    out: Path,
    *,
    mentions: Path | None = None,
    config: ConvertConfig | None = None,
    overwrite: bool = False,
) -> ConvertReport:
    """Write a graph as `head<TAB>relation<TAB>tail` and its aliases as `mention<TAB>entity`.

    Args:
        sources: Files of one graph, plain or compressed (gzip, bzip2, zstd, xz).
        out: The triples. Unusable lines go to `<out>.rejects.tsv`: file, line, reason, text.
        mentions: The mentions; None: `mentions.tsv` next to `out`.
        config: The settings; None: the defaults.
        overwrite: Replace existing outputs.

    Raises:
        ToolkitError: A source cannot be read, its format is unknown, nothing is left of it, or
            an output belongs to another run.
    """
    config = config or ConvertConfig()
    mentions = mentions or out.with_name("mentions.tsv")
    if mentions == out:
        raise ConfigError(f"--out and --mentions are both {out}; give two files.")
    formats = _formats(sources, config.format)
    for path, kind in formats.items():
        _log.info("%s: %s", path, _described(path, kind))
    inputs = {f"{i}:{path.name}": fingerprint(path) for i, path in enumerate(sources)}
    with ExitStack() as stack:
        runs = _open(stack, [out, mentions], asdict(config), inputs, overwrite)
        already_finished = runs[0].finished is not None
        if not already_finished:
            counts = _convert(formats, runs[0], runs[1].work, config)
            for run in reversed(runs):  # the triples last: they are what is looked for
                run.finish(counts)
        assert runs[0].finished is not None
        return ConvertReport(
            out=out,
            mentions=mentions,
            counts=runs[0].finished.counts,
            already_finished=already_finished,
        )


def _open(
    stack: ExitStack,
    outputs: list[Path],
    settings: dict[str, Any],
    inputs: dict[str, str],
    overwrite: bool,
) -> list[Run]:
    """Open both outputs; if only one is finished, both are written again."""
    kinds = dict(zip(outputs, ("triples", "mentions"), strict=True))

    def begin(path: Path, again: bool) -> Run:
        return stack.enter_context(
            Run.open(
                path,
                kind=kinds[path],
                settings=settings,
                inputs=inputs,
                folder=False,
                overwrite=again,
            )
        )

    runs = [begin(path, overwrite) for path in outputs]
    if len({run.finished is None for run in runs}) == 2:
        runs = [begin(r.out, True) if r.finished else r for r in runs]
    return runs


def _formats(sources: Sequence[Path], given: str) -> dict[Path, str]:
    """Return the format of each source.

    Raises:
        InputError: It is unknown, or the sources are of different graphs.
    """
    formats = {path: detect_format(path) for path in sources}
    if given != "auto":
        return dict.fromkeys(formats, given)
    for path, kind in formats.items():
        if kind == TSV:
            raise InputError(
                f"{path} has three columns of text: `kg train {path}` reads it directly."
            )
        if not kind:
            raise InputError(
                f"{path}: unknown format. Known are {', '.join(FORMATS)}; give one with --format."
            )
    kinds = set(formats.values())
    if kinds == {"dbpedia", "ntriples"}:  # such as labels of an ontology
        return dict.fromkeys(formats, "dbpedia")
    # The names of Wikidata5M may come from a dump of Wikidata.
    if len(kinds) > 1 and kinds != {"wikidata", "wikidata5m"}:
        listed = ", ".join(f"{path.name}: {kind}" for path, kind in formats.items())
        raise InputError(f"The sources are of different graphs ({listed}). Convert each by itself.")
    return formats


def _described(path: Path, kind: str) -> str:
    name, packed = DESCRIPTIONS[kind], compression(path)
    if kind == "wikidata":
        name += " JSON" if is_json(path) else " N-Triples"
    return name + (f", {packed}" if packed else "")


def _convert(
    formats: dict[Path, str], run: Run, mentions: Path, config: ConvertConfig
) -> dict[str, Any]:
    """Write both files; return the counts."""
    rejects = Rejects(run.companion(_REJECTS))
    collector = Collector(run.work.parent)
    with ExitStack() as stack:
        stack.callback(collector.close)
        if "ownthink" in formats.values():
            _copy_ownthink(formats, run.work, mentions, collector, rejects)
        else:
            _collect(formats, config, collector, rejects)
            if collector.counts["statements"]:
                collector.write(run.work, mentions)
    counts = collector.counts
    if not counts["triples"]:
        raise InputError(_nothing(formats, config, collector, rejects))
    described = sorted({_described(path, kind) for path, kind in formats.items()})
    without = max(0, counts["items_with_labels"] - counts["items_named"])
    return {
        "format": " and ".join(described),
        "lines": collector.lines,
        "rejected": rejects.count,
        "first_rejected": rejects.first,
        **{f"rejected: {reason}": n for reason, n in sorted(rejects.reasons.items())},
        **{k: n for k, n in counts.items() if not k.startswith((_LINE, "items_"))},
        "items_without_a_name": without,
        "dropped": {
            k.removeprefix(_LINE): n for k, n in sorted(counts.items()) if k.startswith(_LINE) and n
        },
    }


def _collect(
    formats: dict[Path, str], config: ConvertConfig, collector: Collector, rejects: Rejects
) -> None:
    """Read all sources into the collector."""
    from kg.sources.rdf import RdfReader
    from kg.sources.tab_files import ConceptNet, Wikidata5M, read_lines
    from kg.sources.wikidata_json import read_json
    from kg.sources.wordnet import WordnetReader

    rdf = RdfReader(config, collector, rejects)
    wordnet = WordnetReader(config, collector, rejects)
    conceptnet, wikidata5m = ConceptNet(config, collector), Wikidata5M()
    for path, kind in formats.items():
        rejects.source = str(path)
        if kind == "conceptnet":
            read_lines(path, conceptnet, collector, rejects)
        elif kind == "wikidata5m":
            read_lines(path, wikidata5m, collector, rejects)
        elif kind == "wordnet":
            wordnet.read(path)
        elif kind == "wikidata" and is_json(path):
            read_json(path, config, collector, rejects)
        else:
            rdf.read(path, kind)
    wordnet.finish()


def _copy_ownthink(
    formats: dict[Path, str], triples: Path, mentions: Path, collector: Collector, rejects: Rejects
) -> None:
    from kg.sources.ownthink import OwnThinkReader

    with triples.open("wb") as file, mentions.open("wb") as other:
        reader = OwnThinkReader(file, other, collector, rejects)
        for path in formats:
            rejects.source = str(path)
            reader.read(path)


def _nothing(
    formats: dict[Path, str], config: ConvertConfig, collector: Collector, rejects: Rejects
) -> str:
    """Return why no triple is left, and what to try."""
    kind = next(iter(formats.values()))
    names = ", ".join(map(str, formats))
    advice = {
        "wikidata": "--fallback-lang en takes English names.",
        "dbpedia": "Give the labels file of the language as well (labels_lang=zh.ttl.bz2).",
        "wikidata5m": "Give wikidata5m_all_triplet.txt, wikidata5m_entity.txt and "
        "wikidata5m_relation.txt together.",
        "wordnet": "Chinese wordnets have no relations of their own: give the WN-LMF file of "
        "omw-en as well.",
    }.get(kind, "Check --lang.")
    statements = collector.counts["statements"]
    if not statements:
        first = f" ({rejects.first})" if 2 * rejects.count > collector.lines else ""
        found = f"no statement between two entities in {collector.lines:,} lines{first}"
    else:
        found = f"none of {statements:,} statements has names in {config.lang} for both ends"
    return f"{names}: {found}. {advice}"
