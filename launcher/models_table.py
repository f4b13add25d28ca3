"""The dated table of base models that are worth a screening, by domain. Read from papers and model cards, by people:
a licence or a number of weights may have changed since; the model's own card is what counts."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from training_image.errors import InputError


@dataclass(frozen=True)
class KnownModel:
    """One base model."""

    id: str
    """On the hub."""
    kind: str
    """decoder or encoder."""
    parameters: int
    licence: str
    """As the card names it; ``not stated`` where it names none."""
    licence_read: str
    """Where: ``card``, a kept copy of its own page; ``others``, what other pages say of it; ``no``, nowhere yet."""
    domains: tuple[str, ...]
    trained_on: str
    source: str
    as_of: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def known_models(domain: str | None = None) -> list[KnownModel]:
    """All models, or those of a domain. Raises InputError for a domain that none is of."""
    text = files("launcher").joinpath("models.csv").read_text(encoding="utf-8")
    every = [
        KnownModel(
            id=row["id"],
            kind=row["kind"],
            parameters=int(row["parameters"]),
            licence=row["licence"],
            licence_read=row["licence_read"],
            domains=tuple(row["domains"].split()),
            trained_on=row["trained_on"],
            source=row["source"],
            as_of=row["as_of"],
        )
        for row in csv.DictReader(text.splitlines())
    ]
    if domain is None:
        return every
    found = [model for model in every if domain in model.domains]
    if not found:
        domains = sorted({name for model in every for name in model.domains})
        raise InputError(f"there is no model of the domain {domain!r}", hint=f"domains: {', '.join(domains)}")
    return found
