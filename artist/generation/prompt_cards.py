"""Gallery cards of prompts: text, lattice and images."""

from collections.abc import Mapping, Sequence

from artist.generation.gallery import Card, Entity, ImageRow
from artist.tables.lattice_rows import Rows
from data.tokenizer import Tokenizer


def prompt_card(
    tokenizer: Tokenizer,
    text_len: int,
    table: Rows,
    n: int,
    names: Sequence[str],
    *,
    rows: Sequence[ImageRow],
    types: Mapping[str, str] | None = None,
    badges: Sequence[str] = (),
    note: str = "",
) -> Card:
    """Return the gallery card of a prompt.

    Args:
        tokenizer: The model's text tokenizer.
        text_len: The model's text length.
        table: The matched prompts.
        n: Index of the prompt.
        names: Names of all entities, by id.
        rows: The images.
        types: Entity name -> type, shown next to the name.
        badges: See `Card`.
        note: See `Card`; a remark is appended if the prompt is truncated.
    """
    surfaces = next(iter(tokenizer.encode([table.texts[n]]))).surfaces
    if len(surfaces) > text_len:
        truncated = f"truncated to {text_len} tokens"
        note = f"{note}; {truncated}" if note else truncated
    entities = []
    for k in range(table.first_entity[n], table.first_entity[n + 1]):
        name = names[table.entity_ids[k]]
        entities.append(
            Entity(
                start=int(table.starts[k]),
                end=int(table.ends[k]),
                label=name,
                note=(types or {}).get(name, ""),
            )
        )
    return Card(
        prompt=table.texts[n],
        tokens=surfaces[:text_len],
        entities=entities,
        badges=badges,
        note=note,
        rows=rows,
    )
