"""When two inputs count as the same: the normal form of a text, and its words."""

from __future__ import annotations

import re
import unicodedata

_PUNCTUATION = "".join(
    re.escape(chr(code)) for code in range(0x10000) if unicodedata.category(chr(code)).startswith("P")
)
_SEPARATORS = re.compile(rf"(?![-.,:/]\d)[{_PUNCTUATION}]|\s")
"""Punctuation and white space. What belongs to a number stays (-5, 3.5, 12:30), or sums would be repeats of another."""


def normalise(text: str) -> str:
    """NFKC, case-folded, punctuation and white space as single blanks; a text of punctuation alone keeps it."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_SEPARATORS.sub(" ", folded).split()) or " ".join(folded.split())


def tokens(text: str) -> list[str]:
    """The words of the normal form, at least one (an empty one for an empty text): an analyzer for scikit-learn."""
    return normalise(text).split(" ")


def words(text: str) -> frozenset[str]:
    """The distinct words of the normal form."""
    return frozenset(tokens(text))
