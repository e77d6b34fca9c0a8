"""What is matched, what is stored and how tables are built. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Annotated

from data.constants import POLICIES
from data.errors import ConfigError
from data.options import ImageCheck, Option, Setting, check_fields

SEGMENTS = ("none", "jieba")
BACKENDS = ("auto", "ahocorasick", "trie")
TABLE_FORMATS = ("parquet", "tsv")


@dataclass(frozen=True, kw_only=True)
class LexiconConfig:
    """Which names become surfaces; lengths are in code points."""

    min_length: Annotated[
        int, Option("Shortest name to match, in characters (EasyNLP: 2).", min=1)
    ] = 2
    # The automaton's time is quadratic in the length of a name.
    max_length: Annotated[int, Setting("Longest name to match.", min=1, max=1000)] = 128
    bracket_aliases: Annotated[
        bool, Option("Also match a name without its bracket: 刘德华（演员） as 刘德华.")
    ] = True
    max_senses: Annotated[
        int, Setting("Entities kept per ambiguous surface, by ascending id.", min=1)
    ] = 8

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_length > self.max_length:
            raise ConfigError(
                f"min_length={self.min_length} must be at most max_length={self.max_length}."
            )


@dataclass(frozen=True, kw_only=True)
class LatticeConfig(LexiconConfig):
    """What is matched, and which matches are stored."""

    segment: Annotated[
        str, Option("jieba drops matches that cross a word boundary.", choices=SEGMENTS)
    ] = "none"
    max_entities: Annotated[
        int | None, Option("Entities to keep per caption; by default all.", min=1)
    ] = None
    # See `data.select`. Entities are stored in text order.
    policy: Annotated[str, Option("Entities to keep under --max-entities.", choices=POLICIES)] = (
        "first"
    )
    mentions_sha256: str = ""  # of the mention file, if one is used; set by the callers


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How a lattice table is built; its rows are the same for all backends and workers."""

    format: Annotated[str, Option("tsv: EasyNLP's preprocessed rows.", choices=TABLE_FORMATS)] = (
        "parquet"
    )
    check_images: ImageCheck = "full"
    backend: Annotated[
        str, Option("Matching algorithm; the table is the same.", choices=BACKENDS)
    ] = "auto"
    workers: Annotated[
        int | None, Option("Processes; by default as many as are useful.", min=1)
    ] = None
    cluster: Annotated[
        str | None,
        Option("Address of a Dask scheduler whose workers build the shards (extra `cluster`)."),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)
