"""Wordnets: WN-LMF XML and OMW's tab files.

The Chinese wordnets have lemmas only. Their relations are those of Princeton WordNet: give its
WN-LMF file as well (OMW's `omw-en`, or an Open English WordNet). Synsets of WN-LMF files are the
same if they have one ILI; those of tab files (`02084071-n`) are found by the end of the synset's
id (`omw-en-02084071-n`).
"""

import re
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from data.errors import InputError, RowError
from data.tsv import Rejects, open_bytes, read_start
from kg.sources.collector import Collector
from kg.sources.config import ConvertConfig
from kg.sources.languages import ALIAS, UNWANTED, Languages
from kg.sources.tab_files import Labels, Statements, read_lines

# Relation of WN-LMF -> name, and whether it points the other way.
_HYPERNYM, _ANCESTOR = "上位词", "属于"
_RELATIONS = {
    "hypernym": (_HYPERNYM, False),
    "hyponym": (_HYPERNYM, True),
    "instance_hypernym": (_HYPERNYM, False),
    "instance_hyponym": (_HYPERNYM, True),
    "mero_part": ("部分", False),
    "holo_part": ("部分", True),
    "mero_member": ("成员", False),
    "holo_member": ("成员", True),
    "mero_substance": ("材料", False),
    "holo_substance": ("材料", True),
    "similar": ("近义", False),
    "also": ("相关", False),
    "antonym": ("反义", False),
    "attribute": ("属性", False),
    "causes": ("导致", False),
    "entails": ("蕴含", False),
}
_OFFSET = re.compile(r"(\d{8}-[nvasr])\Z")
# Lexicons whose ids contain offsets of WordNet 3.1; those of OMW are of 3.0.
_OTHER_OFFSETS = ("oewn", "ewn", "omw-en31")
_GAPS = ("GAP!", "PSEUDOGAP!")  # of OMW: the language has no word for this synset


class WordnetReader:
    """Gathers synsets, lemmas and relations of several files; `finish` passes them on."""

    def __init__(self, config: ConvertConfig, collector: Collector, rejects: Rejects) -> None:
        self._config, self._collector, self._rejects = config, collector, rejects
        self._languages = Languages(config)
        self._lemmas: dict[str, list[tuple[str, int]]] = {}  # of a synset: text, rank
        self._relations: list[tuple[str, str, str]] = []
        self._same: dict[str, str] = {}  # id of a synset -> ILI, or offset and part of speech

    def read(self, path: Path) -> None:
        """Read one file.

        Raises:
            InputError: It cannot be read, is damaged, or not XML.
        """
        if read_start(path, 64).lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b"<"):
            with open_bytes(path) as file:
                try:
                    self._read_lmf(file)
                except ElementTree.ParseError as error:
                    raise InputError(f"{path} is not valid XML: {error}.") from None
        else:
            self._tag = ""
            read_lines(path, self._take_line, self._collector, self._rejects)

    # ---- OMW's tab files

    def _take_line(self, line: bytes, _: Statements, __: Labels) -> None:
        text = line.decode()
        if text.startswith("#"):
            header = text.lstrip("# ").split("\t")
            if len(header) == 4:
                self._tag = header[1]
            return
        fields = text.split("\t")
        if len(fields) < 3:
            raise RowError("wrong column count", f"{len(fields)}, expected 3")
        synset, kind, lemma = fields[0].strip(), fields[1].strip(), fields[2]
        if not _OFFSET.fullmatch(synset):
            raise RowError("not a synset", synset[:50])
        tag, colon, name = kind.rpartition(":")
        if name == "lemma":
            self._add_lemma(_offset(synset), lemma, tag if colon else self._tag)

    def _add_lemma(self, synset: str, lemma: str, tag: str) -> None:
        rank = self._languages.rank(tag)
        lemma = lemma.strip().strip('"').replace("_", " ")
        if rank == UNWANTED:
            self._collector.counts["dropped: lemma in another language"] += 1
        elif lemma and lemma not in _GAPS:
            stem, plus, ending = lemma.partition("+")  # 美丽+的: the ending is optional
            names = [stem, stem + ending] if plus and ending in ("的", "地") else [lemma]
            self._lemmas.setdefault(synset, []).extend((name, rank) for name in names)

    # ---- WN-LMF

    def _read_lmf(self, file: BinaryIO) -> None:
        """Read a file of https://globalwordnet.github.io/schemas/ (1.0 to 1.4) by element."""
        tag = lexicon = ""
        lemmas: list[tuple[str, str, str]] = []  # synset, lemma, language
        for event, element in ElementTree.iterparse(file, events=("start", "end")):
            if event == "start" and element.tag == "Lexicon":
                tag, lexicon = element.get("language", ""), element.get("id", "")
            elif event == "start":
                continue
            elif element.tag == "LexicalEntry":
                lemma = element.find("Lemma")
                written = lemma.get("writtenForm", "") if lemma is not None else ""
                lemmas += [(s.get("synset", ""), written, tag) for s in element.iter("Sense")]
                element.clear()
            elif element.tag == "Synset":
                self._take_synset(element, lexicon)
                element.clear()
            self._collector.lines += event == "end" and element.tag in ("LexicalEntry", "Synset")
        for synset, written, language in lemmas:
            self._add_lemma(synset, written, language)

    def _take_synset(self, element: ElementTree.Element, lexicon: str) -> None:
        synset = element.get("id", "")
        ili = element.get("ili", "")
        offset = None if lexicon.startswith(_OTHER_OFFSETS) else _OFFSET.search(synset)
        if ili not in ("", "in"):  # "in": proposed, without a number
            self._same[synset] = ili
            if offset:
                self._same[_offset(offset[1])] = ili
        elif offset:
            self._same[synset] = _offset(offset[1])
        for relation in element.iter("SynsetRelation"):
            known = _RELATIONS.get(relation.get("relType", ""))
            if known is None:
                self._collector.counts["dropped: relation of another type"] += 1
            else:
                name, inverse = known
                ends = synset, relation.get("target", "")
                head, tail = reversed(ends) if inverse else ends
                self._relations.append((head, name, tail))

    # ---- Names and relations

    def finish(self) -> None:
        """Pass synsets on: each is named by its first lemma, the others are mentions."""
        lemmas: dict[str, list[tuple[str, int]]] = {}
        for synset, found in self._lemmas.items():
            lemmas.setdefault(self._concept(synset), []).extend(found)
        labels = []
        for concept, found in lemmas.items():
            best = min(range(len(found)), key=lambda i: found[i][1])
            labels += [
                (concept, rank if i == best else ALIAS, text)
                for i, (text, rank) in enumerate(found)
            ]
        statements = self._named_statements(lemmas.keys())
        names = sorted({relation for _, relation, _ in statements})
        labels += [(relation, 0, relation) for relation in names]
        self._collector.add_rows(statements, labels)

    def _concept(self, synset: str) -> str:
        """Return the id that a synset has in all files."""
        same = self._same.get(synset) or synset
        return self._same.get(same) or same

    def _named_statements(self, named: Container[str]) -> list[tuple[str, str, str]]:
        """Return distinct statements; hypernyms without a name are replaced by their hypernyms."""
        parents: dict[str, list[str]] = {}
        found: dict[tuple[str, str, str], None] = {}
        for head, relation, tail in self._relations:
            row = self._concept(head), relation, self._concept(tail)
            if relation == _HYPERNYM:
                parents.setdefault(row[0], []).append(row[2])
            elif row[0] in named and row[2] in named:
                found[row] = None
            else:
                self._collector.counts["dropped: an end has no name"] += 1
        for word in parents:
            if word in named:
                above = _nearest(word, parents, named)
                found.update({(word, _HYPERNYM, parent): None for parent in above})
                if self._config.closure:
                    every = _ancestors(word, parents)
                    found.update({(word, _ANCESTOR, a): None for a in every if a in named})
            else:
                self._collector.counts["synsets_without_a_name"] += 1
        return list(found)


def _nearest(word: str, parents: dict[str, list[str]], named: Container[str]) -> list[str]:
    """Return the nearest ancestors with a name on each way up."""
    found: dict[str, None] = {}
    waiting, seen = list(parents[word]), {word}
    while waiting:
        parent = waiting.pop(0)
        if parent in seen:
            continue
        seen.add(parent)
        if parent in named:
            found[parent] = None
        else:
            waiting += parents.get(parent, [])
    return list(found)


def _ancestors(word: str, parents: dict[str, list[str]]) -> list[str]:
    """Return all ancestors, nearest first; a cycle ends the way."""
    found: dict[str, None] = {}
    waiting = list(parents[word])
    while waiting:
        parent = waiting.pop(0)
        if parent != word and parent not in found:
            found[parent] = None
            waiting += parents.get(parent, [])
    return list(found)


def _offset(synset: str) -> str:
    """Return offset and part of speech; satellite adjectives are adjectives, as in OMW."""
    return synset[:-1] + "a" if synset.endswith("-s") else synset
