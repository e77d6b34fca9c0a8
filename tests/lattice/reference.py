"""The reference's rule, restated slowly as an oracle: a dictionary trie walked token by token.

EasyNLP (commit a4ee956) puts the characters of every name of two or more into a trie, the last of
equal names winning, and from each WordPiece token walks on as long as whole tokens are keys. So
only runs of one-character tokens match. Returned are all matches by start, then end.
"""

from collections.abc import Iterable, Sequence

_ID = "id"  # longer than a character, so it is no token's key


def make_trie(names: Iterable[str]) -> dict:
    root: dict = {}
    for entity_id, name in enumerate(names):
        if len(name) < 2:
            continue
        node = root
        for character in name:
            node = node.setdefault(character, {})
        node[_ID] = entity_id
    return root


def match_tokens(trie: dict, tokens: Sequence[str]) -> list[tuple[int, int, int]]:
    """`(first token, last token, entity id)`."""
    found = []
    for start in range(len(tokens)):
        node = trie
        for end in range(start, len(tokens)):
            if tokens[end] == _ID or tokens[end] not in node:
                break
            node = node[tokens[end]]
            if _ID in node:
                found.append((start, end, node[_ID]))
    return found


def reference_row(trie: dict, tokens: Sequence[str]) -> dict:
    """The columns that the reference writes."""
    matches = match_tokens(trie, tokens)
    positions = list(range(len(tokens)))
    return {
        "seq_len": len(tokens),
        "lex_ids": [i for _, _, i in matches],
        "pos_s": positions + [s for s, _, _ in matches],
        "pos_e": positions + [e for _, e, _ in matches],
    }
