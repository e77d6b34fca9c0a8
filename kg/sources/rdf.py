"""Statements and names of RDF graphs in N-Triples: Wikidata, DBpedia and others.

- Wikidata ("truthy" dump, https://www.mediawiki.org/wiki/Wikibase/Indexing/RDF_Dump_Format):
  predicates under `/prop/direct/` between two items. An id is the last part of its IRI, so that
  `wdt:P31` is named by the labels of `wd:P31`. Without a label an item has no name.
- DBpedia: resources are named by a label, or by their IRI where it is of the language's chapter.
  Redirects become mentions, disambiguation pages are dropped.
- Others: IRIs are named by a label, or by their last part.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from data.read_ahead import map_ahead
from data.tsv import Rejected, Rejects
from kg.arrays import Bytes, Hashes, Ints
from kg.reading.dumps import Chunk, read_chunks
from kg.reading.names import gather_names
from kg.reading.row_scanner import hash_spans
from kg.sources.collector import Collector, Labels
from kg.sources.config import ConvertConfig
from kg.sources.key_index import KeyIndex, keys_of
from kg.sources.languages import ALIAS, FROM_IRI, ONLY_ID, UNTAGGED, UNWANTED, Languages
from kg.sources.ntriples import (
    IRI,
    OBJECT,
    PLAIN,
    PREDICATE,
    REASONS,
    SUBJECT,
    SUFFIX,
    TAGGED,
    Terms,
    local_begin,
    scan,
    starts_with,
    unescape,
)

_LABEL, _ALIAS, _REDIRECT, _DISAMBIGUATION = range(1, 5)  # roles of predicates; 0: a statement
_ROLES = {
    "http://www.w3.org/2000/01/rdf-schema#label": _LABEL,
    "http://www.w3.org/2004/02/skos/core#prefLabel": _LABEL,
    "http://www.w3.org/2004/02/skos/core#altLabel": _ALIAS,
    "http://dbpedia.org/ontology/wikiPageRedirects": _REDIRECT,
    "http://dbpedia.org/ontology/wikiPageDisambiguates": _DISAMBIGUATION,
}
_ENTITY = "http://www.wikidata.org/entity/"
_DIRECT = "http://www.wikidata.org/prop/direct/P"
_BAD_ESCAPE = next(reason for reason in REASONS.values() if reason.kind == "invalid escape")
_MAX_THREADS = 4


def _bytes(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


_KNOWN = keys_of(list(_ROLES))
_ROLE_OF = np.array(list(_ROLES.values()), np.uint8)


def _scan(chunk: Chunk) -> Terms:
    return scan(np.frombuffer(chunk.data, np.uint8), chunk.data.count(b"\n"))


class RdfReader:
    """Reads files of N-Triples into a collector.

    Args:
        config: The settings.
        collector: Receives statements and labels.
        rejects: Collects lines that are not N-Triples.
    """

    def __init__(self, config: ConvertConfig, collector: Collector, rejects: Rejects) -> None:
        self._wikidata = self._dbpedia = False
        self._collector, self._rejects = collector, rejects
        self._languages = Languages(config)
        self._iris, self._predicates = KeyIndex(), KeyIndex()
        language = config.lang.split("-")[0]
        chapters = [f"http://{language}.dbpedia.org/resource/"]
        chapters += ["http://dbpedia.org/resource/"] * ("en" in (language, config.fallback_lang))
        self._chapters = [_bytes(chapter) for chapter in chapters]
        self._last_item = np.uint64(0)

    def read(self, path: Path, kind: str) -> None:
        """Read one file of Wikidata, DBpedia or (`ntriples`) another graph.

        Raises:
            InputError: It cannot be read, or is damaged.
        """
        self._wikidata, self._dbpedia = kind == "wikidata", kind == "dbpedia"
        threads = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        with tqdm(desc=f"reading {path.name}", unit=" lines", unit_scale=True, disable=None) as bar:
            for chunk, terms in map_ahead(_scan, read_chunks(path, 0), threads):
                part = _ChunkReader(self, chunk, terms)
                part.read()
                self._rejects.add_all(sorted(part.rejected))
                lines = chunk.data.count(b"\n")
                self._collector.lines += lines
                bar.update(lines)


class _ChunkReader:
    """One chunk of a file."""

    def __init__(self, reader: RdfReader, chunk: Chunk, terms: Terms) -> None:
        self._reader, self._chunk, self._terms = reader, chunk, terms
        self._data = np.frombuffer(chunk.data, np.uint8)
        self._counts = reader._collector.counts
        self.rejected = [
            Rejected(chunk.line + line, REASONS[reason], self._decoded(begin, end))
            for line, begin, end, reason in terms.rejected.tolist()
        ]

    def _decoded(self, begin: int, end: int) -> str:
        return self._chunk.data[begin:end].decode("utf-8", "replace").removesuffix("\r")

    def read(self) -> None:
        """Pass statements and labels on to the collector."""
        span, kind = self._terms.span, self._terms.kind
        predicate: Hashes = hash_spans(
            self._data, span[:, PREDICATE, 0].copy(), span[:, PREDICATE, 1].copy()
        )
        role = np.zeros(len(predicate), np.uint8)
        for known, this in zip(_KNOWN, _ROLE_OF, strict=True):
            role[predicate == known] = this
        literal = kind[:, 1] >= PLAIN
        between = (kind == IRI).all(axis=1)
        named = np.flatnonzero(
            ((role == _LABEL) | (role == _ALIAS)) & literal & (kind[:, 0] == IRI)
        )
        self._take_labels(named, role[named])
        if self._reader._wikidata:
            statement = starts_with(self._data, span[:, PREDICATE].copy(), _bytes(_DIRECT))
        else:
            self._take_redirects(np.flatnonzero((role == _REDIRECT) & between))
            pages = np.flatnonzero((role == _DISAMBIGUATION) & (kind[:, 0] == IRI))
            if len(pages):
                self._reader._collector.drop(self._keys(pages, span[pages, SUBJECT], SUBJECT))
            statement = role == 0
        self._count_dropped(np.flatnonzero(statement & ~between))
        self._take_statements(np.flatnonzero(statement & between))

    # ---- Keys and texts

    def _keys(self, rows: Ints, span: Ints, column: int) -> Hashes:
        """Return the keys of terms at `span` (int64 `[n, 2]`) of a column of some rows."""
        keys: Hashes = hash_spans(self._data, span[:, 0].copy(), span[:, 1].copy())
        for i in np.flatnonzero(self._terms.escaped[rows] >> column & 1).tolist():
            plain = self._text(span[i])
            if plain is not None:
                keys[i] = keys_of([plain])[0]
        return keys

    def _text(self, span: Ints) -> str | None:
        raw = self._chunk.data[int(span[0]) : int(span[1])].decode()
        try:
            return unescape(raw)
        except ValueError:
            return None

    def _texts(self, rows: Ints, span: Ints, column: int) -> pa.LargeStringArray:
        """Return the texts at `span`, with escapes replaced; null: an escape is invalid."""
        texts = gather_names(self._data, span, np.arange(len(span)))
        escaped = self._terms.escaped[rows] >> column & 1 == 1
        if not escaped.any():
            return texts
        plain = [self._text(span[i]) for i in np.flatnonzero(escaped).tolist()]
        return pc.replace_with_mask(texts, pa.array(escaped), pa.array(plain, pa.large_string()))

    def _items(self, rows: Ints, column: int) -> tuple[NDArray[np.bool_], Ints]:
        """Return which terms of a column are ids of the graph, and the spans of those ids."""
        span = self._terms.span[rows, column]
        if not self._reader._wikidata:
            return np.ones(len(rows), bool), span
        found = starts_with(self._data, span, _bytes(_ENTITY))
        return found, span + np.array([len(_ENTITY), 0])

    def _named(self, rows: Ints, span: Ints, column: int, key: Hashes, rank: int) -> Labels:
        """Return labels made from IRIs: their last part, percent-decoded, `_` as a space."""
        begin = local_begin(self._data, span)
        if rank == FROM_IRI and self._reader._dbpedia:
            begin = self._after_chapter(span)
            of_chapter = begin > 0
            rows, span, begin = rows[of_chapter], span[of_chapter], begin[of_chapter]
            key = key[of_chapter]
        texts = self._texts(rows, np.stack([begin, span[:, 1]], axis=1), column)
        texts = pc.fill_null(texts, "")
        if b"%" in self._chunk.data:
            coded = pc.match_substring(texts, "%")
            plain = [_percent_decoded(text) for text in texts.filter(coded).to_pylist()]
            texts = pc.replace_with_mask(texts, coded, pa.array(plain, pa.large_string()))
        texts = pc.replace_substring(texts, "_", " ")
        return Labels(key, np.full(len(key), rank, np.uint8), texts, texts)

    def _after_chapter(self, span: Ints) -> Ints:
        """Return where the title of each DBpedia resource begins; 0: not of the chapters."""
        begin = np.zeros(len(span), np.int64)
        for chapter in self._reader._chapters:
            here = starts_with(self._data, span, chapter)
            begin[here] = span[here, 0] + len(chapter)
        return begin

    # ---- What triples mean

    def _take_labels(self, rows: Ints, role: Bytes) -> None:
        ranks = self._ranks(rows)
        is_item, subject = self._items(rows, SUBJECT)
        if self._reader._wikidata:
            self._count_items(rows[is_item & (role == _LABEL)])
        good = (ranks < UNWANTED) & is_item
        rows, role, ranks, subject = rows[good], role[good], ranks[good], subject[good]
        if not len(rows):
            return
        keys = self._keys(rows, subject, SUBJECT)
        ranks[role == _ALIAS] = ALIAS
        if self._reader._wikidata:
            # The same text as rdfs:label and skos:prefLabel, one after the other.
            text = self._keys(rows, self._terms.span[rows, OBJECT], OBJECT)
            again = np.zeros(len(rows), bool)
            again[1:] = (keys[1:] == keys[:-1]) & (text[1:] == text[:-1])
            again[1:] &= ranks[1:] == ranks[:-1]
            rows, ranks, subject = rows[~again], ranks[~again], subject[~again]
            keys = keys[~again]
            ids = self._texts(rows, subject, SUBJECT)
        else:
            begin = local_begin(self._data, subject)
            ids = self._texts(rows, np.stack([begin, subject[:, 1]], axis=1), SUBJECT)
        texts = self._texts(rows, self._terms.span[rows, OBJECT], OBJECT)
        if texts.null_count:
            bad = np.asarray(texts.is_null())
            self._reject(rows[bad])
            texts = pc.fill_null(texts, "")
        ids = pc.replace_substring(pc.fill_null(ids, ""), "_", " ")
        self._reader._collector.add_labels(Labels(keys, ranks.astype(np.uint8), ids, texts))

    def _ranks(self, rows: Ints) -> Ints:
        """Return the ranks of the language tags of some literals."""
        ranks = np.full(len(rows), UNTAGGED, np.int64)
        tagged = np.flatnonzero(self._terms.kind[rows, 1] == TAGGED)
        if len(tagged):
            span = self._terms.span[rows[tagged], SUFFIX]
            keys = hash_spans(self._data, span[:, 0].copy(), span[:, 1].copy())
            _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            tags = [self._chunk.data[b:e].decode() for b, e in span[first].tolist()]
            ranks[tagged] = np.array([self._reader._languages.rank(t) for t in tags])[inverse]
        return ranks

    def _count_items(self, rows: Ints) -> None:
        """Count the items with a label in any language; the dump is grouped by item."""
        span = self._terms.span[rows, SUBJECT]
        item = span[self._data[span[:, 0] + len(_ENTITY)] == ord("Q")]
        if len(item):
            keys: Hashes = hash_spans(self._data, item[:, 0].copy(), item[:, 1].copy())
            self._counts["items_with_labels"] += int((keys[1:] != keys[:-1]).sum())
            self._counts["items_with_labels"] += int(keys[0] != self._reader._last_item)
            self._reader._last_item = keys[-1]

    def _take_redirects(self, rows: Ints) -> None:
        if len(rows):
            ends = [
                self._keys(rows, self._terms.span[rows, column], column)
                for column in (SUBJECT, OBJECT)
            ]
            self._reader._collector.add_redirects(np.stack(ends, axis=1))
            self._name_iris(rows, ends[0], ends[1])

    def _take_statements(self, rows: Ints) -> None:
        collector = self._reader._collector
        is_head, head = self._items(rows, SUBJECT)
        is_tail, tail = self._items(rows, OBJECT)
        good = is_head & is_tail
        if self._reader._wikidata:
            for span in (head, tail):
                good[good] = self._data[span[good, 0]] == ord("Q")
            self._counts["dropped: value is not an item"] += len(rows) - int(good.sum())
        rows, head, tail = rows[good], head[good], tail[good]
        if not len(rows):
            return
        relation = self._terms.span[rows, PREDICATE]
        if self._reader._wikidata:
            relation = relation + np.array([len(_DIRECT) - 1, 0])
        keys = np.stack(
            [
                self._keys(rows, head, SUBJECT),
                self._keys(rows, relation, PREDICATE),
                self._keys(rows, tail, OBJECT),
            ],
            axis=1,
        )
        collector.add_statements(keys)
        new = self._reader._predicates.new(keys[:, 1].copy())
        if len(new):
            collector.add_labels(
                self._named(rows[new], relation[new], PREDICATE, keys[new, 1], ONLY_ID)
            )
        if not self._reader._wikidata:
            self._name_iris(rows, keys[:, 0].copy(), keys[:, 2].copy())

    def _name_iris(self, rows: Ints, heads: Hashes, tails: Hashes) -> None:
        """Name resources by their IRI, each once."""
        for column, keys in ((SUBJECT, heads), (OBJECT, tails)):
            new = self._reader._iris.new(keys)
            if len(new):
                span = self._terms.span[rows[new], column]
                labels = self._named(rows[new], span, column, keys[new], FROM_IRI)
                self._reader._collector.add_labels(labels)

    # ---- What is left out

    def _count_dropped(self, rows: Ints) -> None:
        """Count statements that are not between two resources, literals by datatype."""
        kind = self._terms.kind[rows, 1]
        for name, this in (("plain", PLAIN), ("with a language tag", TAGGED)):
            self._counts[f"dropped: literal, {name}"] += int((kind == this).sum())
        self._counts["dropped: blank node"] += int((kind < PLAIN).sum())
        typed = rows[kind > TAGGED]
        span = self._terms.span[typed, SUFFIX]
        keys: Hashes = hash_spans(self._data, span[:, 0].copy(), span[:, 1].copy())
        _, first, size = np.unique(keys, return_index=True, return_counts=True)
        for (begin, end), count in zip(span[first].tolist(), size.tolist(), strict=True):
            name = re.split("[#/]", self._chunk.data[begin:end].decode())[-1]
            self._counts[f"dropped: literal, {name}"] += count

    def _reject(self, rows: Ints) -> None:
        for row in rows.tolist():
            begin = self._chunk.data.rfind(b"\n", 0, int(self._terms.span[row, SUBJECT, 0])) + 1
            text = self._decoded(begin, self._chunk.data.index(b"\n", begin))
            number = self._chunk.line + int(self._terms.line[row])
            self.rejected.append(Rejected(number, _BAD_ESCAPE, text))


def _percent_decoded(text: str) -> str:
    """Return the text percent-decoded, or as it is if that gives no valid UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text
