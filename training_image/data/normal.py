"""When two inputs count as the same: the normal form of a text, and its words."""

from __future__ import annotations

import functools
import re
import unicodedata


@functools.cache  # not at the import: it looks at 65,536 characters, and most commands read no text
def _separators() -> re.Pattern[str]:
    """Punctuation and white space. What belongs to a number stays (-5, 3.5, 12:30), or sums would be repeats of
    another."""
    marks = (chr(code) for code in range(0x10000) if unicodedata.category(chr(code)).startswith("P"))
    return re.compile(rf"(?![-.,:/]\d)[{re.escape(''.join(marks))}]|\s")


def normalise(text: str) -> str:
    """NFKC, case-folded, punctuation and white space as single blanks; a text of punctuation alone keeps it."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_separators().sub(" ", folded).split()) or " ".join(folded.split())


def tokens(text: str) -> list[str]:
    """The words of the normal form, at least one (an empty one for an empty text): an analyzer for scikit-learn."""
    return normalise(text).split(" ")


def words(text: str) -> frozenset[str]:
    """The distinct words of the normal form."""
    return frozenset(tokens(text))
