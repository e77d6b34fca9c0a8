"""Stage 2: captions and entity names to lattice tables.

- `Matcher`: all occurrences of millions of names in texts, as a library of its own.
- `lattice.matching`: surfaces, tokens, the matcher, and the kernel that combines them.
- `lattice.building`: caption files to tables, in one process, several, or on a cluster; EasyNLP's
  TSV in and out.
- `lattice.inspecting`: one sentence explained and rendered; statistics of a table.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from lattice.matching.library import Match, Matcher

__all__ = ["Match", "Matcher", "building", "inspecting", "matching"]

__getattr__ = lazy_exports(
    __name__,
    {
        "Match": "lattice.matching.library",
        "Matcher": "lattice.matching.library",
    },
)
