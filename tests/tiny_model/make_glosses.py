"""Samples glosses.txt from WordNet 3.0's data files (Debian: ``apt-get install wordnet-base``).

Usage: ``python -m tests.tiny_model.make_glosses [/usr/share/wordnet]``. Run once; the result is kept.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

COUNT = 4000


def glosses(folder: Path) -> dict[str, str]:
    """Short plain glosses of single-sense-looking lower-case words, by word."""
    found: dict[str, str] = {}
    for part in ("noun", "verb", "adj"):
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            head, bar, gloss = line.partition(" | ")
            if line.startswith("  ") or not bar:
                continue
            word = re.sub(r"\(.*?\)", "", head.split()[4].replace("_", " "))
            first = gloss.split(";")[0].strip()
            plain = re.fullmatch(r"[a-z ]+", word) and re.fullmatch(r"[A-Za-z ,'-]+", first)
            if plain and 3 <= len(first.split()) <= 14:
                found.setdefault(word, first)
    return found


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet")
    found = sorted(glosses(folder).items())
    chosen = random.Random(0).sample(found, COUNT)
    lines = (f"{word}: {gloss}\n" for word, gloss in chosen)
    Path(__file__).with_name("glosses.txt").write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
