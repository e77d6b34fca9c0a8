"""OwnThink's CSV, and the names without the sense that follows them in brackets.

Its rows are triples of names already and are written as they are read, 25 million entities or
more: nothing is kept but the hash of each name with a sense.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from data import tsv
from data.errors import SkipReason
from data.names import without_bracket
from data.tsv import Rejects, wrong_column_count
from kg.reading.dumps import REASONS, Chunk, read_chunks
from kg.reading.row_scanner import TAB_IN_FIELD, normalise
from kg.sources.collector import Collector
from kg.sources.key_index import KeyIndex, keys_of

_COLUMNS = ("head", "relation", "tail")


class OwnThinkReader:
    """Copies rows into the triples, and senses into the mentions."""

    def __init__(
        self, triples: BinaryIO, mentions: BinaryIO, collector: Collector, rejects: Rejects
    ) -> None:
        self._triples, self._mentions = triples, mentions
        self._collector, self._rejects = collector, rejects
        self._seen = KeyIndex()

    def read(self, path: Path) -> None:
        """Read one file.

        Raises:
            InputError: It cannot be read, or is damaged.
        """
        counts = self._collector.counts
        with tqdm(desc=f"reading {path.name}", unit=" lines", unit_scale=True, disable=None) as bar:
            for chunk in read_chunks(path, 0):
                rows = list(self._rows(chunk))
                self._triples.write("".join(f"{h}\t{r}\t{t}\n" for h, r, t in rows).encode())
                counts["triples"] += len(rows)
                self._write_mentions(list(dict.fromkeys(head for head, _, _ in rows)))
                lines = chunk.data.count(b"\n")
                self._collector.lines += lines
                bar.update(lines)

    def _rows(self, chunk: Chunk) -> Iterator[list[str]]:
        self._rejects.add_all(chunk.rejected)
        for number, _, fields in chunk.records:
            if not (empty := _empty(fields)):
                yield [field.strip() for field in fields]
            else:
                self._rejects.add(number, empty, ",".join(fields))
        skip = chunk.skip if len(chunk.skip) else None
        for i, raw in enumerate(chunk.data.split(b"\n")[:-1]):
            if skip is not None and skip[i]:
                continue
            reason = None
            try:
                text = raw.removesuffix(b"\r").decode()
            except UnicodeDecodeError:
                text, reason = raw.decode("utf-8", "replace"), tsv.NOT_UTF8
            fields = text.split(",")
            if reason is None:
                reason = _fault(text, fields)
            if reason is None:
                yield [field.strip() for field in fields]
            else:
                self._rejects.add(chunk.line + i, reason, text)

    def _write_mentions(self, heads: list[str]) -> None:
        found = [(head, bare) for head in heads if (bare := without_bracket(head))]
        if found:
            new = self._seen.new(keys_of([normalise(head) for head, _ in found])).tolist()
            self._mentions.write("".join(f"{found[i][1]}\t{found[i][0]}\n" for i in new).encode())
            self._collector.counts["mentions"] += len(new)


def _fault(text: str, fields: list[str]) -> SkipReason | None:
    """Return why a line is not a row, by the rules of `kg train`."""
    if "\0" in text:
        return tsv.NUL
    if not text.strip():
        return tsv.BLANK
    if "\t" in text:
        return REASONS[TAB_IN_FIELD]
    if len(fields) != len(_COLUMNS):
        return wrong_column_count(len(fields), "3")
    return _empty(fields)


def _empty(fields: list[str]) -> SkipReason | None:
    for name, field in zip(_COLUMNS, fields, strict=True):
        if not field.strip():
            return SkipReason(f"empty {name}")
    return None
