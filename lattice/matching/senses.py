"""The entities that each surface names; mostly one, found by one array access."""

from typing import NamedTuple

import numpy as np

from lattice.matching.arrays import Ids, Ints


class Senses(NamedTuple):
    """The entities of each surface.

    Attributes:
        entity_of: The entity of each ordinal, or `-1 - n` if it names several; int32
            (num_surfaces,).
        several_at: These are `several[several_at[n] : several_at[n + 1]]`; int64
            (num_ambiguous + 1,).
        several: Entity ids, ascending within a surface; int32.
    """

    entity_of: Ids
    several_at: Ints
    several: Ids

    @classmethod
    def empty(cls) -> "Senses":
        """Return the senses of no surface."""
        return cls(np.empty(0, np.int32), np.zeros(1, np.int64), np.empty(0, np.int32))

    @classmethod
    def from_offsets(cls, entity_ids: Ids, offsets: Ints) -> "Senses":
        """Return senses from lists: ordinal n names `entity_ids[offsets[n]:offsets[n + 1]]`."""
        widths = np.diff(offsets)
        ambiguous = np.flatnonzero(widths != 1)
        entity_of = entity_ids[np.minimum(offsets[:-1], len(entity_ids) - 1)]
        entity_of[ambiguous] = -1 - np.arange(len(ambiguous))
        several_at = np.concatenate(([0], np.cumsum(widths[ambiguous])))
        return cls(entity_of, several_at, entity_ids[np.repeat(widths != 1, widths)])

    def extended(self, ordinals: Ids, first_id: int) -> "Senses":
        """Return the senses after adding entity `first_id + n` to surface `ordinals[n]`.

        New ordinals continue the old ones. Lists of surfaces that get further entities are written
        again behind the others.
        """
        old = len(self.entity_of)
        ids = np.arange(first_id, first_id + len(ordinals), dtype=np.int32)
        count = max(old, int(ordinals.max(initial=-1)) + 1)
        entity_of = np.concatenate((self.entity_of, np.empty(count - old, np.int32)))
        _, first = np.unique(ordinals, return_index=True)
        fresh = first[ordinals[first] >= old]
        entity_of[ordinals[fresh]] = ids[fresh]
        more = np.ones(len(ids), np.bool_)
        more[fresh] = False
        lists: dict[int, list[int]] = {}
        for ordinal, entity_id in zip(ordinals[more].tolist(), ids[more].tolist(), strict=True):
            if ordinal not in lists:
                lists[ordinal] = self.of(ordinal, int(entity_of[ordinal]))
            lists[ordinal].append(entity_id)
        ambiguous = len(self.several_at) - 1
        entity_of[list(lists)] = -1 - np.arange(ambiguous, ambiguous + len(lists))
        widths = np.fromiter(map(len, lists.values()), np.int64, len(lists))
        several = np.array([i for ids in lists.values() for i in ids], np.int32)
        return Senses(
            entity_of,
            np.concatenate((self.several_at, self.several_at[-1] + np.cumsum(widths))),
            np.concatenate((self.several, several)),
        )

    def of(self, ordinal: int, entity: int | None = None) -> list[int]:
        """Return the entities of a surface; `entity`, if given, replaces its `entity_of`."""
        entity = int(self.entity_of[ordinal]) if entity is None else entity
        if entity >= 0:
            return [entity]
        found: list[int] = self.several[
            self.several_at[-1 - entity] : self.several_at[-entity]
        ].tolist()
        return found

    def expand(self, ordinals: Ints) -> tuple[Ints | None, Ids]:
        """Return the entities of surfaces, and for each the position of its surface.

        The positions are None if each surface names one entity.
        """
        ids = self.entity_of[ordinals]
        if len(self.several_at) == 1 or not (ids < 0).any():
            return None, ids
        group = np.maximum(-1 - ids, 0)
        widths = np.where(ids < 0, np.diff(self.several_at)[group], 1)
        position = np.repeat(np.arange(len(ids)), widths)
        nth = np.arange(len(position)) - np.repeat(np.cumsum(widths) - widths, widths)
        ids, group = ids[position], group[position]
        at = np.where(ids < 0, self.several_at[group] + nth, 0)
        found: Ids = np.where(ids < 0, self.several[at], ids)
        return position, found
