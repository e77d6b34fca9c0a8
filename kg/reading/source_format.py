"""Detect the format of a file of a knowledge graph from its first bytes."""

import re
from pathlib import Path

from data.errors import InputError
from data.tsv import read_start

_START = 1 << 16  # bytes
TSV = "tsv"  # triples for `kg train`
DESCRIPTIONS = {
    "wikidata": "Wikidata",
    "dbpedia": "DBpedia N-Triples",
    "conceptnet": "ConceptNet assertions",
    "wikidata5m": "Wikidata5M",
    "wordnet": "a wordnet (WN-LMF or OMW)",
    "ownthink": "OwnThink's CSV",
    "ntriples": "N-Triples",
    TSV: "triples in TSV",
}
_ARCHIVES = {b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
_PREFIX = re.compile(rb"^\s*@?(?:prefix\s+[\w.-]*:|base)\s*<", re.IGNORECASE | re.MULTILINE)
_TRIPLE = re.compile(  # a line of N-Triples; a TSV of IRIs has no dot
    rb'^(?:<[^>\n]*>|_:\S+)[ \t]*<[^>\n]*>[ \t]*[<_"][^\n]*\.[ \t]*(?:#[^\n]*)?\r?$', re.MULTILINE
)
_RULES = (  # the first that matches the beginning, without comments
    ("wikidata", re.compile(rb'\s*(?:\[\s*)?\{"(?:type|id|pageid)":')),
    ("wordnet", re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!DOCTYPE )?\s*<?LexicalResource")),
    ("wordnet", re.compile(rb"\d{8}-[nvasr]\t[^\t\n]+\t")),
    ("conceptnet", re.compile(rb"/a/\[")),
    ("ownthink", re.compile("实体,属性,值\r?\n".encode())),
    ("wikidata5m", re.compile(rb"Q\d+\tP\d+\tQ\d+\r?\n")),
    ("wikidata5m", re.compile(rb"[QP]\d+\t[^\n]*\n")),
    (TSV, re.compile(rb"[^\t\n]+\t[^\t\n]+\t[^\t\n]+(?:\n|\Z)")),
)


def detect_format(path: Path) -> str:
    """Return the format of a file, a key of `DESCRIPTIONS`; "" if it is unknown.

    Raises:
        InputError: The file cannot be read, is damaged, empty, or an archive of files.
    """
    start = read_start(path, _START)
    kind = next((kind for magic, kind in _ARCHIVES.items() if start.startswith(magic)), "")
    if kind or start[257:262] == b"ustar":
        raise InputError(f"{path} is a {kind or 'tar'} archive. Unpack it and give its files.")
    if not start:
        raise InputError(f"{path} is empty.")
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    if start.startswith(b"#") and len(start.split(b"\n", 1)[0].split(b"\t")) == 4:
        return "wordnet"  # the header of an OMW file: name, language, URL, licence
    lines = [line for line in start.split(b"\n") if not line.startswith(b"#")]
    body = b"\n".join(lines).lstrip(b"\r\n")
    if _PREFIX.search(body):
        raise InputError(
            f"{path} is Turtle with prefixes. Convert it to N-Triples first, such as with "
            "`riot --output=ntriples`."
        )
    if _TRIPLE.search(body):
        if b"wikidata.org/" in body:
            return "wikidata"
        return "dbpedia" if b"dbpedia.org/" in body else "ntriples"
    return next((name for name, rule in _RULES if rule.match(body)), "")
