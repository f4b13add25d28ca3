"""Who may do what: roles as Azure writes them, their actions with wildcards."""

import contextlib
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

BUILT_IN = {
    "Key Vault Secrets User": ("Microsoft.KeyVault/vaults/secrets/getSecret/action",),
    "AcrPull": ("Microsoft.ContainerRegistry/registries/pull/read",),
}
"""Azure's own roles, as far as a job needs them."""


class Rights:
    def __init__(self, denied: list[tuple[str, str]]) -> None:
        self._actions: dict[str, set[str]] = {}
        self.denied = denied
        """(principal, action) of what was refused is added there."""
        self.forbidden: set[str] = set()
        """Actions that nobody may do for the moment, whatever the role says."""
        self.used: set[tuple[str, str]] = set()

    def assign_file(self, principal: str, role: Path) -> None:
        """Assign a role that stands in a file, as ``az role definition create`` takes it."""
        told = json.loads(role.read_text())
        self._actions.setdefault(principal, set()).update(told["Actions"], told["DataActions"])

    def assign(self, principal: str, role: str) -> None:
        self._actions.setdefault(principal, set()).update(BUILT_IN[role])

    def actions(self, principal: str) -> set[str]:
        return self._actions.get(principal, set())

    @contextlib.contextmanager
    def without(self, action: str) -> Iterator[list[tuple[str, str]]]:
        """While this lasts, nobody may do this; gives what was refused, which is no fault of a test's then."""
        refused: list[tuple[str, str]] = []
        self.forbidden = {action}
        try:
            yield refused
        finally:
            self.forbidden = set()
            refused.extend(self.denied)
            self.denied.clear()

    def allowed(self, principal: str, action: str) -> bool:
        self.used.add((principal, action))
        roles = self._actions.get(principal, ()) if action not in self.forbidden else ()
        if any(fnmatchcase(action.lower(), each.lower()) for each in roles):
            return True
        self.denied.append((principal, action))
        return False
