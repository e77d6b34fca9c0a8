"""Statistics of a lattice table: coverage of its captions and its most frequent entities."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data.constants import TEXT_LEN
from data.errors import ConfigError
from data.kg_folder import open_names
from data.runs import save_text
from data.schema import LATTICE, open_shards
from data.tokenizer import tokenizer_folder, tokenizer_of
from lattice.config import STOP_SHARE
from lattice.inspecting.surface_counts import SurfaceCounts
from lattice.matching.arrays import Ids, Ints
from lattice.matching.lexicon import names_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY = 20  # entities per caption; the last bin of the histogram is "or more"
_LONG = 96  # tokens per caption; the last bin is "or more"
_COLUMNS = ["input_ids", "seq_len", "lex_ids", "pos_s", "pos_e"]
_PROPOSED = 20  # candidates for stop names in the terminal
_SHOWN = 10  # bars of the terminal's histogram; the last is "or more"


@dataclass(frozen=True, kw_only=True)
class LatticeStats:
    """Statistics of a lattice table.

    Attributes:
        num_captions: Captions.
        num_tokens: Tokens of all captions.
        num_covered_tokens: Tokens covered by at least one entity.
        num_entities: Entities of all captions.
        num_different: Distinct entities.
        num_with_entity: Captions with at least one entity.
        entities_per_caption: Captions with 0, 1, 2 ... entities; the last is 20 or more.
        tokens_per_caption: Captions with 0, 1, 2 ... tokens; the last is 96 or more.
        text_len: Tokens that a model reads.
        num_cut: Captions with more tokens.
        num_entities_cut: Entities that begin after the first `text_len` tokens.
        most_frequent: Entity name (its id if names are not given) and number of occurrences.
        frequent_surfaces: Candidates for stop names: strings that were matched in a large share of
            captions, and the number of these captions.
    """

    num_captions: int
    num_tokens: int
    num_covered_tokens: int
    num_entities: int
    num_different: int
    num_with_entity: int
    entities_per_caption: list[int]
    tokens_per_caption: list[int]
    text_len: int
    num_cut: int
    num_entities_cut: int
    most_frequent: list[tuple[str, int]]
    frequent_surfaces: list[tuple[str, int]]

    def __str__(self) -> str:
        captions = max(1, self.num_captions)
        lines = [
            f"{self.num_captions:,} captions, {self.num_tokens / captions:.1f} tokens each",
            f"{_percent(self.num_with_entity, self.num_captions)} have an entity; "
            f"{self.num_entities / captions:.2f} entities per caption, "
            f"{self.num_different:,} distinct; "
            f"{_percent(self.num_covered_tokens, self.num_tokens)} of tokens covered",
            f"{_percent(self.num_cut, self.num_captions)} are longer than {self.text_len} tokens; "
            f"{_percent(self.num_entities_cut, self.num_entities)} of entities begin after that",
            "entities per caption:",
        ]
        shown = [*self.entities_per_caption[:_SHOWN], sum(self.entities_per_caption[_SHOWN:])]
        most = max(1, *shown)
        for n, count in enumerate(shown):
            name = f"{n}+" if n == _SHOWN else str(n)
            lines.append(f"{name:>5} {'█' * round(40 * count / most)} {count:,}")
        named = ", ".join(f"{name} {count:,}" for name, count in self.most_frequent)
        if self.frequent_surfaces:
            shown_names = [
                f"{surface} {_percent(count, self.num_captions)}"
                for surface, count in self.frequent_surfaces[:_PROPOSED]
            ]
            left = len(self.frequent_surfaces) - len(shown_names)
            more = f" and {left} more" if left else ""
            lines.append(
                f"candidates for --stop-names, by captions: {', '.join(shown_names)}{more}"
            )
        return "\n".join([*lines, f"most frequent: {named or 'none'}"])

    def to_json(self) -> str:
        """Return all statistics as JSON."""
        figures = asdict(self)
        figures["most_frequent"] = [{"entity": e, "count": n} for e, n in self.most_frequent]
        figures["frequent_surfaces"] = [
            {"surface": surface, "captions": count} for surface, count in self.frequent_surfaces
        ]
        return json.dumps(figures, ensure_ascii=False, indent=1)


def lattice_stats(
    table: Path,
    names: Path | None = None,
    top: int = 20,
    text_len: int = TEXT_LEN,
    stop_share: float = STOP_SHARE,
) -> LatticeStats:
    """Return the statistics of a lattice table or a folder of shards, read in batches.

    Memory grows with the largest entity id (8 bytes each) and the number of distinct matched
    strings, not with the table.

    Args:
        table: The table.
        names: The KG folder or `entity2id.txt`, for the names of entities.
        top: Number of most frequent entities.
        text_len: Tokens that a model reads.
        stop_share: Strings matched in at least this share of captions are candidates for stop
            names. They are read from the tokens, so the tokenizer next to the table is needed.

    Raises:
        ConfigError: `top` or `text_len` is below 1.
        SchemaError: `table` is not a lattice table.
    """
    for name, value in (("top", top), ("text_len", text_len)):
        if value < 1:
            raise ConfigError(f"{name}={value} must be at least 1.")
    file = open_shards(table, LATTICE)
    frequency = np.zeros(1, np.int64)
    entities, tokens = np.zeros(_MANY + 1, np.int64), np.zeros(_LONG + 1, np.int64)
    surfaces = SurfaceCounts()
    num_tokens = covered = cut = entities_cut = 0
    for batch in file.iter_batches(16_384, columns=_COLUMNS):
        seq_len = batch.column("seq_len").to_numpy().astype(np.int64)
        ids = batch.column("lex_ids").flatten().to_numpy()
        found = np.diff(batch.column("lex_ids").offsets.to_numpy())
        frequency = _added(frequency, ids)
        entities += np.bincount(np.minimum(found, _MANY), minlength=_MANY + 1)
        tokens += np.bincount(np.minimum(seq_len, _LONG), minlength=_LONG + 1)
        row, starts, lasts = _spans(batch, seq_len, found)
        surfaces.add(batch.column("input_ids"), row, starts, lasts)
        num_tokens += int(seq_len.sum())
        covered += _num_covered(seq_len, row, starts, lasts)
        cut += int((seq_len > text_len).sum())
        entities_cut += int((starts >= text_len).sum())
    named = open_names(names_file(names)) if names is not None else None
    frequent: list[tuple[str, int]] = []
    if tokenizer_folder(table).is_dir():
        frequent = surfaces.frequent(max(1, stop_share * file.num_rows), tokenizer_of(table))
    order = np.argsort(-frequency, kind="stable")[:top]  # the lowest id first among equals
    return LatticeStats(
        num_captions=file.num_rows,
        num_tokens=num_tokens,
        num_covered_tokens=covered,
        num_entities=int(frequency.sum()),
        num_different=int((frequency > 0).sum()),
        num_with_entity=int(entities[1:].sum()),
        entities_per_caption=entities.tolist(),
        tokens_per_caption=tokens.tolist(),
        text_len=text_len,
        num_cut=cut,
        num_entities_cut=entities_cut,
        most_frequent=[
            (named[i] if named is not None and i < len(named) else str(i), int(frequency[i]))
            for i in order.tolist()
            if frequency[i]
        ],
        frequent_surfaces=frequent,
    )


def save_stop_names(stats: LatticeStats, path: Path) -> None:
    """Write the candidates for stop names, one per line, each with its share of captions."""
    lines = (f"{s}\t{_percent(n, stats.num_captions)}\n" for s, n in stats.frequent_surfaces)
    save_text(path, "".join(lines))


def save_stats_plot(stats: LatticeStats, path: Path) -> None:
    """Plot entities and tokens per caption and the most frequent entities as an SVG file."""
    from data.plot import COLOURS, new_figure, save_svg, style

    with style():
        figure = new_figure(9.6, max(4.2, 1.2 + 0.24 * len(stats.most_frequent)))
        axes = figure.subplot_mosaic([["entities", "names"], ["tokens", "names"]])
        _histogram(axes["entities"], stats.entities_per_caption, COLOURS[0])
        share = _percent(stats.num_with_entity, stats.num_captions)
        axes["entities"].set_title(f"Entities per caption: {share} have one")
        _histogram(axes["tokens"], stats.tokens_per_caption, COLOURS[2])
        axes["tokens"].axvline(stats.text_len + 0.5, color=COLOURS[1], linewidth=1)
        share = _percent(stats.num_cut, stats.num_captions)
        axes["tokens"].set_title(f"Tokens per caption: {share} over {stats.text_len}")
        labels = [name for name, _ in stats.most_frequent]
        counts = [count for _, count in stats.most_frequent]
        bars = axes["names"].barh(range(len(labels)), counts, color=COLOURS[0])
        axes["names"].bar_label(bars, [f" {count:,}" for count in counts], fontsize=8)
        axes["names"].set_yticks(range(len(labels)), labels)
        axes["names"].invert_yaxis()
        axes["names"].xaxis.set_visible(False)
        axes["names"].spines["bottom"].set_visible(False)
        share = _percent(stats.num_covered_tokens, stats.num_tokens)
        axes["names"].set_title(f"Most frequent entities; {share} of tokens are covered")
        save_svg(figure, path)


def _histogram(axes: "Axes", counts: list[int], colour: str) -> None:
    """Plot the bars up to the last that is not 0; the last bin is labelled `or more`."""
    last = max((n for n, count in enumerate(counts) if count), default=0)
    axes.bar(range(last + 1), counts[: last + 1], color=colour, width=0.85)
    if last == len(counts) - 1:
        axes.set_xlabel(f"{last}: {last} or more", fontsize=8)
    axes.set_xlim(-0.6, max(last, 10) + 0.6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _added(frequency: Ints, ids: Ids) -> Ints:
    """Return the frequencies, with `ids` added."""
    if not len(ids):
        return frequency
    largest = int(ids.max()) + 1
    if largest > len(frequency):
        frequency = np.concatenate((frequency, np.zeros(largest - len(frequency), np.int64)))
    different, counts = np.unique(ids, return_counts=True)
    frequency[different] += counts
    return frequency


def _spans(batch: pa.RecordBatch, seq_len: Ints, found: Ids) -> tuple[Ints, Ints, Ints]:
    """Return row, first and last token of every entity of a batch; int64 (num_entities,) each."""
    row = np.repeat(np.arange(len(found)), found)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(found) - found, found)
    begins = batch.column("pos_s").offsets.to_numpy().astype(np.int64)
    at = begins[row] - begins[0] + seq_len[row] + nth
    starts, lasts = (batch.column(name).flatten().to_numpy()[at] for name in ("pos_s", "pos_e"))
    return row, starts.astype(np.int64), lasts.astype(np.int64)


def _num_covered(seq_len: Ints, row: Ints, starts: Ints, lasts: Ints) -> int:
    """Return the number of covered tokens, by summing +1 and -1 at the edges of entities."""
    begin = (np.cumsum(seq_len) - seq_len)[row]
    size = int(seq_len.sum()) + 1
    change = np.bincount(begin + starts, minlength=size)
    change -= np.bincount(begin + lasts + 1, minlength=size)
    return int((np.cumsum(change) > 0).sum())


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"
