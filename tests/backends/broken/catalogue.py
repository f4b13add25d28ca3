"""The list of broken backends: each breaks one promise, which it names."""

from dataclasses import dataclass

from tests.backends.broken.reference import Reference, ReferenceHarness


@dataclass(frozen=True)
class Broken:
    promise: str
    harness: type[ReferenceHarness]

    @property
    def name(self) -> str:
        return f"{self.promise}-{self.harness.backend.__name__}"


BROKEN: list[Broken] = []


def breaks(promise: str, harness: type[ReferenceHarness] = ReferenceHarness):
    """Put a broken backend on the list."""

    def register(kind: type[Reference]) -> type[Reference]:
        BROKEN.append(Broken(promise, type(f"{kind.__name__}Harness", (harness,), {"backend": kind})))
        return kind

    return register
