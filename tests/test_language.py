"""A word list for everything that a person reads: plain technical English.

Checked are the Markdown pages, docstrings, comments, strings that read like sentences, and the
names of tests. Code in backticks, links and fenced blocks are skipped.

    python -m tests.test_language [PATH ...]     prints all findings and counts them by folder
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

_THINGS = (
    r"(?:files?|folders?|tables?|columns?|rows?|models?|configs?|texts?|tensors?|vectors?|captions?"
    r"|manifests?|reports?|graphs?|vocabular(?:y|ies)|modules?|messages?|metadata|checkpoints?"
    r"|commands?|fingerprints?|errors?|images?|pages?|names?|schemas?|options?|settings?|tests?"
    r"|scripts?|figures?|docs?|numbers?|sets?|kg|vqgan|index|plots?|codes?)"
)
_UNITS = (
    r"(?:step|epoch|batch|caption|prompt|row|second|minute|line|image|name|seed|token|entity|triple"
    r"|text|sentence|query|code|core|worker|process|machine|turn|arm|shard|group|record)"
)
_COUNTED = (
    r"(?:entities|images|captions|triples|rows|tokens|steps|bytes|pixels|lines|seeds|codes|names"
    r"|negatives|matches|numbers|seconds|ms|MB|GB|µs|examples|prompts)"
)
WORDS = (  # what not to write -> what to write
    (rf"\d+(?: \w+)? (?:\w+s|MB|GB|%) an? {_UNITS}\b", "per ..."),
    (rf"\b{_COUNTED} an? {_UNITS}\b(?! (?:of|with|that|at|for|from|in)\b)", "per ..."),
    (
        rf"\b(?:one|two|once|twice|times|cost|memory|disk|work|time|share|number) an? {_UNITS}\b",
        "per ...",
    ),
    (r"\bpictures?\b", "image(s)"),
    (r"\bcodecs?\b", "image tokenizer"),
    (r"\bbesides?\b", "next to, in addition to"),
    (r"\bamid\b", "during"),
    (r"\beven so\b", "(leave out)"),
    (r"\bperhaps\b", "optionally, may"),
    (r"\bso many\b", "N, the number"),
    (r"\bthere (?:is|are) none\b", "none found, is missing"),
    (r"\bis no (?:TSV|table|folder|file|number|image|KG|model|checkpoint)\b", "is not a ..."),
    (
        rf"\b{_THINGS} (?:that )?(?:says?|tells?|knows?|hears?|speaks?|stands?|lies?|thinks?)\b"
        r"(?! (?:to|by) (?:run|end)\b)",
        "contains, states, is in",
    ),
    (
        r"\b(?:tensors|vectors|entities|captions|words|weights) (?:speak|hear|know|tell)\b",
        "(plain)",
    ),
    (r"\bheard of\b|\bhear of\b|\bare heard\b|\bis heard\b", "depend on, attend to"),
    (r"\b(?:stands?|standing|stood) (?:in|on|for|there|beside|before|at)\b", "is in, denotes"),
    (r"\b(?:lies?|lay|lying) (?:in|on|at|beside|there|below|under)\b", "is in, are in"),
    (r"\b(?:wilder|tamer|tame)\b", "more random, less random"),
    (r"\bby hand of\b", "by"),
    (r"\bin silence\b", "silently, without a report"),
    (r"\bat hand\b", "available"),
    (r"\bdealt (?:out )?to\b", "assigned to"),
    (r"\b(?:learnt|learned) by heart\b", "memorised, overfitted"),
    (r"\bfooled\b", "misled, pitfall"),
    (r"\bgo(?:es)? on (?:from|where|after|with)\b|\bgoing on\b", "resume, continue"),
    (r"\bforetold\b", "predicted"),
)
TABLE = tuple(  # a phrase may continue on the next line
    (re.compile(re.sub(r" (?![?*+])", r"\\s+", pattern), re.IGNORECASE), advice)
    for pattern, advice in WORDS
)

# Phrases that a format, a key or another project fixes: file, text, reason.
ALLOWED: tuple[tuple[str, str, str], ...] = ()
SELF = "tests/test_language.py"  # contains the words themselves


def documents() -> list[Path]:
    """Every Markdown page and module of the tree."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    pages += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "benchmarks").glob("*.md"))
    hidden = {".venv", "runs", "build", "dist"}
    modules = [
        path
        for path in sorted(ROOT.rglob("*.py"))
        if not any(p in hidden or p.startswith(".") for p in path.relative_to(ROOT).parts)
    ]
    return [path for path in (*pages, *modules) if str(path.relative_to(ROOT)) != SELF]


def markdown_text(content: str) -> Iterator[tuple[int, str]]:
    """Yield the prose of a page, without fenced blocks and the targets of links."""
    text = re.sub(r"^ *```.*?^ *```", lambda m: "\n" * m[0].count("\n"), content, flags=re.M | re.S)
    yield 1, re.sub(r"\]\([^)]*\)", "]", text)


def python_text(content: str) -> Iterator[tuple[int, str]]:
    """Yield comments, docstrings, sentences in strings and names of tests, each with its line."""
    yield from _comments(content)
    tree = ast.parse(content)
    unread, read = _strings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in unread
            and (" " in node.value.strip() or node in read)
        ):
            # In a docstring's list `name: meaning` the name is code.
            yield node.lineno, re.sub(r"^ +\w+:", "", node.value, flags=re.M)


def _comments(content: str) -> Iterator[tuple[int, str]]:
    """Yield runs of comments on consecutive lines as one text."""
    first, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != first + len(lines):
                yield first, "\n".join(lines)
                first, lines = token.start[0], []
            lines.append(token.string.lstrip("# "))
    yield first, "\n".join(lines)


def _strings(tree: ast.AST) -> tuple[set[ast.AST], set[ast.AST]]:
    """Return the strings that nobody reads (keys, streams, patterns) and those always read."""
    unread, read = set[ast.AST](), set[ast.AST]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            unread.update(key for key in node.keys if key is not None)
        elif isinstance(node, ast.Subscript):
            unread.add(node.slice)
        elif isinstance(node, ast.JoinedStr):
            read.update(node.values)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.split(".")[-1] == "stream" or called.startswith("re."):
                unread.update(node.args)
            read.update(k.value for k in node.keywords if k.arg in {"help", "desc", "unit"})
    return unread, read


def findings(path: Path) -> Iterator[str]:
    """Yield `file:line: phrase -> advice` for each phrase of the list in a file."""
    name = path.relative_to(ROOT).as_posix()
    content = path.read_text(encoding="utf-8")
    for first, text in (markdown_text if path.suffix == ".md" else python_text)(content):
        prose = re.sub(r"``?[^`]*``?", lambda m: "`" + "\n" * m[0].count("\n") + "`", text)
        for pattern, advice in TABLE:
            for match in pattern.finditer(prose):
                around = prose[max(0, match.start() - 12) : match.end() + 12]
                if not any(name.startswith(place) and w in around for place, w, _ in ALLOWED):
                    line = first + prose[: match.start()].count("\n")
                    yield f"{name}:{line}: {' '.join(match[0].split())} -> {advice}"


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_text_is_plain_technical_english(path):
    found = list(findings(path))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "12 entities a caption",
        "the pictures of a codec",
        "it lies beside the table",
        "the file says what it holds",
        "amid an epoch",
        "Tensors speak",
        "wilder images",
    ],
)
def test_the_list_finds_what_it_is_for(text):
    assert any(pattern.search(text) for pattern, _ in TABLE)


@pytest.mark.parametrize(
    "text",
    [
        "entities per caption",
        "a caption of the table",
        "every file contains a header",
        "the images of a prompt",
        "an image tokenizer",
    ],
)
def test_plain_text_passes(text):
    assert not any(pattern.search(text) for pattern, _ in TABLE)


if __name__ == "__main__":
    asked = [Path(word).resolve() for word in sys.argv[1:]] or [ROOT]
    chosen = [p for p in documents() if any(p.is_relative_to(place) for place in asked)]
    every = [line for path in chosen for line in findings(path)]
    counts = Counter(line.split(":")[0].split("/")[0] for line in every)
    sys.stdout.write("\n".join([*every, str(counts), ""]))
