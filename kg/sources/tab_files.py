"""Formats of one record per line, with fields between tabs: ConceptNet, Wikidata5M."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from data import tsv
from data.errors import RowError
from data.tsv import Rejects, bounded_lines, is_utf8, open_bytes
from kg.sources.collector import Collector
from kg.sources.config import ConvertConfig
from kg.sources.languages import ALIAS, ONLY_ID, UNTAGGED, UNWANTED, Languages

_BATCH = 100_000  # lines
_BOM = b"\xef\xbb\xbf"
_ID = re.compile(r"[QP]\d+")
_STATEMENT = re.compile(r"Q\d+\tP\d+\tQ\d+")
Statements = list[tuple[str, str, str]]
Labels = list[tuple[str, int, str]]


def read_lines(
    path: Path,
    take: Callable[[bytes, Statements, Labels], None],
    collector: Collector,
    rejects: Rejects,
) -> None:
    """Call `take` with each line and the lists it adds to; pass these on in batches.

    Lines that are not UTF-8, or for which it raises `RowError`, are rejected.

    Raises:
        InputError: The file cannot be read, or is damaged.
    """
    statements: Statements = []
    labels: Labels = []
    bar = tqdm(desc=f"reading {path.name}", unit=" lines", unit_scale=True, disable=None)
    with open_bytes(path) as file, bar:
        for number, raw in enumerate(bounded_lines(file, path), 1):
            collector.lines += 1
            line = raw.rstrip(b"\r\n")
            if number == 1:
                line = line.removeprefix(_BOM)
            try:
                take(line, statements, labels)
            except RowError as error:
                reason = error.reason if is_utf8(line) else tsv.NOT_UTF8
                rejects.add(number, reason, line.decode("utf-8", "replace"))
            except UnicodeDecodeError:
                rejects.add(number, tsv.NOT_UTF8, line.decode("utf-8", "replace"))
            if number % _BATCH == 0:
                collector.add_rows(statements, labels)
                statements.clear()
                labels.clear()
                bar.update(_BATCH)
        collector.add_rows(statements, labels)


class ConceptNet:
    """Takes assertions: URI, relation, start, end, JSON.

    https://github.com/commonsense/conceptnet5/wiki/Downloads. A node is `/c/zh/熊猫/n/...`: all
    senses of a word are one entity, as most nodes have none.
    """

    def __init__(self, config: ConvertConfig, collector: Collector) -> None:
        self._counts, self._min_weight = collector.counts, config.min_weight
        self._languages = Languages(config)
        self._seen: set[str] = set()

    def __call__(self, line: bytes, statements: Statements, labels: Labels) -> None:
        """Take one line."""
        fields = line.split(b"\t")
        if len(fields) != 5:
            raise RowError("wrong column count", f"{len(fields)}, expected 5")
        ends = [self._word(node) for node in fields[2:4]]
        if None in ends:
            self._counts["dropped: an end is in another language"] += 1
            return
        weight = _weight(fields[4])
        if weight < self._min_weight:
            self._counts["dropped: weight below the minimum"] += 1
            return
        if not fields[1].startswith(b"/r/"):
            raise RowError("not a relation", fields[1].decode())
        relation = fields[1].decode().removeprefix("/r/").removeprefix("dbpedia/")
        head, tail = (end or "" for end in ends)
        # A relation and a word may be equal.
        statements.append((head, f"/r/{relation}", tail))
        for key, rank, text in ((head, 0, head), (f"/r/{relation}", 0, relation), (tail, 0, tail)):
            if key not in self._seen:
                self._seen.add(key)
                labels.append((key, rank, text))

    def _word(self, node: bytes) -> str | None:
        """Return the word of a node; None: in another language."""
        parts = node.split(b"/")
        if len(parts) < 4 or parts[:2] != [b"", b"c"]:
            if node.startswith((b"http://", b"https://")):
                return None
            raise RowError("not a node", node.decode("utf-8", "replace"))
        if self._languages.rank(parts[2].decode()) == UNWANTED:
            return None
        return parts[3].decode().replace("_", " ").strip() or None


def _weight(field: bytes) -> float:
    try:
        return float(json.loads(field)["weight"])
    except (ValueError, KeyError, TypeError):
        raise RowError("no weight in the JSON column", field.decode()[:50]) from None


class Wikidata5M:
    """Takes lines of `*_triplet.txt` (three ids), and of `*_entity.txt` (an id, then its names).

    https://deepgraphlearning.github.io/project/wikidata5m. The first name is the entity's, the
    others are mentions. A relation without a name keeps its id.
    """

    def __init__(self) -> None:
        self._relations: set[str] = set()

    def __call__(self, line: bytes, statements: Statements, labels: Labels) -> None:
        """Take one line."""
        text = line.decode()
        if _STATEMENT.fullmatch(text):
            head, relation, tail = text.split("\t")
            statements.append((head, relation, tail))
            if relation not in self._relations:
                self._relations.add(relation)
                labels.append((relation, ONLY_ID, relation))
            return
        item, *names = text.split("\t")
        if not _ID.fullmatch(item):
            raise RowError("not an id of Wikidata", item[:50])
        if not names or not names[0].strip():
            raise RowError("no name after the id")
        if _ID.fullmatch(names[0]):
            raise RowError("incomplete triple", text[:50])
        labels.extend(_ranked(item, names))


def _ranked(item: str, names: list[str]) -> Iterator[tuple[str, int, str]]:
    for i, name in enumerate(names):
        if name.strip():
            yield item, ALIAS if i else UNTAGGED, name
