"""Read prompts from a TSV file and from the command line."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import InputError
from data.images import decode_base64, decode_image
from data.quoted_rows import quoted_note
from data.tsv import HEADER, Rejects, read_rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompts:
    """Prompts: an id and a text each, and optionally an encoded image to complete."""

    idx: list[str]
    texts: list[str]
    images: list[bytes] = field(default_factory=list)


def read_prompts(
    tsv: Path | None, texts: Sequence[str] = (), *, with_images: bool = False
) -> Prompts:
    """Read the prompts of a TSV (`idx<TAB>text`, a third column is ignored) and append `texts`.

    A first line that only names the columns is not a prompt.

    Args:
        tsv: The file.
        texts: Further prompts.
        with_images: Read the third column, an image in base64.

    Raises:
        InputError: No prompt is given, or a line of the file is invalid. (Training rejects and
            counts bad rows; a prompt without an image would go unnoticed.)
    """
    idx, found, images = [], [], []
    if with_images and (tsv is None or texts):
        raise InputError("images to complete come from a TSV: `idx<TAB>text<TAB>image in base64`.")
    if tsv is not None:
        rejects = Rejects()
        for row in read_rows(tsv, {3} if with_images else {2, 3}, rejects):
            idx.append(row.fields[0])
            found.append(row.fields[1])
            if with_images:
                try:
                    images.append(decode_base64(row.fields[2]))
                    decode_image(images[-1])
                except InputError as error:
                    raise InputError(f"{tsv}, line {row.line}: {error}.") from None
        if rejects.quoted.count:
            _log.warning("%s: %s", tsv, quoted_note(rejects.quoted.counts()))
        if rejects.count > rejects.reasons[HEADER.kind]:
            raise InputError(
                f"{tsv}, {rejects.first}; invalid lines: {rejects.count}. Prompts are "
                f"`idx<TAB>text{'<TAB>image' if with_images else ''}`, one per line."
            )
    idx += [str(len(idx) + n + 1) for n in range(len(texts))]
    found += texts
    if not found:
        raise InputError("no prompts: give a TSV of prompts, or --text.")
    return Prompts(idx, found, images)
