"""The scanner of N-Triples against regular expressions of the grammar."""

import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from kg.sources.ntriples import IRI, OBJECT, PREDICATE, REASONS, SUBJECT, SUFFIX, scan, unescape

ECHAR, UCHAR = r"\\[tbnrf\"'\\]", r"\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}"
IRIREF = rf"<((?:[^\x00-\x20<>\"{{}}|^`\\]|{UCHAR})*)>"
LETTER = r"A-Za-z0-9_:\x80-\U0010ffff"
LABEL = rf"_:(?:[{LETTER}](?:[{LETTER}.-]*[{LETTER}-])?)"
TAG = r"@[a-zA-Z]+(?:-[a-zA-Z0-9]+)*"
LITERAL = rf"\"((?:[^\x00\x22\x5c\x0a\x0d]|{ECHAR}|{UCHAR})*)\"(?:{TAG}|\^\^{IRIREF})?"
GRAMMAR = re.compile(
    rf"[ \t]*(?:{IRIREF}|({LABEL}))[ \t]*{IRIREF}[ \t]*(?:{IRIREF}|({LABEL})|{LITERAL})[ \t]*\."
    r"[ \t]*(?:#[^\n]*)?"
)

terms = st.sampled_from(
    ["<http://a/b>", "<b>", "<\\u4E2D>", "<a b>", "<a\\n>", "_:x", "_:x.", "_:", '"甲"', '"a\\"b"',
     '"\\U0001F600"', '"x"@zh', '"x"@zh-Hans-CN', '"x"@1', '"x"@zh-', '"x"^^<t>', '"x"^^t', '"\\q"',
     '"cut', "<cut", ".", "#", "", " ", "\t", "甲", '"\\u12"', "<{}>"]
)  # fmt: skip
texts = st.lists(terms, max_size=6).flatmap(
    lambda parts: st.sampled_from([" ", "", "\t"]).map(lambda gap: gap.join(parts))
)


@given(st.lists(texts, min_size=1, max_size=8))
@example(["<a> <b> <c> .", "<a> <b> _:c. # x", '<a><b>"c"@zh-Hans.', "", "# x"])
def test_exactly_the_lines_of_the_grammar_are_triples(lines):
    data = "".join(f"{line}\n" for line in lines).encode()
    found = scan(np.frombuffer(data, np.uint8), len(lines))
    blank = [not line.strip(" \t") or line.strip(" \t")[0] == "#" for line in lines]
    good = [
        i for i, line in enumerate(lines) if not blank[i] and GRAMMAR.fullmatch(line) is not None
    ]
    assert found.line.tolist() == good
    rejected = [i for i in range(len(lines)) if i not in good and not blank[i]]
    assert found.rejected[:, 0].tolist() == rejected
    assert all(reason in REASONS for reason in found.rejected[:, 3].tolist())
    for row, i in enumerate(found.line.tolist()):
        match = GRAMMAR.fullmatch(lines[i])
        assert match is not None
        span = found.span[row]
        parts = [data[b:e].decode() for b, e in span.tolist()]
        assert parts[SUBJECT] == (match[1] if match[1] is not None else match[2])
        assert parts[PREDICATE] == match[3]
        assert parts[OBJECT] == next(m for m in match.group(4, 5, 6) if m is not None)
        assert (found.kind[row, 1] == IRI) == (match[4] is not None)


@given(st.binary(max_size=60))
def test_any_bytes_are_scanned_without_a_fault(raw):
    data = raw.replace(b"\n", b" ") + b"\n"
    found = scan(np.frombuffer(data, np.uint8), 1)
    assert len(found.line) + len(found.rejected) <= 1
    assert (found.span >= 0).all()
    assert (found.span <= len(data)).all()


def test_the_suffix_is_the_tag_or_the_datatype():
    lines = ['<a> <b> "x"@zh-Hant .', '<a> <b> "x"^^<http://t#y> .', '<a> <b> "x" .']
    data = "".join(f"{line}\r\n" for line in lines).encode()
    found = scan(np.frombuffer(data, np.uint8), 3)
    spans = found.span[:, SUFFIX].tolist()
    assert [data[b:e] for b, e in spans] == [b"zh-Hant", b"http://t#y", b""]


@given(st.text())
def test_an_escaped_text_is_restored(text):
    escaped = "".join(f"\\U{ord(c):08X}" for c in text if not "\ud800" <= c <= "\udfff")
    assert unescape(escaped) == text
    assert unescape("\\t\\b\\n\\r\\f\\\"\\'\\\\\\u4e2d\\uD83D\\uDE00") == "\t\b\n\r\f\"'\\中😀"
