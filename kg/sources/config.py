"""Settings of `kg convert`. Imports nothing heavy."""

import re
from dataclasses import dataclass
from typing import Annotated

from data.errors import ConfigError
from data.options import Option, check_fields

FORMATS = ("wikidata", "dbpedia", "conceptnet", "wikidata5m", "wordnet", "ownthink", "ntriples")
_TAG = re.compile(r"[a-zA-Z]{2,8}(-[a-zA-Z0-9]{1,8})*")


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Which names and statements of a graph are converted."""

    format: Annotated[
        str,
        Option("Format of the sources; auto detects it from the content.",
               choices=("auto", *FORMATS)),
    ] = "auto"  # fmt: skip
    lang: Annotated[
        str,
        Option("Language of the names; zh includes zh-hans, zh-cn, zh-sg, zh-hant, zh-tw, zh-hk."),
    ] = "zh"
    fallback_lang: Annotated[
        str | None, Option("Language of names that --lang does not have, such as en.")
    ] = None
    min_weight: Annotated[
        float, Option("ConceptNet: drop assertions with a smaller weight.", min=0)
    ] = 0.0
    closure: Annotated[bool, Option("WordNet: also write every ancestor of a word, as 属于.")] = (
        False
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("lang", "fallback_lang"):
            value = getattr(self, name)
            if value is not None and not _TAG.fullmatch(value):
                raise ConfigError(f"{name}={value!r} is not a language tag, such as zh or zh-hant.")
