"""Makes rows.jsonl from WordNet 3.0 (``apt-get install wordnet-base``): ``python examples/instructions/make.py``.

The input is an entry in the dictionary's own shorthand, the output the same entry set out as a card.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

ROWS = 240
INSTRUCTION = "Set out this dictionary entry as a card."
KINDS = {"noun": ("n.", "noun"), "verb": ("v.", "verb"), "adj": ("adj.", "adjective")}


def entries(folder: Path) -> list[tuple[str, str]]:
    """Input and output of every plain entry with an example, by word; each word once."""
    found: dict[str, tuple[str, str]] = {}
    for part, (short, long) in KINDS.items():
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            head, bar, gloss = line.partition(" | ")
            fields = head.split()
            match = re.fullmatch(r"([a-z][a-z ,'-]{12,90}); \"([A-Za-z][A-Za-z ,'-]{10,80})\"", gloss.strip())
            if line.startswith("  ") or not bar or match is None:
                continue
            words = [re.sub(r"\(.*?\)", "", fields[4 + 2 * i]).replace("_", " ") for i in range(int(fields[3], 16))]
            if any(word in found or not word.islower() for word in words):
                continue
            first, others = words[0], words[1:]
            entry = f'{", ".join(words)} ({short}) {match[1]}; "{match[2]}"'
            card = [
                f"Word: {first} ({long})",
                f"Meaning: {match[1]}.",
                f"Example: {match[2][0].upper()}{match[2][1:]}.",
            ]
            card.append(f"Also: {', '.join(others) if others else 'none'}.")
            found.update(dict.fromkeys(words, (entry, "\n".join(card))))
    return sorted(set(found.values()))


def rows(folder: Path) -> list[dict[str, str]]:
    """Alpaca's three columns."""
    chosen = random.Random(0).sample(entries(folder), ROWS)
    return [
        {"id": str(number), "instruction": INSTRUCTION, "input": entry, "output": card}
        for number, (entry, card) in enumerate(chosen)
    ]


if __name__ == "__main__":
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(source))
    Path(__file__).with_name("rows.jsonl").write_text(text, encoding="utf-8")
