"""Speed and memory of `lattice build`, compared with the reference's preprocessing in the same run.

The baseline is a plain re-implementation of the reference: one caption at a time, BERT's basic and
WordPiece tokenization in Python, a trie of dictionaries traversed token by token, one line of text
per caption. Its tokens are checked to equal ours, and its matches to be among ours. Captions are
generated from jieba's dictionary by word frequency; the names are the dictionary, or `--names`
generated names. All times are CPU times unless marked as wall.

    python benchmarks/bench_lattice.py [--names N] [--captions N] [--backend ahocorasick]
    python benchmarks/bench_lattice.py --what names --names 10000000     compile, map, match
    python benchmarks/bench_lattice.py --what workers --captions 2000000 one process and two
    python benchmarks/bench_lattice.py --what floor                      reading and writing alone
    python benchmarks/bench_lattice.py --what images                     22 KB of base64 per row
"""

import argparse
import base64
import io
import json
import os
import resource
import tempfile
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from jieba_corpus import jieba_words, make_captions, make_names
from measuring import cpu_seconds, in_child, memory, processor
from PIL import Image

from data.images import check_image, decode_base64, decode_image
from data.kg_folder import write_names
from data.schema import table_writer
from data.tokenizer import Tokenizer, write_character_vocabulary
from lattice.building.build import LatticeReport, build_lattice
from lattice.building.caption_reader import CAPTIONS
from lattice.config import BuildConfig, LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.vocabulary import Vocabulary, compile_vocabulary, load_vocabulary


def write_captions(path: Path, count: int, rng: np.random.Generator) -> None:
    """Write captions of about 21 characters; see `make_captions`."""
    lines = (f"{n}\t{text}\n" for n, text in enumerate(make_captions(count, rng)))
    path.write_text("".join(lines), encoding="utf-8")


def is_blank(c: str) -> bool:
    return c in " \t\n\r" or unicodedata.category(c) == "Zs"


def is_control(c: str) -> bool:
    return c not in "\t\n\r" and unicodedata.category(c).startswith("C")


def is_ideograph(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )


def is_punctuation(c: str) -> bool:
    code = ord(c)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(c).startswith("P")


def split_at_punctuation(word: str) -> list[str]:
    parts: list[list[str]] = []
    new = True
    for c in word:
        if is_punctuation(c):
            parts.append([c])
            new = True
        else:
            if new:
                parts.append([])
            parts[-1].append(c)
            new = False
    return ["".join(part) for part in parts]


class Reference:
    """The reference, one caption at a time."""

    def __init__(self, names: list[str], vocab: dict[str, int]) -> None:
        self.vocab = vocab
        self.trie: dict = {}
        for entity_id, name in enumerate(names):
            if len(name) < 2:
                continue
            node = self.trie
            for character in name:
                node = node.setdefault(character, {})
            node["id"] = entity_id

    def words(self, text: str) -> list[str]:
        """Return the words of BERT's basic tokenizer; each step is a pass over the characters."""
        kept = [c for c in text if ord(c) not in (0, 0xFFFD) and not is_control(c)]
        clean = "".join(" " if is_blank(c) else c for c in kept)
        spaced = "".join(f" {c} " if is_ideograph(ord(c)) else c for c in clean)
        words: list[str] = []
        for word in spaced.strip().split():
            folded = unicodedata.normalize("NFD", word.lower())
            bare = "".join(c for c in folded if unicodedata.category(c) != "Mn")
            words += split_at_punctuation(bare)
        return " ".join(words).split()

    def tokens(self, text: str) -> list[str]:
        """Return the WordPiece tokens: the longest piece first."""
        tokens: list[str] = []
        for word in self.words(text):
            characters = list(word)
            if len(characters) > 100:
                tokens.append("[UNK]")
                continue
            begin, pieces = 0, []
            while begin < len(characters):
                end, found = len(characters), None
                while begin < end:
                    piece = "".join(characters[begin:end])
                    piece = "##" + piece if begin > 0 else piece
                    if piece in self.vocab:
                        found = piece
                        break
                    end -= 1
                if found is None:
                    pieces = ["[UNK]"]
                    break
                pieces.append(found)
                begin = end
            tokens.extend(pieces)
        return tokens

    def row(self, tokens: list[str]) -> tuple[list[int], list[int], list[int]]:
        starts, ends = list(range(len(tokens))), list(range(len(tokens)))
        ids = []
        for start in range(len(tokens)):
            node = self.trie
            for end in range(start, len(tokens)):
                node = node.get(tokens[end])
                if node is None:
                    break
                if "id" in node:
                    ids.append(node["id"])
                    starts.append(start)
                    ends.append(end)
        return ids, starts, ends

    def run(self, corpus: Path, out: Path, limit: int) -> tuple[int, float]:
        """Return the rows written and their CPU seconds."""
        began, rows = process_time(), 0
        with corpus.open(encoding="utf-8") as source, out.open("w", encoding="utf-8") as target:
            for line in source:
                if rows == limit:
                    break
                idx, text = line.rstrip("\n").split("\t")
                tokens = self.tokens(text)
                columns = [" ".join(map(str, column)) for column in self.row(tokens)]
                target.write("\t".join([idx, text, *columns, str(len(tokens))]) + "\n")
                rows += 1
        return rows, process_time() - began


def check(reference: Reference, table: Path, limit: int) -> int:
    """Check that tokens are equal and no match is lost; return the number of rows compared."""
    rows = pq.read_table(table).slice(0, limit).to_pylist()
    for row in rows:
        tokens = reference.tokens(row["text"])
        assert [reference.vocab[t] for t in tokens] == row["input_ids"], row["text"]
        ids, starts, ends = reference.row(tokens)
        n = len(tokens)
        theirs = set(zip(ids, starts[n:], ends[n:], strict=True))
        ours = set(zip(row["lex_ids"], row["pos_s"][n:], row["pos_e"][n:], strict=True))
        assert theirs <= ours, (row["text"], theirs - ours)
    return len(rows)


def pipeline(folder: Path, options: argparse.Namespace, rng: np.random.Generator) -> dict:
    """TSV to table on one core, ours and the reference."""
    names = make_names(options.names, rng)
    write_names(folder / "entity2id.txt", names)
    write_captions(folder / "captions.tsv", options.captions, rng)
    tokenizer = write_character_vocabulary(folder / "tokenizer")

    def build(corpus: str) -> tuple[LatticeReport, float]:
        began = process_time()
        report = build_lattice(
            folder / corpus,
            folder / f"{corpus}.parquet",
            names=folder / "entity2id.txt",
            tokenizer=tokenizer,
            build=BuildConfig(backend=options.backend, workers=1),
        )
        return report, process_time() - began

    # The time for a few rows is that of loading the names and the tokenizer library; it is
    # subtracted.
    write_captions(folder / "few.tsv", 100, rng)
    write_captions(folder / "warm.tsv", 100, rng)
    build("warm.tsv")
    _, loading = build("few.tsv")
    report, whole = build("captions.tsv")
    ours = report.num_rows / (whole - loading)
    print(f"ours: {ours:,.0f} captions/s; loading names took {loading:.1f} s")

    reference = Reference(names, Tokenizer.load(tokenizer).vocab)
    rows, seconds = reference.run(
        folder / "captions.tsv", folder / "reference.tsv", options.reference_captions
    )
    theirs = rows / seconds
    print(f"reference: {theirs:,.0f} captions/s; ratio {ours / theirs:.1f}x")
    compared = check(reference, folder / "captions.tsv.parquet", 5000)
    print(f"{compared:,} rows compared: equal tokens, no match lost")
    return {
        "names": len(names),
        "captions": report.num_rows,
        "backend": options.backend,
        "entities_per_caption": round(report.num_entities / report.num_rows, 2),
        "bytes_per_caption": round(
            (folder / "captions.tsv.parquet").stat().st_size / report.num_rows
        ),
        "captions_per_second": round(ours),
        "reference_captions_per_second": round(theirs),
        "ratio": round(ours / theirs, 1),
    }


def floor(folder: Path, options: argparse.Namespace, rng: np.random.Generator) -> dict:
    """TSV to table, compared with pyarrow reading the TSV and writing the same columns.

    The floor is the faster of two: with the writer of the toolkit, and with pyarrow's defaults.
    """
    write_names(folder / "entity2id.txt", make_names(options.names, rng))
    corpus, table = folder / "captions.tsv", folder / "table.parquet"
    write_captions(corpus, options.captions, rng)
    write_captions(folder / "few.tsv", 100, rng)
    tokenizer = write_character_vocabulary(folder / "tokenizer")
    compile_vocabulary(
        folder / "entity2id.txt", folder / "compiled", tokenizer=Tokenizer.load(tokenizer)
    )

    def ours(source: Path) -> None:
        build_lattice(
            source,
            table,
            names=folder / "compiled",
            tokenizer=tokenizer,
            build=BuildConfig(workers=1),
            overwrite=True,
        )

    def read() -> pa.Table:
        return csv.read_csv(
            corpus,
            csv.ReadOptions(column_names=["idx", "text"]),
            csv.ParseOptions(delimiter="\t", quote_char=False),
            csv.ConvertOptions(column_types={"idx": pa.string(), "text": pa.string()}),
        )

    def write(rows: pa.Table, how: str) -> None:
        if how == "same":
            with table_writer(folder / "floor.parquet", rows.schema) as writer:
                writer.write_table(rows, row_group_size=65_536)
        else:
            pq.write_table(rows, folder / "floor.parquet")

    ours(folder / "few.tsv")
    loading = min(cpu_seconds(partial(ours, folder / "few.tsv")) for _ in range(2))
    spent: dict[str, list[float]] = {"ours": [], "read": [], "same": [], "default": []}
    for _ in range(options.repetitions):
        spent["ours"].append(cpu_seconds(partial(ours, corpus)) - loading)
        rows = pq.read_table(table)
        spent["read"].append(cpu_seconds(read))
        for how in ("same", "default"):
            spent[how].append(cpu_seconds(partial(write, rows, how)))
    best = {name: min(seconds) for name, seconds in spent.items()}
    lowest = best["read"] + min(best["same"], best["default"])
    return {
        "captions": options.captions,
        "ours_us": round(1e6 * best["ours"] / options.captions, 2),
        "read_us": round(1e6 * best["read"] / options.captions, 2),
        "write_us": round(1e6 * best["same"] / options.captions, 2),
        "write_default_us": round(1e6 * best["default"] / options.captions, 2),
        "ratio": round(best["ours"] / lowest, 2),
        "ratio_to_same_writer": round(best["ours"] / (best["read"] + best["same"]), 2),
    }


def with_peak(work: Callable[..., dict], *arguments: object) -> dict:
    """Return the result of `work` with the peak memory of its process."""
    return {**work(*arguments), "peak_gb": round(memory("VmHWM") / 1.024e9, 2)}


def compile_names(folder: Path) -> dict:
    def work() -> None:
        tokenizer = Tokenizer.load(folder / "tokenizer")
        compile_vocabulary(folder / "entity2id.txt", folder / "compiled", tokenizer=tokenizer)

    return {"compile_seconds": round(cpu_seconds(work), 1)}


def match_names(folder: Path) -> dict:
    """Map the compiled names and match the captions."""
    tokenizer = Tokenizer.load(folder / "tokenizer")
    began = perf_counter()
    vocabulary = Vocabulary.open(folder / "compiled")
    attach = perf_counter() - began
    began = perf_counter()
    load_vocabulary(folder / "compiled", tokenizer, LatticeConfig())
    verified = perf_counter() - began
    kernel = LatticeKernel(tokenizer, vocabulary, LatticeConfig())
    rows = [
        line.rstrip("\n").split("\t")
        for line in (folder / "captions.tsv").open("r", encoding="utf-8")
    ]
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, schema=CAPTIONS)
    batches = [batch.slice(n, 4096) for n in range(0, len(rows), 4096)]
    seconds = []
    for _ in range(4):  # the first pass reads the mapped pages and new characters
        began = process_time()
        entities = sum(len(kernel(b).column("lex_ids").flatten()) for b in batches)
        seconds.append(process_time() - began)
    return {
        "attach_wall_seconds": round(attach, 4),
        "attach_verified_wall_seconds": round(verified, 2),
        "entities_per_caption": round(entities / len(rows), 2),
        "kernel_captions_per_second": round(len(rows) / min(seconds[1:])),
        "first_pass_captions_per_second": round(len(rows) / seconds[0]),
    }


def names(folder: Path, options: argparse.Namespace, rng: np.random.Generator) -> dict:
    """Many names: compiled in one process, mapped and matched in another."""
    count = options.names or 10_000_000
    write_names(folder / "entity2id.txt", make_names(count, rng))
    write_captions(folder / "captions.tsv", options.captions, rng)
    vocab = Tokenizer.load(write_character_vocabulary(folder / "tokenizer")).vocab
    found = in_child(with_peak, compile_names, folder)
    size = sum(path.stat().st_size for path in (folder / "compiled").glob("*.npy"))
    found["bytes_per_name"] = round(size / count, 1)
    found["folder_bytes_per_name"] = round(
        sum(path.stat().st_size for path in (folder / "compiled").iterdir()) / count, 1
    )
    matched = in_child(with_peak, match_names, folder)
    reference = Reference([], vocab)
    texts = [
        line.split("\t")[1].rstrip("\n")
        for line in (folder / "captions.tsv").open("r", encoding="utf-8")
    ]
    texts = texts[: options.reference_captions]
    theirs = len(texts) / cpu_seconds(lambda: [reference.tokens(text) for text in texts])
    return {
        "names": count,
        **found,
        **{f"matching_{k}" if k == "peak_gb" else k: v for k, v in matched.items()},
        "reference_tokenising_captions_per_second": round(theirs),
        "ratio": round(matched["kernel_captions_per_second"] / theirs, 1),
    }


def workers(folder: Path, options: argparse.Namespace, rng: np.random.Generator) -> dict:
    """One process and two, on one file and on shards: wall and CPU seconds."""
    write_names(folder / "entity2id.txt", make_names(options.names, rng))
    tokenizer = write_character_vocabulary(folder / "tokenizer")
    (folder / "corpus").mkdir()
    for n in range(8):
        write_captions(folder / "corpus" / f"{n}.tsv", options.captions // 8, rng)
    with (folder / "all.tsv").open("wb") as whole:
        for n in range(8):
            whole.write((folder / "corpus" / f"{n}.tsv").read_bytes())
    compile_vocabulary(
        folder / "entity2id.txt", folder / "compiled", tokenizer=Tokenizer.load(tokenizer)
    )

    def run(corpus: str, processes: int) -> dict:
        began, cpu = perf_counter(), used_by_processes()
        build_lattice(
            folder / corpus,
            folder / "out",
            names=folder / "compiled",
            tokenizer=tokenizer,
            build=BuildConfig(workers=processes),
            overwrite=True,
        )
        used = [now - then for now, then in zip(used_by_processes(), cpu, strict=True)]
        return {"wall": perf_counter() - began, "own": used[0], "children": used[1]}

    found: dict = {"captions": options.captions}
    for label, corpus in (("file", "all.tsv"), ("shards", "corpus/*.tsv")):
        run(corpus, 1)
        one, two = (
            min((run(corpus, n) for _ in range(2)), key=lambda r: r["own"] + r["children"])
            for n in (1, 2)
        )
        # On two free cores the run takes at least half of the CPU time, and at least that of the
        # writing process.
        least = max((two["own"] + two["children"]) / 2, two["own"])
        found[label] = {
            "one_cpu": round(one["own"], 2),
            "two_cpu_parent": round(two["own"], 2),
            "two_cpu_workers": round(two["children"], 2),
            "speed_up_by_cpu": round(one["own"] / least, 2),
            "speed_up_wall": round(one["wall"] / two["wall"], 2),
        }
        print(label, found[label])
    return found


def used_by_processes() -> list[float]:
    """Return the CPU seconds of this process and of its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return [u.ru_utime + u.ru_stime for u in used]


def write_images(path: Path, count: int, rng: np.random.Generator) -> float:
    """Write captions with JPEG images; return the mean length of their base64."""
    encoded = []
    for _ in range(64):
        small = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((240, 240), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        encoded.append(base64.b64encode(buffer.getvalue()).decode())
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            file.write(f"{n}\t一只猫在北京的故宫里看风景\t{encoded[n % 64]}\n")
    return sum(map(len, encoded)) / 64


def build_images(folder: Path, corpus: str, check_images: str) -> dict:
    options = {"names": folder / "entity2id.txt", "tokenizer": folder / "tokenizer"}
    how = BuildConfig(check_images=check_images, workers=1)
    build = partial(build_lattice, **options, build=how, overwrite=True)
    few, whole = (
        partial(build, folder / name, folder / f"{name}.parquet") for name in ("few.tsv", corpus)
    )
    few()
    loading = cpu_seconds(few)  # the second run takes the time of loading the names
    return {"seconds": cpu_seconds(whole) - loading}


def read_images(path: Path, look: Callable[[bytes], object]) -> float:
    """Return the CPU seconds for reading and decoding alone, one row at a time."""
    began = process_time()
    with path.open(encoding="utf-8") as file:
        for line in file:
            look(decode_base64(line.rstrip("\n").split("\t")[2]))
    return process_time() - began


def images(folder: Path, options: argparse.Namespace, rng: np.random.Generator) -> dict:
    """Rows with images: speed compared with reading and decoding alone, and memory."""
    write_names(folder / "entity2id.txt", jieba_words()[0])
    write_character_vocabulary(folder / "tokenizer")
    count = 10_000
    size = write_images(folder / "images.tsv", count, rng)
    write_images(folder / "more.tsv", 3 * count, rng)
    write_images(folder / "few.tsv", 10, rng)
    found: dict = {"rows": count, "base64_bytes": round(size)}
    for check_images, look in (("header", check_image), ("full", decode_image)):
        alone = min(read_images(folder / "images.tsv", look) for _ in range(2))
        ours = in_child(with_peak, build_images, folder, "images.tsv", check_images)
        found[check_images] = {
            "rows_per_second": round(count / ours["seconds"]),
            "share_of_reading_and_decoding_alone": round(alone / ours["seconds"], 2),
            "peak_gb": ours["peak_gb"],
        }
        print(check_images, found[check_images])
    more = in_child(with_peak, build_images, folder, "more.tsv", "header")
    return {**found, "peak_gb_of_three_times_the_rows": more["peak_gb"]}


MEASURES = {
    "pipeline": pipeline,
    "names": names,
    "workers": workers,
    "images": images,
    "floor": floor,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", default="pipeline", choices=list(MEASURES))
    parser.add_argument("--names", type=int, help="default: jieba's dictionary, 349,046")
    parser.add_argument("--captions", type=int, default=400_000)
    parser.add_argument("--reference-captions", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=3, help="of --what floor")
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = MEASURES[options.what](Path(name), options, np.random.default_rng(0))
    print(json.dumps({"processor": processor(), **found}))


if __name__ == "__main__":
    main()
