"""Answers in the form of Google's REST services."""

import json

from tests.clouds.gateway import Response


class Refused(Exception):
    """An error answer; ``status`` is the HTTP status, ``code`` the name of the google.rpc.Code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def answer(self) -> Response:
        error = {"code": self.status, "message": self.message, "status": self.code}
        return Response(self.status, [("Content-Type", "application/json")], json.dumps({"error": error}).encode())


def json_answer(content: dict | str) -> Response:
    text = content if isinstance(content, str) else json.dumps(content)
    return Response(200, [("Content-Type", "application/json; charset=UTF-8")], text.encode())


def not_found(what: str) -> Refused:
    return Refused(404, "NOT_FOUND", f"{what} was not found")
