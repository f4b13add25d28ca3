"""What a promise is, and which promises a backend makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from backends.conformance.harness import Harness

Where = Literal["anywhere", "remote", "here"]
"""remote: only places reached over a network with credentials; here: only places on this machine."""

Check = Callable[["Harness"], None]


class Violation(AssertionError):
    """A promise was broken; the message says how."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One sentence of the contract and the check that holds a backend to it."""

    name: str
    text: str
    """The contract in words: the check's docstring."""
    check: Check
    """Raises `Violation` (or whatever the backend lets through) when the promise is broken."""
    needs: str | None
    """The capability that makes this promise; None: every backend makes it."""
    where: Where

    def excuse(self, harness: type[Harness]) -> str | None:
        """Why this backend does not make the promise; None if it does."""
        if self.where == "remote" and not harness.remote:
            return "the place is this machine: no connection, no credentials"
        if self.where == "here" and harness.remote:
            return "the place is remote"
        if self.needs is not None and vars(harness.backend.capabilities)[self.needs] is False:
            return f"capabilities.{self.needs} is False"
        return None


PROMISES: list[Promise] = []
"""All promises, in the order in which they are best checked."""


def promise(needs: str | None = None, where: Where = "anywhere") -> Callable[[Check], Check]:
    """Register a check; its name and docstring become the promise's name and text."""

    def register(check: Check) -> Check:
        PROMISES.append(Promise(check.__name__, (check.__doc__ or "").strip(), check, needs, where))
        return check

    return register


def promises_for(harness: type[Harness]) -> list[Promise]:
    """The promises that the backend makes."""
    return [each for each in PROMISES if each.excuse(harness) is None]


def left_out(harness: type[Harness]) -> dict[str, str]:
    """Name of each promise that the backend does not make, and why."""
    excuses = {each.name: each.excuse(harness) for each in PROMISES}
    return {name: excuse for name, excuse in excuses.items() if excuse is not None}


class Parameters(TypedDict):
    """Arguments of ``pytest.mark.parametrize``."""

    argvalues: list[Promise]
    ids: list[str]


def parameters(harness: type[Harness]) -> Parameters:
    """Arguments for ``@pytest.mark.parametrize("promise", **parameters(H))``; each id carries the backend's name."""
    made = promises_for(harness)
    return {"argvalues": made, "ids": [f"{harness.backend.name}-{each.name}" for each in made]}


def expect(condition: bool, message: str) -> None:
    """Raise `Violation` unless the condition holds."""
    if not condition:
        raise Violation(message)
