"""What a lattice table holds: coverage of its captions, and its most frequent entities."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.kg_folder import open_names
from data.schema import LATTICE, open_table
from lattice.lexicon import names_file


@dataclass(frozen=True, kw_only=True)
class LatticeStats:
    """Figures of a lattice table.

    Attributes:
        num_captions: Rows.
        num_tokens: Tokens of all captions.
        num_covered_tokens: Tokens under at least one entity.
        num_entities: Entities over all captions.
        num_different: Different ones among them.
        num_with_entity: Captions with at least one.
        entities_per_caption: How many captions hold 0, 1, 2 ... entities; ten stands for more.
        most_frequent: Entity name (its id, where names are unknown) and how often it stands.
    """

    num_captions: int
    num_tokens: int
    num_covered_tokens: int
    num_entities: int
    num_different: int
    num_with_entity: int
    entities_per_caption: list[int]
    most_frequent: list[tuple[str, int]]

    def __str__(self) -> str:
        captions, tokens = max(1, self.num_captions), max(1, self.num_tokens)
        lines = [
            f"{self.num_captions:,} captions, {self.num_tokens / captions:.1f} tokens each",
            f"{100 * self.num_with_entity / captions:.1f} % have an entity; "
            f"{self.num_entities / captions:.2f} entities a caption, "
            f"{self.num_different:,} different; "
            f"{100 * self.num_covered_tokens / tokens:.1f} % of tokens covered",
        ]
        most = max(1, *self.entities_per_caption)
        for n, count in enumerate(self.entities_per_caption):
            name = "10+" if n == 10 else str(n)
            lines.append(f"{name:>5} {'█' * round(40 * count / most)} {count:,}")
        named = ", ".join(f"{name} {count:,}" for name, count in self.most_frequent)
        return "\n".join([*lines, f"most frequent: {named or 'none'}"])


def lattice_stats(table: Path, names: Path | None = None, top: int = 20) -> LatticeStats:
    """Figures of a lattice table, read one row group at a time.

    Args:
        table: The table.
        names: The KG folder or `entity2id.txt`, so that entities are named.
        top: How many of the most frequent entities are listed.

    Raises:
        SchemaError: It is not a lattice table.
    """
    file = open_table(table, LATTICE)
    frequency: Counter[int] = Counter()
    per_caption = np.zeros(11, np.int64)
    tokens = covered = 0
    for batch in file.iter_batches(columns=["seq_len", "lex_ids", "pos_s", "pos_e"]):
        seq_len = batch.column("seq_len").to_numpy().astype(np.int64)
        ids = batch.column("lex_ids")
        found = np.diff(ids.offsets.to_numpy())
        frequency.update(ids.flatten().to_pylist())
        per_caption += np.bincount(np.minimum(found, 10), minlength=11)
        tokens += int(seq_len.sum())
        # Begin +1, end -1 on a line of all tokens, summed up: how many entities cover each.
        begin = np.cumsum(seq_len) - seq_len
        row = np.repeat(np.arange(len(found)), found)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(found) - found, found)
        at = batch.column("pos_s").offsets.to_numpy().astype(np.int64)
        at = at[row] - at[0] + seq_len[row] + nth
        starts = batch.column("pos_s").flatten().to_numpy()[at] + begin[row]
        lasts = batch.column("pos_e").flatten().to_numpy()[at] + begin[row]
        change = np.zeros(int(seq_len.sum()) + 1, np.int64)
        np.add.at(change, starts, 1)
        np.add.at(change, lasts + 1, -1)
        covered += int((np.cumsum(change) > 0).sum())
    named = open_names(names_file(names)) if names is not None else None
    return LatticeStats(
        num_captions=int(per_caption.sum()),
        num_tokens=tokens,
        num_covered_tokens=covered,
        num_entities=frequency.total(),
        num_different=len(frequency),
        num_with_entity=int(per_caption[1:].sum()),
        entities_per_caption=per_caption.tolist(),
        most_frequent=[
            (named[i] if named is not None and i < len(named) else str(i), count)
            for i, count in frequency.most_common(top)
        ],
    )
