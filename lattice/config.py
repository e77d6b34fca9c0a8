"""What is matched, what is stored and how tables are built. Imports nothing heavy."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

from data.constants import POLICIES
from data.errors import ConfigError
from data.options import ImageCheck, Option, Setting, check_fields

SEGMENTS = ("none", "jieba")
SENSES = ("own", "all")
BACKENDS = ("auto", "ahocorasick", "trie")
TABLE_FORMATS = ("parquet", "tsv")
STOP_SHARE = 0.05  # of the captions; names in more of them are candidates for stop names
MAX_STOP_NAMES = 10_000  # they are stored in the metadata of every table
_ADDED_LATER = ("fold_variants", "senses", "stop_names")  # to the settings of the first tables


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
    fold_variants: Annotated[
        bool, Option("Match traditional and simplified characters alike: 鸚鵡 as 鹦鹉.")
    ] = False
    senses: Annotated[
        str,
        Option(
            "own: an entity with exactly the name has precedence, as in EasyNLP; all: a surface "
            "brings every entity that it names.",
            choices=SENSES,
        ),
    ] = "own"
    # With `own` the lowest ids are kept, with `all` the entities with most triples.
    max_senses: Annotated[
        int, Option("Largest number of entities of one surface.", min=1, max=1000)
    ] = 8
    # Surfaces that never match; stored here, so that a model matches its prompts without the file.
    stop_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop_names", tuple(self.stop_names))  # a list, if from JSON
        check_fields(self)
        if len(self.stop_names) > MAX_STOP_NAMES:
            raise ConfigError(
                f"{len(self.stop_names):,} stop names are more than {MAX_STOP_NAMES:,}; remove "
                "such names from the graph instead."
            )
        if self.min_length > self.max_length:
            raise ConfigError(
                f"min_length={self.min_length} must be at most max_length={self.max_length}."
            )

    def settings(self) -> dict[str, Any]:
        """Return the fields for tables and manifests; `type(self)(**settings)` restores them.

        Fields added later are left out at their defaults, so that tables built with the defaults
        equal those of earlier versions.
        """
        defaults = {field.name: field.default for field in fields(self)}
        found = {name: getattr(self, name) for name in defaults}
        for name in _ADDED_LATER:
            if found[name] == defaults[name]:
                del found[name]
        if "stop_names" in found:
            found["stop_names"] = list(found["stop_names"])  # as JSON restores it
        return found


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
        int | None, Option("Processes, this one included; by default as many as are useful.", min=1)
    ] = None
    cluster: Annotated[
        str | None,
        Option("Address of a Dask scheduler whose workers build the shards (extra `cluster`)."),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)
