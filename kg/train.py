"""The stage: dumps of triples in, a KG folder out.

Read, hold out, train, measure, save; each step's output lies in the run's folder, so that a killed
run goes on where it was.
"""

import numpy as np
from numpy.typing import NDArray

from data.seeds import stream

Ids = NDArray[np.int32]


def hold_out(triples: Ids, count: int, seed: int) -> tuple[Ids, Ids]:
    """The triples without `count` random ones, and those; no entity or relation loses its last.

    Fewer are held out where the graph does not allow so many.
    """
    degree = np.bincount(triples[:, [0, 2]].ravel())
    uses = np.bincount(triples[:, 1])
    generator = np.random.default_rng(stream(seed, "hold out"))
    tried = min(len(triples), 20 * count)
    chosen: list[int] = []
    for i in generator.choice(len(triples), tried, replace=False, shuffle=True):
        if len(chosen) == count:
            break
        head, relation, tail = triples[i]
        needed = 1 + (head == tail)
        if degree[head] > needed and degree[tail] > needed and uses[relation] > 1:
            degree[head] -= 1
            degree[tail] -= 1
            uses[relation] -= 1
            chosen.append(int(i))
    mask = np.zeros(len(triples), bool)
    mask[chosen] = True
    return triples[~mask], triples[mask]
