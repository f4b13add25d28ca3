"""Answers in Azure's form."""

import json
import re

from tests.clouds.gateway import Response


class Refused(Exception):
    """An error answer of a service."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> Response:
        return error(self.status, self.code, self.message)


def answer(content: dict, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, [("Content-Type", "application/json"), *headers], json.dumps(content).encode())


def error(status: int, code: str, message: str) -> Response:
    return answer({"error": {"code": code, "message": message}}, status, (("x-ms-error-code", code),))


def denied(principal: str, action: str) -> Refused:
    return Refused(
        403,
        "AuthorizationFailed",
        f"The client '{principal}' does not have authorization to perform action '{action}' over scope.",
    )


def timespan(seconds: float) -> str:
    """As .NET writes one."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02}:{minutes:02}:{rest:010.7f}"


def match(pattern: str, path: str) -> dict[str, str] | None:
    """The parts of a path that fits a pattern with {names}; letters' case does not count, as for Azure."""
    regex = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
    found = re.fullmatch(regex, path, re.IGNORECASE)
    return None if found is None else found.groupdict()
