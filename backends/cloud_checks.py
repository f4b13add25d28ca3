"""What the preflights of the clouds have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backends.interface import BackendError, Finding, Plan

Check = Callable[[], Iterator[Finding]]


def looked(*checks: tuple[str, Check]) -> list[Finding]:
    """What the checks find, each with its code; one that may not look is a warning."""
    found: list[Finding] = []
    for code, check in checks:
        try:
            found += check()
        except BackendError as error:
            # Whoever may not look may still be allowed to start the job.
            message = f"could not look at the {code}: {error.message}"
            found.append(Finding(level="warning", code=code, message=message, hint=error.hint))
    return found


def wrong(code: str, message: str, hint: str) -> Finding:
    """What the job would fail of."""
    return Finding(level="error", code=code, message=message, hint=hint)


def missing_image(plan: Plan, uri: str, own: bool) -> Finding:
    """What to say where the registry has no image of that name; ``own``: it is the job's own image."""
    if not own:
        return wrong("image", f"there is no image {uri}", f"push it, or leave backends.{plan.backend}.image out")
    message = f"the image {plan.image} is not in the registry yet; it is built and pushed with the job"
    return Finding(level="note", code="image", message=message)
