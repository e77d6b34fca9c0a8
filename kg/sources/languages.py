"""Rank language tags: which of several labels of an entity is its name."""

from kg.sources.config import ConvertConfig

# Lower ranks are preferred. The tags of --lang begin at 0, those of --fallback-lang at FALLBACK.
FALLBACK = 50
UNTAGGED = 100  # a label without a language tag
FROM_IRI = 200  # the last part of the IRI
ONLY_ID = 250  # the id of a relation without a label
ALIAS = 255  # a mention, never a name
UNWANTED = 256  # a label in another language
_ORDER = {"zh": ("zh", "zh-hans", "zh-cn", "zh-sg", "zh-hant", "zh-tw", "zh-hk")}
# Codes of Chinese in wordnets: ISO 639-3, and OMW's own for the Taiwanese wordnet.
_SAME = {"cmn": "zh", "zho": "zh", "chi": "zh", "qcn": "zh-hant", "eng": "en"}


class Languages:
    """The ranks of language tags for the given settings.

    A tag with a region or script that is not in the order of preference follows those that are.
    """

    def __init__(self, config: ConvertConfig) -> None:
        self._wanted = [(_normal(config.lang), 0)]
        if config.fallback_lang:
            self._wanted.append((_normal(config.fallback_lang), FALLBACK))
        self._known: dict[str, int] = {}

    def rank(self, tag: str) -> int:
        """Return the rank of a tag; `UNWANTED` for other languages. Case does not matter."""
        if tag not in self._known:
            self._known[tag] = self._rank(_normal(tag))
        return self._known[tag]

    def _rank(self, tag: str) -> int:
        for wanted, base in self._wanted:
            family = wanted.split("-")[0]
            order = list(dict.fromkeys((wanted, *_ORDER.get(family, (family,)))))
            if tag in order:
                return base + order.index(tag)
            if tag.startswith(f"{family}-"):
                return base + len(order)
        return UNWANTED


def _normal(tag: str) -> str:
    first, minus, rest = tag.lower().partition("-")
    return _SAME.get(first, first) + minus + rest
