"""Self-contained HTML pages from templates.

Templates autoescape: text from outside never becomes markup. Pages contain no script and fetch
nothing; images are data URIs.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.errors import InputError
from data.images import check_image
from data.runs import atomic

TEMPLATES = Path(__file__).with_name("templates")
_MEDIA_TYPES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_LINK = re.compile(r"https?://[^\s<>\"'()（），。；]+[^\s<>\"'()（），。；.,;:]")


def template_environment(*folders: Path) -> Environment:
    """Return an environment for the templates of this package and of other folders."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_control_characters,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "data_uri": data_uri,
        "image_size": lambda content: check_image(content)[:2],
        "links": links,
    }
    return environment


def write_page(path: Path, environment: Environment, template: str, **values: Any) -> None:
    """Render a template and write the page atomically."""
    page = environment.get_template(template).render(values)
    with atomic(path) as file:
        file.write(page)


def data_uri(content: bytes) -> str:
    """Return an encoded image (PNG, JPEG, WebP or GIF) as a `data:` URI.

    Raises:
        InputError: The image has another format.
    """
    for start, media_type in _MEDIA_TYPES.items():
        if content.startswith(start):
            return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
    raise InputError(
        f"an image begins with {content[:4]!r}; browsers display PNG, JPEG, WebP and GIF."
    )


def links(line: str) -> Iterator[tuple[str, bool]]:
    """Split a line into text and http(s) addresses; yield each piece and whether it is a link."""
    end = 0
    for found in _LINK.finditer(line):
        yield line[end : found.start()], False
        yield found[0], True
        end = found.end()
    yield line[end:], False


def _without_control_characters(value: Any) -> Any:
    """Replace characters that HTML or UTF-8 cannot represent, in every value of a template."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _CONTROL.sub("\ufffd", value)
    return value
