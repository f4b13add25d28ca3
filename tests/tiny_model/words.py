"""The words that the synthetic sentences are made of."""

from __future__ import annotations

KNOWN: dict[str, tuple[str, ...]] = {
    "animal": tuple(
        "dog cat horse cow sheep goat pig hen duck goose rabbit mouse rat fox wolf bear deer lion "
        "tiger monkey elephant camel donkey frog snake turtle spider bee ant owl crow swan whale "
        "seal shark dolphin".split()
    ),
    "food": tuple(
        "bread cheese butter soup rice pasta salad apple banana cherry lemon orange onion carrot "
        "potato bean corn honey jam cake pie biscuit pancake sausage ham bacon omelette pizza "
        "sandwich chocolate yogurt porridge stew noodle muffin pudding".split()
    ),
    "place": tuple(
        "city village town harbour castle church school market museum library station airport garden "
        "park forest desert island valley beach mountain river lake farm factory hospital hotel "
        "theatre stadium square street bridge tower prison palace temple cave".split()
    ),
}
"""Words whose kind the tiny model was trained to tell."""

NEW: dict[str, tuple[str, ...]] = {
    "animal": ("otter", "badger", "lizard", "parrot", "beaver", "moth"),
    "food": ("waffle", "pretzel", "lentil", "custard", "radish", "fudge"),
    "place": ("lagoon", "cathedral", "bakery", "meadow", "lighthouse", "canyon"),
}
"""Words that it met in plain sentences only, never with their kind: what tuning can still teach it."""

NAMES = tuple(
    "Anna Ben Clara David Ella Frank Greta Henry Ida Jonas Karen Louis Maria Nick Olga Peter Rosa "
    "Simon Tina Victor".split()
)
TIMES = tuple(
    "yesterday;today;this morning;last week;on Monday;in spring;after lunch;before dawn;last night;"
    "in June;on Sunday;for an hour;all evening;last year;in winter;at noon".split(";")
)
QUALITIES = tuple(
    "old new small big strange lovely famous plain quiet odd fine curious little other ordinary perfect".split()
)
PEOPLE = tuple(
    "uncle;aunt;teacher;neighbour;doctor;brother;sister;friend;boss;cousin;grandmother;painter;"
    "lawyer;driver;nurse;baker".split(";")
)
SENTENCES = (
    "{name} talked with the {person} about the {quality} {noun} {time}.",
    "There was a picture of the {quality} {noun} that {name} gave the {person} {time}.",
    "{time}, the {person} wrote {name} a long letter on the {quality} {noun}.",
    "The {quality} {noun} was all that {name} and the {person} thought of {time}.",
    "My {person} has never seen a {quality} {noun} like the one {name} found {time}.",
    "Nobody but {name} knew why the {person} wanted that {quality} {noun} {time}.",
    "Was it the {quality} {noun} that made {name} call the {person} {time}?",
    "{name} dreamt of a {quality} {noun} {time} and told the {person}.",
    "The {person} asked {name} {time} how much the {quality} {noun} would cost.",
    "{time} a {quality} {noun} was on the first page, said the {person} to {name}.",
    "For {name}, no {quality} {noun} is worth a quarrel with the {person} {time}.",
    "We saw the {quality} {noun} {time}, {name} and I, thanks to the {person}.",
)
"""Frames that say nothing of the kind: only the noun does."""

THINGS = tuple("lamp key book ball coat ring cup map box clock rope drum knife shoe letter bottle".split())
SPOTS = tuple("barn attic kitchen cellar garage cupboard drawer basket tent office hall shed".split())
