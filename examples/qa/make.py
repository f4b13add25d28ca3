"""Makes rows.jsonl from WordNet 3.0 (Debian: ``apt-get install wordnet-base``): ``python examples/qa/make.py``.

A passage is three entries on people, each a gloss with the years of birth and death; the questions ask for a year or
for what a person did, and the answer stands in the passage.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import NamedTuple

PASSAGES = 80
PERSON = 18
"""The number of the lexicographer file noun.person."""
LINE = re.compile(r"^(?P<said>[A-Z0-9][^();\"]{25,110}?) \((?P<born>1[0-9]{3})-(?P<died>1[0-9]{3}|20[0-9]{2})\)")


class Person(NamedTuple):
    """One entry: the fullest name, what is said, the years."""

    name: str
    said: str
    born: str
    died: str


def people(folder: Path) -> list[Person]:
    """All people with a plain gloss and both years, by name."""
    found = {}
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        head, bar, gloss = line.partition(" | ")
        fields = head.split()
        if not bar or line.startswith("  ") or int(fields[1]) != PERSON:
            continue
        match = LINE.match(gloss.strip())
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
        name = max(words, key=len)
        if match and " " in name:
            found[name] = Person(name, match["said"].strip(), match["born"], match["died"])
    return [found[name] for name in sorted(found)]


def questions(person: Person) -> list[tuple[str, str]]:
    """The questions on one person with their answers, spans of the passage."""
    asked = [(f"In what year was {person.name} born?", person.born), (f"When did {person.name} die?", person.died)]
    who = re.match(r"(.+?) (?:who|whose|noted|known|remembered)\b (.+)", person.said)
    if who:
        asked.append((f"Who was {person.name}?", who[1]))
    return asked


def rows(folder: Path) -> list[dict[str, object]]:
    """Three questions a passage, each on another person where that is possible."""
    rng = random.Random(0)
    chosen = rng.sample(people(folder), 3 * PASSAGES)
    made = []
    for number in range(PASSAGES):
        group = chosen[3 * number : 3 * number + 3]
        context = " ".join(f"{person.name}: {person.said} ({person.born}-{person.died})." for person in group)
        for index, person in enumerate(group):
            question, answer = rng.choice(questions(person))
            made.append(
                {
                    "id": f"{number}-{index}",
                    "passage": f"p{number}",
                    "context": context,
                    "question": question,
                    "answers": [answer],
                }
            )
    return made


if __name__ == "__main__":
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(source))
    Path(__file__).with_name("rows.jsonl").write_text(text, encoding="utf-8")
