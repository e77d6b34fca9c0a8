"""A trie and its senses as a folder of arrays, which processes map and share."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lattice.matching.matcher import Backend
from lattice.matching.senses import Senses
from lattice.matching.trie import Trie

ARRAYS = ("letters", "slots", "short", "entity_of", "several_at", "several")


def save_arrays(folder: Path, trie: Backend, senses: Senses) -> None:
    """Write the arrays into a folder."""
    assert isinstance(trie, Trie), "an automaton cannot be mapped"
    arrays: list[NDArray[Any]] = [trie.letters, trie.slots, trie.short, *senses]
    for name, array in zip(ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def open_arrays(folder: Path, mode: Literal["r", "c"] = "r") -> tuple[Trie, Senses]:
    """Map what `save_arrays` wrote, without reading it.

    Args:
        folder: The folder.
        mode: "r": read-only; "c": changes are kept in this process's memory, page by page.
    """
    arrays = [
        np.asarray(np.load(folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False))
        for name in ARRAYS
    ]
    letters, slots, short = arrays[:3]
    return Trie(letters, slots, short), Senses(*arrays[3:])
