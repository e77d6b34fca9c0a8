"""How fast does `kg convert` read each format, per core, and with how much memory?

Dumps are generated in the shape of the published ones, with Chinese names. Each is converted in a
process of its own: CPU seconds of all threads, and peak memory above that of imports. N-Triples
are also parsed by pyoxigraph (a Rust parser; its triples are only iterated over), and the bzip2
readers are compared.

    pip install '.[bench]'
    bench_kg_sources.py --lines 2000000
    bench_kg_sources.py --lines 20000000 --only wikidata --folder /tmp/dumps      # 2.5 GB, kept
"""

import argparse
import bz2
import importlib.util
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from measuring import add_options, in_child, measured, processor

from kg.sources.config import ConvertConfig
from kg.sources.convert import convert_graph

_W = "http://www.wikidata.org"
_LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"
_PREF = "<http://www.w3.org/2004/02/skos/core#prefLabel>"
_ALT = "<http://www.w3.org/2004/02/skos/core#altLabel>"
_XSD = "http://www.w3.org/2001/XMLSchema#"
_OTHER = ("en", "de", "fr", "es", "ru", "ja")
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程"
)
_BLOCK = 10_000  # lines per write


def name_of(i: int) -> str:
    """Return a Chinese name of three to six characters, some shared by two numbers."""
    i -= 2 * (i % 50 == 3)
    mixed = i * 2_654_435_761 % (1 << 40)
    text = _SURNAMES[mixed % len(_SURNAMES)]
    for _ in range(2 + mixed % 4):
        mixed = mixed // 7 * 31 + 12_345
        text += chr(0x4E00 + mixed % 3000)
    return text


def wikidata(lines: int, _: random.Random) -> Iterator[str]:
    """Yield lines in the proportions of a truthy dump; every second item has a Chinese label."""
    items = lines // 34 + 1
    pick = random.Random(1).randrange
    for i in range(items):
        item = f"<{_W}/entity/Q{i}>"
        text = name_of(i)
        tags = (*_OTHER, "zh", "zh-hant") if i % 2 else _OTHER
        for tag in tags:
            label = text if tag[:2] == "zh" else f"name {i} in {tag}"
            for predicate in (_LABEL, _PREF, "<http://schema.org/name>"):
                yield f'{item} {predicate} "{label}"@{tag} .'
            yield f'{item} <http://schema.org/description> "what it is, in {tag}"@{tag} .'
        if i % 2:
            yield f'{item} {_ALT} "{text[1:]}"@zh .'
        for _ in range(4):
            relation, tail = pick(900), pick(items)
            yield f"{item} <{_W}/prop/direct/P{relation}> <{_W}/entity/Q{tail}> ."
        yield f'{item} <{_W}/prop/direct/P569> "1990-01-01T00:00:00Z"^^<{_XSD}dateTime> .'
        yield f'{item} <{_W}/prop/direct/P2044> "+{pick(9000)}"^^<{_XSD}decimal> .'
        yield f'{item} <{_W}/prop/direct/P214> "{pick(10**9)}" .'


def wikidata_json(lines: int, generator: random.Random) -> Iterator[str]:
    """Yield entities of Wikidata's JSON dump, with the references that make it large."""
    yield "["
    for i in range(lines):
        tags = (*_OTHER, "zh") if i % 2 else _OTHER
        claims: dict[str, list[Any]] = {}
        for _ in range(8):
            relation, tail = f"P{generator.randrange(900)}", generator.randrange(lines)
            value = {"entity-type": "item", "numeric-id": tail, "id": f"Q{tail}"}
            snak = {"snaktype": "value", "property": relation, "hash": f"{tail:040d}",
                    "datavalue": {"value": value, "type": "wikibase-entityid"}}  # fmt: skip
            references = [{"hash": f"{i:040d}", "snaks": {"P143": [snak]}}]
            claims.setdefault(relation, []).append(
                {"mainsnak": snak, "rank": "normal", "references": references}
            )
        entity = {"type": "item", "id": f"Q{i}", "claims": claims, "labels": {
            tag: {"language": tag, "value": name_of(i)} for tag in tags}}  # fmt: skip
        yield json.dumps(entity, ensure_ascii=False) + ","
    yield "]"


def dbpedia(lines: int, generator: random.Random) -> Iterator[str]:
    """Yield lines of DBpedia's Turtle files: objects, literals, redirects."""
    base, ontology = "http://zh.dbpedia.org/resource", "http://dbpedia.org/ontology"
    size = lines // 5 + 1
    for i in range(lines):
        head, tail = name_of(generator.randrange(size)), name_of(generator.randrange(size))
        if i % 10 == 0:
            yield f"<{base}/{head}_(别名)> <{ontology}/wikiPageRedirects> <{base}/{head}> ."
        elif i % 10 < 3:
            yield f'<{base}/{head}> <{ontology}/height> "{i}"^^<{_XSD}double> .'
        else:
            yield f"<{base}/{head}> <{ontology}/p{i % 500}> <{base}/{tail}> ."


def conceptnet(lines: int, generator: random.Random) -> Iterator[str]:
    """Yield assertions, one in ten between two Chinese words."""
    for i in range(lines):
        lang = "zh" if i % 10 == 0 else generator.choice(_OTHER)
        start, end = (f"/c/{lang}/{name_of(generator.randrange(lines))}/n" for _ in range(2))
        data = f'{{"dataset": "/d/wiktionary", "sources": [{{}}], "weight": {i % 4}.0}}'
        yield f"/a/[/r/IsA/,{start}/,{end}/]\t/r/IsA\t{start}\t{end}\t{data}"


def wikidata5m(lines: int, generator: random.Random) -> Iterator[str]:
    """Yield triples and names, four to one."""
    size = lines // 5
    for i in range(size):
        yield f"Q{i}\tname of {i}\talias of {i}\tanother alias"
        for _ in range(4):
            yield f"Q{i}\tP{generator.randrange(800)}\tQ{generator.randrange(size)}"


def ownthink(lines: int, generator: random.Random) -> Iterator[str]:
    """Yield OwnThink's CSV, one record in twenty with quotes."""
    yield "实体,属性,值"
    for i in range(lines - 1):
        head = name_of(i // 6) + ("[名字的义项]" if i // 6 % 3 == 0 else "")
        if i % 20 == 0:
            yield f'{head},描述,"{name_of(i)},是一个""例子"""'
        else:
            yield f"{head},属性{i % 300},{name_of(generator.randrange(lines))}"


SHAPES: dict[str, tuple[Callable[[int, random.Random], Iterator[str]], int]] = {
    "wikidata": (wikidata, 1),
    "dbpedia": (dbpedia, 1),
    "wikidata5m": (wikidata5m, 1),
    "conceptnet": (conceptnet, 1),
    "ownthink": (ownthink, 1),
    "wikidata_json": (wikidata_json, 50),  # entities are long: a fiftieth of the lines
}


def generate(path: Path, shape: str, lines: int) -> None:
    """Write a dump unless it exists."""
    if path.exists():
        return
    make, share = SHAPES[shape]
    block: list[str] = []
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in make(lines // share, random.Random(0)):
            block.append(line)
            if len(block) == _BLOCK:
                file.write("\n".join(block) + "\n")
                block.clear()
        file.writelines(f"{line}\n" for line in block)


def convert(path: Path, out: Path) -> dict[str, Any]:
    """Return cost and counts of one conversion."""
    config = ConvertConfig(lang="zh")
    cost = measured(lambda: convert_graph([path], out, config=config, overwrite=True).counts)
    counts = cost.pop("found")
    names = ("lines", "triples", "entities", "mentions")
    return {**cost, **{name: counts.get(name, 0) for name in names}}


def parse_with_pyoxigraph(path: Path) -> dict[str, Any]:
    """Return the cost of iterating over the triples of pyoxigraph."""
    import pyoxigraph

    kind = pyoxigraph.RdfFormat.N_TRIPLES
    return measured(lambda: sum(1 for _ in pyoxigraph.parse(path=str(path), format=kind)))


def read_bzip2(path: Path, how: str) -> dict[str, float]:
    """Return MB of text per CPU second and per second of one reader."""
    if how == "standard library":
        file: Any = bz2.BZ2File(path)
    else:
        import indexed_bzip2

        cores = len(os.sched_getaffinity(0))
        file = indexed_bzip2.open(str(path), parallelization=cores)
    size, cpu, clock = 0, time.process_time(), time.monotonic()
    while block := file.read(1 << 20):
        size += len(block)
    spent = time.process_time() - cpu, time.monotonic() - clock
    return {"mb_per_cpu_s": size / 1e6 / spent[0], "mb_per_s": size / 1e6 / spent[1]}


def compare_bzip2(path: Path) -> dict[str, Any]:
    """Compare the readers on the first 40 MB of a dump."""
    packed = path.with_suffix(".bz2")
    with path.open("rb") as file:
        packed.write_bytes(bz2.compress(file.read(40_000_000)))
    readers = ["standard library"]
    readers += ["indexed_bzip2"] * (importlib.util.find_spec("indexed_bzip2") is not None)
    found = {how: in_child(read_bzip2, packed, how) for how in readers}
    packed.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, lines=1_000_000)
    parser.add_argument("--only", choices=SHAPES, action="append", help="shapes to convert")
    parser.add_argument("--folder", type=Path, help="keep and reuse the generated dumps here")
    args = parser.parse_args()
    result: dict[str, Any] = {"lines": args.lines, "processor": processor()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        tiny = Path(temporary) / "tiny.nt"
        generate(tiny, "wikidata", 2000)
        in_child(convert, tiny, Path(temporary) / "tiny.tsv")  # compiles, once for all processes
        for shape in args.only or SHAPES:
            path = folder / f"{shape}-{args.lines}"
            generate(path, shape, args.lines)
            cost = in_child(convert, path, Path(temporary) / f"{shape}.tsv")
            cost["bytes"] = path.stat().st_size
            cost["lines_per_cpu_s"] = cost["lines"] / cost["cpu_s"]
            result[shape] = cost
            print(
                f"{shape:14s} {cost['lines']:>11,} lines, {cost['bytes'] / 1e6:,.0f} MB: "
                f"{cost['cpu_s']:.1f} CPU s, {cost['lines_per_cpu_s'] / 1e3:,.0f} k lines/s, "
                f"{cost['bytes'] / 1e6 / cost['cpu_s']:.0f} MB/s, peak {cost['mb']:,.0f} MB; "
                f"{cost['triples']:,} triples, {cost['mentions']:,} mentions"
            )
            if shape == "wikidata":
                if importlib.util.find_spec("pyoxigraph"):
                    other = in_child(parse_with_pyoxigraph, path)
                    cost["pyoxigraph_cpu_s"] = other["cpu_s"]
                    cost["ratio_to_pyoxigraph"] = other["cpu_s"] / cost["cpu_s"]
                    rate = other["found"] / other["cpu_s"] / 1e3
                    print(f"pyoxigraph, iterating only: {rate:,.0f} k lines/s")
                result["bzip2"] = compare_bzip2(path)
                print(result["bzip2"])
    print(json.dumps({**result, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
