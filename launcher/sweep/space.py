"""What a sweep may vary: ``train.rank=8,16,32``, ``train.learning_rate=1e-4..1e-2``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher import yamlfile
from training_image.errors import InputError

if TYPE_CHECKING:
    import optuna

Value = int | float | str | bool
DEFAULT = ("train.learning_rate=1e-4..5e-3", "train.rank=8,16,32", "train.epochs=1,2,3,5", "train.batch_size=4,8,16")
"""Around the defaults of `training_image.spec.Train`: what matters most for LoRA on few rows."""
_RANGE = re.compile(r"(.+)\.\.(.+)")
_HINT = "for example train.rank=8,16,32 or train.learning_rate=1e-4..1e-2"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    key: str
    values: tuple[Value, ...]

    def suggest(self, trial: optuna.Trial) -> Value:
        """The trial's value."""
        chosen: Any = trial.suggest_categorical(self.key, list(self.values))
        value: Value = chosen
        return value

    def ends(self) -> tuple[Value, ...]:
        """Values that must be valid for all to be."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number between two; on a logarithmic scale where the upper end is ten times the lower or more."""

    key: str
    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether it is looked through by factors instead of steps."""
        return self.low > 0 and self.high >= 10 * self.low

    def suggest(self, trial: optuna.Trial) -> Value:
        """The trial's value."""
        if self.whole:
            return int(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log))
        return float(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def ends(self) -> tuple[Value, ...]:
        """Values that must be valid for all to be."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


Dimension = Choice | Range


def parse(texts: Sequence[str]) -> list[Dimension]:
    """Read the dimensions. Raises InputError for one that cannot be read, is no key of ``train``, or stands twice."""
    found = [_dimension(text) for text in texts]
    keys = [each.key for each in found]
    doubled = next((key for key in keys if keys.count(key) > 1), None)
    if doubled:
        raise InputError(f"--search names {doubled} twice", hint=_HINT)
    return found


def _dimension(text: str) -> Dimension:
    key, equals, told = (part.strip() for part in text.partition("="))
    if not equals or not told:
        raise InputError(f"--search {text}: expected KEY=VALUES", hint=_HINT)
    if not key.startswith("train.") or key == "train.seed":
        raise InputError(f"--search {text}: only keys of `train` but the seed can be searched", hint=_HINT)
    between = _RANGE.fullmatch(told)
    if between is None:
        values = tuple(_value(part, text) for part in told.split(","))
        if len(set(values)) < 2:
            raise InputError(f"--search {text}: one value is no search", hint=f"--set {text} fixes it")
        return Choice(key, values)
    low, high = (_value(part, text) for part in between.groups())
    if any(isinstance(end, bool | str) for end in (low, high)) or not float(low) < float(high):
        raise InputError(f"--search {text}: a range goes from a number to a greater one", hint=_HINT)
    return Range(key, float(low), float(high), isinstance(low, int) and isinstance(high, int))


def _value(text: str, whole: str) -> Value:
    value: Any = yamlfile.value(text.strip())
    if not isinstance(value, int | float | str | bool) or value == "":
        raise InputError(f"--search {whole}: {text.strip()!r} is no value", hint=_HINT)
    return value
