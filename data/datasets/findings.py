"""Find repeats, near duplicates, and leakage from another table in a scanned table."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data.datasets.image_hash import is_flat, nearest_earlier
from data.datasets.table_scan import Offender, TableScan

_LONG_SIDES = 3.0  # a centre crop of such an image loses two thirds


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of finding in a table.

    Attributes:
        code: Short name, for scripts.
        problem: Whether it costs rows or distorts results.
        count: Rows concerned.
        what: Description.
        first: The first lines concerned.
    """

    code: str
    problem: bool
    count: int
    what: str
    first: list[Offender] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [f"  {self.what}: {self.count:,}", *(f"      {one}" for one in self.first)]
        )


_PARTLY = " (not all pairs were compared: too many look alike)"


def own_findings(scan: TableScan, text_len: int, show: int) -> list[Finding]:
    """Return the findings in a table alone."""
    found = [
        Finding(
            code=reason.replace(" ", "-"),
            problem=True,
            count=count,
            what=f"unusable rows, {reason}",
            first=scan.faults.examples[reason],
        )
        for reason, count in scan.faults.reasons.items()
    ]
    found.append(_quoted_rows(scan, show))
    mark = _FindingMaker(scan, show)
    has_image = scan.has_image
    found.append(mark.repeats("duplicate-idx", "rows that repeat an earlier idx", scan.idx, True))
    if has_image.any():
        what = "rows without an image where others have one"
        found.append(mark.rows("no-image", what, ~has_image, True))
        pair = scan.text ^ (scan.sha * np.uint64(0x9E3779B97F4A7C15))
        what = "rows that repeat an earlier image with the same caption"
        found.append(mark.repeats("duplicate-row", what, pair, False, has_image))
        what = "rows that repeat an earlier image byte for byte, as further captions do"
        found.append(mark.repeats("duplicate-image", what, scan.sha, False, has_image))
        found.append(mark.alike())
        long = np.maximum(scan.width, scan.height) > _LONG_SIDES * np.minimum(
            scan.width, scan.height
        )
        what = (
            f"images over {_LONG_SIDES:g} times as long as wide (training uses the centre square)"
        )
        found.append(mark.rows("long-image", what, long, False))
    what = "rows that repeat an earlier caption"
    found.append(mark.repeats("duplicate-caption", what, scan.text, False))
    what = f"captions of more than {text_len} tokens (the model reads the first ones)"
    found.append(mark.rows("cut-caption", what, scan.tokens > text_len, False))
    what = "captions without a Chinese character"
    found.append(mark.rows("not-chinese", what, ~scan.chinese, False))
    return found


def _quoted_rows(scan: TableScan, show: int) -> Finding:
    """Return the rows that look quoted; a few without a doubled quote may be meant as they are."""
    quoted = scan.faults.quoted
    return Finding(
        code="quoted",
        problem=quoted.doubled > 0 or 2 * quoted.count > len(scan),
        count=quoted.count,
        what="rows that look quoted, as pandas, csv.writer and Excel write (quotes are part of the "
        "text; `cli.py data unquote` removes them)",
        first=[Offender(quoted.first)][:show],
    )


class _FindingMaker:
    """Makes findings about the rows of a table, with at most `show` examples each."""

    def __init__(self, scan: TableScan, show: int) -> None:
        self.scan, self.show = scan, show

    def _made(
        self,
        code: str,
        problem: bool,
        what: str,
        rows: NDArray[np.int64],
        does: str = "",
        to: NDArray[np.int64] | None = None,
    ) -> Finding:
        """Return the finding about some rows; `to` holds the other line that each one concerns."""
        others = np.zeros(len(rows), np.int64) if to is None else to
        shown = zip(self.scan.line[rows[: self.show]], others[: self.show], strict=True)
        first = [Offender(int(line), does, int(other)) for line, other in shown]
        return Finding(code=code, problem=problem, count=len(rows), what=what, first=first)

    def rows(self, code: str, what: str, where: NDArray[np.bool_], problem: bool) -> Finding:
        """Return the rows selected by `where`, bool `(N,)`."""
        return self._made(code, problem, what, np.flatnonzero(where))

    def repeats(
        self,
        code: str,
        what: str,
        key: NDArray[np.uint64],
        problem: bool,
        among: NDArray[np.bool_] | None = None,
    ) -> Finding:
        """Return the rows whose key equals that of an earlier row, optionally within `among`."""
        rows = np.flatnonzero(among) if among is not None else np.arange(len(key))
        _, first, of = np.unique(key[rows], return_index=True, return_inverse=True)
        again = np.flatnonzero(first[of] != np.arange(len(rows)))
        earlier = self.scan.line[rows[first[of[again]]]]
        return self._made(code, problem, what, rows[again], "repeats", earlier)

    def alike(self) -> Finding:
        """Different images that check the same."""
        rows = _distinct(self.scan)
        earlier, complete = nearest_earlier(self.scan.hash[rows])
        near = np.flatnonzero(earlier >= 0)
        what = "images that look like an earlier one" + _PARTLY * (not complete)
        to = self.scan.line[rows[earlier[near]]]
        return self._made("near-image", False, what, rows[near], "looks like", to)

    def shared(self, other: TableScan, code: str, what: str, column: str, problem: bool) -> Finding:
        """Return the rows whose value in a column is in another table too."""
        mine: NDArray[np.uint64] = getattr(self.scan, column)
        theirs: NDArray[np.uint64] = getattr(other, column)
        values, first = np.unique(theirs, return_index=True)
        place = np.minimum(np.searchsorted(values, mine), max(len(values) - 1, 0))
        same = values[place] == mine if len(values) else np.zeros(len(mine), bool)
        if column == "sha":
            same &= self.scan.has_image
        rows = np.flatnonzero(same)
        return self._made(code, problem, what, rows, "is its", other.line[first[place[rows]]])

    def shared_alike(self, other: TableScan, what: str) -> Finding:
        """Return the images near one of another table, without equal bytes."""
        mine, theirs = _distinct(self.scan), _distinct(other)
        mine = mine[~np.isin(self.scan.sha[mine], other.sha[theirs])]
        hashes = np.concatenate([other.hash[theirs], self.scan.hash[mine]])
        groups = np.repeat(np.array([0, 1], np.int8), [len(theirs), len(mine)])
        earlier, complete = nearest_earlier(hashes, groups)
        earlier = earlier[len(theirs) :]
        near = np.flatnonzero(earlier >= 0)
        to = other.line[theirs[earlier[near]]]
        what += _PARTLY * (not complete)
        return self._made("shared-near-image", True, what, mine[near], "looks like its", to)


def _distinct(scan: TableScan) -> NDArray[np.int64]:
    """Return the first row of each distinct image that is not blank."""
    rows = np.flatnonzero(scan.has_image & ~is_flat(scan.hash))
    _, first = np.unique(scan.sha[rows], return_index=True)
    kept: NDArray[np.int64] = rows[np.sort(first)]
    return kept


def shared_findings(scan: TableScan, other: TableScan, show: int) -> list[Finding]:
    """Return what both tables share: leakage, if one is a test set for training on the other."""
    mark, name = _FindingMaker(scan, show), other.path
    return [
        mark.shared(other, "shared-image", f"rows with an image of {name}", "sha", True),
        mark.shared_alike(other, f"images that look like one of {name}, of other bytes"),
        mark.shared(other, "shared-idx", f"rows with an idx of {name}", "idx", False),
        mark.shared(other, "shared-caption", f"rows with a caption of {name}", "text", False),
    ]
