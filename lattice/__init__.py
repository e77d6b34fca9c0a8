"""Stage 2: captions and entity names to lattice tables.

- `lattice.matching`: surfaces, tokens, the matcher, and the kernel that combines them.
- `lattice.building`: caption files to tables, in one process, several, or on a cluster; EasyNLP's
  TSV in and out.
- `lattice.inspecting`: one sentence explained and rendered; statistics of a table.
"""

__all__ = ["building", "inspecting", "matching"]
