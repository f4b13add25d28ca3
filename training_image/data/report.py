"""What ``ftlaunch check`` says: findings, counts and rendered samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from training_image.data.examples import Example

Level = Literal["error", "warning", "note"]
RowRef = dict[str, Any]
"""``{"split", "row"}`` and what is to say of the row; the row counts from 1 in the split's file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. An error refuses the job."""

    level: Level
    code: str
    message: str
    rows: list[RowRef] = field(default_factory=list)
    hint: str = ""


@dataclass(slots=True)
class Report:
    """The outcome of a check."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By split: rows, used, dropped, each kind of faulty row, labels, tokens (percentiles of a row's length)."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Up to three training rows as the model sees them: split, row, id, cut, segments of text with ``supervised``."""

    @property
    def ok(self) -> bool:
        """Whether the job may run."""
        return all(finding.level != "error" for finding in self.findings)

    def add(self, level: Level, code: str, message: str, rows: Sequence[RowRef] = (), hint: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(level, code, message, list(rows), hint))

    def as_json(self) -> dict[str, Any]:
        """The document of ``ftlaunch check --json``, the gravest findings first."""
        order = ("error", "warning", "note")
        findings = sorted(self.findings, key=lambda finding: order.index(finding.level))
        return {
            "ok": self.ok,
            "findings": [asdict(finding) for finding in findings],
            "counts": self.counts,
            "samples": self.samples,
        }


def at(split: str, example: Example, **more: Any) -> RowRef:
    """Where a row stands, and what is to say of it."""
    return {"split": split, "row": example.row, "id": example.id, **more}
