"""Tokenizers shared by the lattice tests."""

from pathlib import Path

import pytest

from data.kg_folder import write_names
from data.tokenizer import Tokenizer, character_vocabulary

PIECES = ["iphone", "##15", "15", "mate", "##40", "cat", "con", "##cat", "##enate", "ok", "##机"]


@pytest.fixture(scope="session")
def characters(tmp_path_factory) -> Tokenizer:
    """The character tokenizer that is the default."""
    file = tmp_path_factory.mktemp("characters") / "vocab.txt"
    file.write_text("\n".join(character_vocabulary()) + "\n", encoding="utf-8")
    return Tokenizer.load(file)


@pytest.fixture(scope="session")
def pieces(tmp_path_factory) -> Tokenizer:
    """A WordPiece tokenizer: characters, a few longer pieces, and some unknown characters."""
    file = tmp_path_factory.mktemp("pieces") / "vocab.txt"
    vocabulary = [c for c in character_vocabulary() if c not in "龘鱻z##z"]
    file.write_text("\n".join(vocabulary + PIECES) + "\n", encoding="utf-8")
    return Tokenizer.load(file)


@pytest.fixture
def names(request, tmp_path) -> Path:
    """The id file of the module's `NAMES`."""
    write_names(tmp_path / "entity2id.txt", request.module.NAMES)
    return tmp_path / "entity2id.txt"


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file in the test's folder and return its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write_file
