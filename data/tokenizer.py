"""The BERT tokenizer, checked when it is loaded, with the surface of each token.

The *surface* of a token is its normalised text: without `##`, and for [UNK] the text it replaces.
The joined surfaces of a caption are its normalised text without white space, and token boundaries
are positions in that text; lattice matching aligns to them.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import InputError
from data.runs import atomic

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokens(NamedTuple):
    """One tokenised text: BERT ids without special tokens, and the surface of each."""

    ids: list[int]
    surfaces: list[str]


class Tokenizer:
    """A BERT WordPiece tokenizer; see `Tokenizer.load`."""

    def __init__(self, fast: Any, vocab: dict[str, int], settings: dict[str, Any]) -> None:
        self._fast = fast
        self._unk_id = vocab["[UNK]"]
        self._pieces = {i: t.removeprefix("##") for t, i in vocab.items()}
        self.vocab = vocab
        self.settings = settings

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Load a vocabulary file, or a folder with `vocab.txt` and optionally its settings.

        Of `tokenizer_config.json` only `do_lower_case` is used (default true). A folder that
        transformers 5 saved has only `tokenizer.json`, which is read instead.

        Raises:
            InputError: It is missing, lacks special tokens, or is not loaded completely.
        """
        path = Path(path)
        vocab_file = path / "vocab.txt" if path.is_dir() else path
        saved = path / "tokenizer.json" if path.is_dir() else path
        if (
            saved.name == "tokenizer.json"
            and saved.is_file()
            and not (path.is_dir() and vocab_file.is_file())
        ):
            read, lowercase = _read_tokenizer_json(saved)
            _check_special_tokens(saved, read)
            return cls(_backend(read, lowercase), read, {"lowercase": lowercase})
        if not vocab_file.is_file():
            raise InputError(
                f"{vocab_file} does not exist. Give a vocab.txt or a folder with one; without "
                "--tokenizer, a character vocabulary is generated."
            )
        try:
            lines = vocab_file.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            raise InputError(f"{vocab_file} is not UTF-8.") from None
        tokens = [line.removesuffix("\r") for line in lines]
        while tokens and not tokens[-1]:
            tokens.pop()
        vocab: dict[str, int] = {}
        for i, token in enumerate(tokens):
            if vocab.setdefault(token, i) != i:
                raise InputError(
                    f"{vocab_file}:{i + 1}: the token {token!r} repeats line {vocab[token] + 1}. "
                    "An id is the number of a line, so each token needs exactly one: replace this "
                    "line by an unused token such as [unused1]."
                )
        _check_special_tokens(vocab_file, vocab)
        lowercase = True
        config = vocab_file.with_name("tokenizer_config.json")
        if path.is_dir() and config.exists():
            try:
                lowercase = bool(json.loads(config.read_text("utf-8")).get("do_lower_case", True))
            except ValueError as error:
                raise InputError(f"{config} is not JSON: {error}.") from None
        return cls(_backend(vocab, lowercase), vocab, {"lowercase": lowercase})

    @property
    def fingerprint(self) -> str:
        """Return a hash of vocabulary and settings: equal if all texts get equal ids."""
        content = json.dumps([list(self.vocab.items()), self.settings], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Return the largest id plus 1."""
        return max(self.vocab.values()) + 1

    @property
    def pad_id(self) -> int:
        """Return the id of [PAD]."""
        return self.vocab["[PAD]"]

    @property
    def unk_id(self) -> int:
        """Return the id of [UNK], which replaces text that the vocabulary lacks."""
        return self._unk_id

    def token(self, token_id: int) -> str:
        """Return a token of the vocabulary by its id, without `##`."""
        return self._pieces[token_id]

    def normalise(self, text: str) -> str:
        """Return the normalised text (case, width, accents) without white space."""
        return "".join(self._fast.normalizer.normalize_str(text).split())

    def encode(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """Yield ids and surfaces of each text, in order."""
        for text, encoding in zip(
            texts, self._fast.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            ids = encoding.ids
            surfaces = [self._pieces[i] for i in ids]
            if self._unk_id in ids:
                for n, (i, (start, end)) in enumerate(zip(ids, encoding.offsets, strict=True)):
                    if i == self._unk_id:
                        surfaces[n] = self.normalise(text[start:end])
            yield Tokens(ids, surfaces)

    def save(self, folder: Path) -> None:
        """Write `vocab.txt` and `tokenizer_config.json`, which `load` reads."""
        with atomic(folder / "vocab.txt") as file:
            file.writelines(f"{token}\n" for token in self.vocab)
        with atomic(folder / "tokenizer_config.json") as file:
            config = {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": self.settings["lowercase"],
            }
            file.write(json.dumps(config) + "\n")


def tokenizer_folder(table: Path) -> Path:
    """Return the folder of the tokenizer of a table, which is next to it."""
    return table.with_name(table.name + ".tokenizer")


def tokenizer_of(table: Path) -> Tokenizer:
    """Load the tokenizer that a table was built with.

    Raises:
        InputError: Its folder is not next to the table.
    """
    folder = tokenizer_folder(table)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is missing: the tokenizer that the table was built with. Copy it together "
            "with the table, or build the table again."
        )
    return Tokenizer.load(folder)


def _check_special_tokens(path: Path, vocab: dict[str, int]) -> None:
    missing = [token for token in SPECIAL_TOKENS[:2] if token not in vocab]
    if missing:
        raise InputError(
            f"{path} is not a BERT vocabulary: {', '.join(missing)} not among its "
            f"{len(vocab)} tokens."
        )


def _read_tokenizer_json(path: Path) -> tuple[dict[str, int], bool]:
    """Return vocabulary (in order of ids) and `lowercase` of a BERT tokenizer saved as JSON.

    Raises:
        InputError: The file is not JSON, or its tokenizer is not BERT's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise InputError(f"{path} is not JSON: {error}.") from None
    model = content.get("model") if isinstance(content, dict) else None
    normalizer = (content.get("normalizer") or {}) if isinstance(content, dict) else {}
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict) or normalizer.get("type") != "BertNormalizer":
        kind = (model or {}).get("type", "unknown") if isinstance(model, dict) else "unknown"
        raise InputError(
            f"{path} holds a {kind} tokenizer; a BERT WordPiece tokenizer is required."
        )
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise InputError(
            f"{path}: the ids of its {len(vocab)} tokens are not 0 to {len(vocab) - 1}."
        )
    lowercase = bool(normalizer.get("lowercase", True))
    return dict(sorted(vocab.items(), key=lambda item: item[1])), lowercase


def _backend(vocab: dict[str, int], lowercase: bool) -> Any:
    """Return the BERT tokenizer of transformers after checking its vocabulary."""
    # In transformers 5, `vocab_file=` silently builds an empty vocabulary; `vocab=` does not.
    from transformers import BertTokenizer

    fast = BertTokenizer(vocab=vocab, do_lower_case=lowercase).backend_tokenizer
    if fast.get_vocab() != vocab:
        raise InputError(
            f"the tokenizer library kept {fast.get_vocab_size()} of {len(vocab)} tokens; "
            "is [CLS], [SEP] or [MASK] missing?"
        )
    return fast


def character_vocabulary() -> list[str]:
    """Return a character-level BERT vocabulary in lower case, used when none is given.

    Special tokens, then ASCII, accented Latin, Greek, Cyrillic, punctuation, kana, full-width forms
    and the 20,992 ideographs of the CJK block; letters and digits also as `##` continuations.
    """
    ranges = [
        (0x21, 0x7F),
        (0xA1, 0x180),
        (0x370, 0x460),
        (0x2010, 0x2040),
        (0x2100, 0x2200),
        (0x2460, 0x24C0),
        (0x3001, 0x3100),
        (0xFF01, 0xFF66),
        (0x4E00, 0xA000),
    ]
    kept = [
        c
        for a, b in ranges
        for c in map(chr, range(a, b))
        if unicodedata.category(c)[0] in "LNPS" and c == c.lower()
    ]
    following = [c for c in kept if not "一" <= c <= "\u9fff"]
    return [*SPECIAL_TOKENS, *kept, *("##" + c for c in following)]


def write_character_vocabulary(folder: Path) -> Path:
    """Write `character_vocabulary` as `vocab.txt` into a folder and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "vocab.txt") as file:
        file.writelines(f"{token}\n" for token in character_vocabulary())
    return folder
