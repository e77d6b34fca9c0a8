"""Read caption files: lines that name an image and describe it.

Read are lines of a key and a text (`id<TAB>text`, `id#zhc#0 text`), JSON lines and documents, and
tables with a header (CSV or TSV). All yield `Caption`; unusable rows are rejected.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.datasets.config import Columns
from data.datasets.json_documents import json_entries
from data.errors import InputError, SkipReason, did_you_mean
from data.tsv import (
    Rejects,
    bounded_lines,
    open_bytes,
    read_rows,
    read_start,
    wrong_column_count,
)

# Usual names, the most likely first.
TEXT_COLUMNS = ("text", "caption", "captions", "query_text", "texts", "raw", "sentence",
                "sentences", "title")  # fmt: skip
IMAGE_COLUMNS = (
    "image_ids", "item_ids", "image_id", "file_name", "filename", "image", "img_id", "image_path",
    "file", "path", "img",
)  # fmt: skip
ID_COLUMNS = ("idx", "text_id", "query_id", "id", "image_id", "img_id", "filename", "file_name")

EMPTY_CAPTION, NO_IMAGE_NAMED = SkipReason("empty caption"), SkipReason("no image named")
# `1000268201_693b08cb0e.jpg#zhc#0 `, `COCO_val2014_000000000042#1<TAB>`
_KEY = re.compile(r"(?P<image>[^\t#]+)(?:#[A-Za-z]+)?#\d+(?:\t|[ \u3000]+|$)")
_TAG = re.compile(r":[a-z]+$")  # a part of speech, appended in segmented files
_GAP = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")


class Caption(NamedTuple):
    """One caption: its line, its id (else the image's), the name of its image, its text, its split.

    The split is empty unless the file holds several.
    """

    line: int
    id: str
    image: str
    text: str
    split: str = ""


def is_keyed(line: str) -> bool:
    """Return whether a line begins with the name of an image and the number of a caption."""
    return _KEY.match(line) is not None


def read_captions(
    path: Path, columns: Columns, rejects: Rejects, with_images: bool = True
) -> Iterator[Caption]:
    """Yield the captions of a file; its name and its first line determine the format.

    Args:
        path: The file, plain or gzip.
        columns: Names of columns, where given.
        rejects: Receives unusable rows.
        with_images: False also accepts captions that name no image, as in test sets.

    Raises:
        InputError: It cannot be read, or no column of captions or images is found.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return _json(path, columns, rejects, with_images)
    first = first_line(path)
    for mark in (",", "\t"):
        names = [field.strip().strip('"') for field in first.split(mark)]
        if _is_header(names, columns, with_images):
            return _table(path, mark, columns, rejects, with_images)
    if name.endswith(".csv") and any(columns):
        return _table(path, ",", columns, rejects, with_images)  # raises: a column is missing
    if name.endswith(".csv"):
        raise InputError(
            f"{path} has no header with a caption and an image column; its first line is "
            f"{first[:80]!r}. Write one such as file_name,text, or give --text-column and "
            "--image-column."
        )
    return _keyed(path, rejects)


def _is_header(names: list[str], columns: Columns, with_images: bool) -> bool:
    """Return whether these are column names, with one of captions and one of images or ids."""
    names = [*names, *(name.lower() for name in names)]
    texts = {*TEXT_COLUMNS} if columns.text is None else {columns.text}
    images = {*IMAGE_COLUMNS} if columns.image is None else {columns.image}
    if not with_images:
        images |= {*ID_COLUMNS}
    return not texts.isdisjoint(names) and not images.isdisjoint(names)


def first_line(path: Path) -> str:
    """Return the first line of a text file, at most 64 KiB of it."""
    raw = read_start(path, 1 << 16).partition(b"\n")[0]
    return raw.decode("utf-8-sig", "replace").rstrip("\r")


def _keyed(path: Path, rejects: Rejects) -> Iterator[Caption]:
    """Yield lines `image<TAB>text`, `image#n<TAB>text` or `image#zhc#n text`.

    A third column is ignored. The number of a caption is dropped: the order of the rows is used.
    """
    for line, fields in read_rows(path, (1, 2, 3), rejects):
        if found := _KEY.match(fields[0] + "\t" if len(fields) > 1 else fields[0]):
            image = found["image"]
            text = fields[1] if len(fields) > 1 else fields[0][found.end() :]
        elif len(fields) > 1:
            image, text = fields[:2]
        else:
            rejects.add(line, NO_IMAGE_NAMED, fields[0])
            continue
        yield Caption(line, image, image, text)


def _json(path: Path, columns: Columns, rejects: Rejects, with_images: bool) -> Iterator[Caption]:
    """Yield one caption for each pair of an image and a text of an object.

    The objects are lines, or the entries of one document, whose number is their line.
    """
    names: _ColumnNames | None = None
    entries = json_entries(path)
    for line, found in entries if entries is not None else _json_lines(path, rejects):
        if not isinstance(found, dict):
            rejects.add(line, SkipReason("not a JSON object"), str(found)[:200])
            continue
        if names is None:
            names = _find_columns(path, list(found), columns, with_images)
        texts = _strings(found.get(names.text))
        images = _strings(found.get(names.image)) if names.image else []
        own = str(found.get(names.id, "")) if names.id else ""
        if not with_images:
            images = [own or (images[0] if images else str(line))]
        if not texts or not images:
            reason = NO_IMAGE_NAMED if texts else EMPTY_CAPTION
            rejects.add(line, reason, json.dumps(found, ensure_ascii=False)[:200])
        # Karpathy's splits: `filepath` is the folder; only documents hold several splits.
        folder = found.get("filepath") if names.image == "filename" else None
        split = str(found.get("split") or "") if entries is not None else ""
        for image in images:
            place = f"{folder}/{image}" if folder and with_images else image
            for text in texts:
                yield Caption(line, own or image, place, text, split)


def _json_lines(path: Path, rejects: Rejects) -> Iterator[tuple[int, Any]]:
    for line, fields in read_rows(path, range(1, 1000), rejects, header=True):
        row = "\t".join(fields)
        try:
            yield line, json.loads(row)
        except (ValueError, RecursionError) as error:
            rejects.add(line, SkipReason("not JSON", str(error)), row)


def _table(
    path: Path, mark: str, columns: Columns, rejects: Rejects, with_images: bool
) -> Iterator[Caption]:
    """Yield the rows below a header; CSV may be quoted, TSV is not."""
    names: _ColumnNames | None = None
    header: list[str] = []
    for line, fields in _cells(path, mark, rejects):
        if names is None:
            header = [field.strip().strip('"') for field in fields]
            names = _find_columns(path, header, columns, with_images)
            continue
        if len(fields) != len(header):
            reason = wrong_column_count(len(fields), str(len(header)))
            rejects.add(line, reason, mark.join(fields))
            continue
        row = dict(zip(header, fields, strict=True))
        image = row[names.image].strip() if names.image else ""
        own = row[names.id].strip() if names.id else ""
        yield Caption(line, own or image or str(line), image or own, row[names.text])


def _cells(path: Path, mark: str, rejects: Rejects) -> Iterator[tuple[int, list[str]]]:
    if mark == "\t":
        yield from read_rows(path, range(1, 1000), rejects, header=True)
        return
    with open_bytes(path) as raw:
        text = (
            line.decode("utf-8-sig" if n == 0 else "utf-8")
            for n, line in enumerate(bounded_lines(raw, path))
        )
        reader = csv.reader(text, strict=True)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {reader.line_num + 1}: not UTF-8 ({error.reason}). If it is GBK: "
                f"iconv -f GB18030 -t UTF-8 {path}."
            ) from None
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}.") from None


class _ColumnNames(NamedTuple):
    """The names of the columns that were found."""

    text: str
    image: str | None
    id: str | None


def _find_columns(
    path: Path, names: list[str], columns: Columns, with_images: bool
) -> _ColumnNames:
    """Return the columns of the caption, the image and the id of the row."""
    text = choose(path, names, columns.text, TEXT_COLUMNS, "--text-column")
    image = None
    if with_images or columns.image or {name.lower() for name in names} & {*IMAGE_COLUMNS}:
        image = choose(path, names, columns.image, IMAGE_COLUMNS, "--image-column")
    known = ("text_id", "query_id") if with_images else ID_COLUMNS
    own = columns.id or next((name for name in known if name in names), None)
    return _ColumnNames(text, image, own and choose(path, names, own, (), "--id-column"))


def choose(
    path: Path, names: Sequence[str], given: str | None, known: Iterable[str], option: str
) -> str:
    """Return the given column, or the first of the known ones.

    Raises:
        InputError: The file does not have it.
    """
    if given is not None:
        if given in names:
            return given
        raise InputError(
            f"{path} has no column {given} (found {', '.join(names)}){did_you_mean(given, names)}."
        )
    lowered = {name.lower(): name for name in reversed(names)}
    for name in known:
        if name in lowered:
            return lowered[name]
    listed = ", ".join(names) or "it has none of the type that is needed"
    raise InputError(f"{path}: none of its columns ({listed}) is known; pass {option}.")


def _strings(value: Any) -> list[str]:
    """Return a value, or the values of a list, as strings; nothing for null.

    Of an object, such as an entry of Karpathy's `sentences`, the text is taken.
    """
    values = value if isinstance(value, list) else [value]
    values = [text_of(v) if isinstance(v, dict) else v for v in values]
    return [str(v) for v in values if v is not None and v != ""]


def text_of(fields: Mapping[str, Any]) -> Any:
    """Return the value of the first usual column of captions; None without one."""
    return next((fields[name] for name in TEXT_COLUMNS if name in fields), None)


def join_words(text: str) -> str:
    """Join the words of a segmented caption: 穿着:v 粉红色:n becomes 穿着粉红色.

    Latin words and numbers stay separated by a space.
    """
    return _GAP.sub("", " ".join(_TAG.sub("", word) for word in text.split()))


def read_ids(path: Path) -> set[str]:
    """Return the names of images in a list, one per line, without file endings.

    Raises:
        InputError: It cannot be read.
    """
    rejects = Rejects()
    return {stem(fields[0].strip()) for _, fields in read_rows(path, range(1, 1000), rejects)}


# Of the formats that `data.images` reads.
_ENDING = re.compile(
    r"\.(jpe?g?|jfif?|jif|pjp(eg)?|a?png|webp|gif|bmp|dib|tiff?|avifs?|p[bgpn]m|ico)$",
    re.IGNORECASE,
)


def stem(name: str) -> str:
    """Return the name of an image without folder and ending."""
    return _ENDING.sub("", name.replace("\\", "/").rpartition("/")[2])


def is_image_name(name: str) -> bool:
    """Return whether a file name has the ending of an image format."""
    return _ENDING.search(name) is not None
