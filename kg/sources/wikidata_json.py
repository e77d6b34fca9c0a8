"""Wikidata's JSON dump: one entity per line, in an array.

https://doc.wikimedia.org/Wikibase/master/php/docs_topics_json.html. As in the "truthy" RDF dump, of
the statements of a property only those of the best rank count, and deprecated ones never.
"""

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import SkipReason
from data.tsv import Rejects, bounded_lines, open_bytes, read_start
from kg.sources.collector import Collector
from kg.sources.config import ConvertConfig
from kg.sources.languages import ALIAS, ONLY_ID, UNWANTED, Languages

_BATCH = 2000  # entities


def is_json(path: Path) -> bool:
    """Return whether a file of Wikidata is the JSON dump rather than N-Triples."""
    return read_start(path, 64).lstrip(b"\xef\xbb\xbf\r\n\t ")[:1] in (b"[", b"{")


def read_json(path: Path, config: ConvertConfig, collector: Collector, rejects: Rejects) -> None:
    """Read one file.

    Raises:
        InputError: It cannot be read, or is damaged.
    """
    languages = Languages(config)
    statements: list[tuple[str, str, str]] = []
    labels: list[tuple[str, int, str]] = []
    seen: set[str] = set()  # properties
    lines = tqdm(desc=f"reading {path.name}", unit=" lines", unit_scale=True, disable=None)
    with open_bytes(path) as file, lines as bar:
        for number, raw in enumerate(bounded_lines(file, path), 1):
            collector.lines += 1
            line = raw.strip().rstrip(b",")
            if line in (b"[", b"]", b""):
                continue
            try:
                entity = json.loads(line)
                found = _statements(entity, collector)
                labels += _labels(entity, languages)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                kind = "not JSON" if isinstance(error, ValueError) else "not a Wikidata entity"
                text = raw.decode("utf-8", "replace").rstrip("\r\n")
                rejects.add(number, SkipReason(kind, str(error)[:100]), text)
                continue
            statements += found
            new = {relation for _, relation, _ in found} - seen
            seen |= new
            labels += [(relation, ONLY_ID, relation) for relation in sorted(new)]
            if number % _BATCH == 0:
                collector.add_rows(statements, labels)
                statements, labels = [], []
                bar.update(_BATCH)
        collector.add_rows(statements, labels)


def _labels(entity: dict[str, Any], languages: Languages) -> list[tuple[str, int, str]]:
    """Return labels and aliases as (id, rank, text)."""
    found = []
    for tag, label in dict(entity.get("labels") or {}).items():
        if (rank := languages.rank(tag)) < UNWANTED:
            found.append((entity["id"], rank, label["value"]))
    for tag, aliases in dict(entity.get("aliases") or {}).items():
        if languages.rank(tag) < UNWANTED:
            found += [(entity["id"], ALIAS, alias["value"]) for alias in aliases]
    return found


def _statements(entity: dict[str, Any], collector: Collector) -> list[tuple[str, str, str]]:
    """Return the best statements whose value is an item; count the others."""
    if entity["id"][0] != "Q":
        return []
    collector.counts["items_with_labels"] += bool(entity.get("labels"))
    found = []
    for relation, claims in dict(entity.get("claims") or {}).items():
        ranks = {claim["rank"] for claim in claims}
        best = "preferred" if "preferred" in ranks else "normal"
        for claim in claims:
            snak = claim["mainsnak"]
            if claim["rank"] != best:
                continue
            if snak["snaktype"] != "value":
                collector.counts["dropped: blank node"] += 1
            elif snak["datavalue"]["type"] != "wikibase-entityid":
                collector.counts[f"dropped: literal, {snak['datavalue']['type']}"] += 1
            else:
                value = snak["datavalue"]["value"]
                tail = value.get("id") or f"Q{value['numeric-id']}"
                if tail[0] == "Q":
                    found.append((entity["id"], relation, tail))
                else:
                    collector.counts["dropped: value is not an item"] += 1
    return found
