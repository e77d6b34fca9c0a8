"""Lists of captions in one JSON document: COCO's, Karpathy's, AI Challenger's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.tsv import bounded_lines, open_bytes, read_start

_LONGEST = 512 << 20  # bytes of a document, which is held in memory
_START = 1 << 16


def json_entries(path: Path) -> Iterator[tuple[int, Any]] | None:
    """Return the entries of a document, with their numbers from 1; None for JSON lines.

    A document is a list of objects, or an object with one, whose entries are captions or images
    with captions. COCO's `annotations` get the `file_name` of their image.

    Raises:
        InputError: It is a document without such a list, damaged or too large.
    """
    start = read_start(path, _START).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith((b"[", b"{")) or (start.startswith(b"{") and _is_lines(path)):
        return None
    with open_bytes(path) as file:
        raw = file.read(_LONGEST + 1)
    if len(raw) > _LONGEST:
        raise InputError(
            f"{path} is one JSON document of more than {_LONGEST >> 20} MiB. Convert it to lines: "
            f"jq -c '.[]' {path} (or '.annotations[]')."
        )
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}). If it is GBK: "
            f"iconv -f GB18030 -t UTF-8 {path}."
        ) from None
    except (ValueError, RecursionError) as error:
        if b"\n" in raw.strip():
            return None  # JSON lines whose first is damaged
        raise InputError(f"{path} is one JSON document, and damaged: {error}.") from None
    return enumerate(_list_of(path, document), 1)


def _is_lines(path: Path) -> bool:
    """Return whether the first line is a whole object that is not a document by itself."""
    with open_bytes(path) as file:
        first = next(bounded_lines(file, path))
    try:
        found = json.loads(first.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return False
    return not isinstance(found, dict) or not _lists(found)


def _lists(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the lists of objects in a document; none for an entry, which names one image."""
    if any(isinstance(v, str) and ("image" in k or "file" in k) for k, v in document.items()):
        return {}
    return {
        key: value
        for key, value in document.items()
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value[:10])
    }


def _list_of(path: Path, document: Any) -> list[Any]:
    """Return the entries of a document."""
    if isinstance(document, list):
        return document
    lists = _lists(document) if isinstance(document, dict) else {}
    images, annotations = lists.get("images"), lists.get("annotations")
    if annotations and images:
        names = {
            str(image.get("id")): image.get("file_name")
            for image in images
            if isinstance(image, dict)
        }
        return [
            {**one, "image_id": names.get(str(one.get("image_id"))) or one.get("image_id")}
            if isinstance(one, dict)
            else one
            for one in annotations
        ]
    if len(lists) == 1:
        return next(iter(lists.values()))
    found = f"it has {len(lists)}" if lists else "it has none"
    raise InputError(
        f"{path} is one JSON document; a list of captions is expected, as COCO, Karpathy and AI "
        f"Challenger distribute them, and {found}."
    )
