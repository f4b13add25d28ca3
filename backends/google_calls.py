"""Calls to Google Cloud: credentials, clients, what is asked again, and errors as `BackendError`.

The clients are Google's own: the generated ones of Vertex AI and Secret Manager by REST, and google-cloud-storage. What
is asked of other services is a call or two each, made by REST with google-auth's session.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from backends.cloud_request import filled
from backends.interface import BackendError, Json, Plan, Reason, Unresolved

TRIES = 8
"""How often a call is made that the service puts off, or whose connection breaks off."""
UNREACHED_TRIES = 6
"""How often `ask` does where nobody takes the connection."""
SECONDS = 60.0
"""Longest wait for one answer."""
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LOG_IN = "log in to Google Cloud again (gcloud auth application-default login), or name a service account's key file"
ROLES = "let the project's administrator grant it: docs/vertex.md lists the roles that ftlaunch needs"
PUT_OFF = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same call is made again."""
TOO_FAST = 429
LIMITS = ("quota metrics exceed quota limits", "custom_model_training")
"""What Vertex AI says where a project's own limit of machines is reached, which waiting does not change."""


class GoogleError(BackendError):
    """Google refused a call; ``code`` is the HTTP status."""

    def __init__(self, code: int, message: str, hint: str, reason: Reason) -> None:
        super().__init__(message, hint, reason)
        self.code = code


class _Again(Exception):
    """The call may be made again; ``error`` is what is raised at last."""

    def __init__(self, error: BackendError, undone: bool = False, unreached: bool = False) -> None:
        """``undone``: the service said that it did nothing, as it does of calls that come too fast; ``unreached``:
        nobody took the connection."""
        super().__init__(error.message)
        self.error, self.undone, self.unreached = error, undone, unreached


class Account:
    """What the user's Application Default Credentials lead to, in one project and region."""

    def __init__(self, project: str | None, region: str) -> None:
        """Nothing is imported or asked before the first call. ``project`` None: that of the credentials."""
        self._project = project
        self.region = region

    @functools.cached_property
    def _default(self) -> tuple[Any, str | None]:
        import google.auth

        with _translated():
            credentials, project = google.auth.default(scopes=[SCOPE])
        return credentials, project

    @property
    def default_project(self) -> str | None:
        """The project that the credentials or the environment name."""
        return self._default[1]

    @property
    def project(self) -> str:
        """The project. Raises BackendError where none is known."""
        project = self._project or self.default_project
        if project is None:
            raise BackendError("no Google Cloud project is known", hint="set backends.vertex.project")
        return project

    @functools.cached_property
    def session(self) -> Any:
        """A requests session that sends the credentials along."""
        from google.auth.transport.requests import AuthorizedSession

        return AuthorizedSession(self._default[0])

    def _client(self, kind: Any, host: str) -> Any:
        with _translated():
            options = {"api_endpoint": f"{host}.googleapis.com"}
            return kind(credentials=self._default[0], transport="rest", client_options=options)

    @functools.cached_property
    def jobs(self) -> Any:
        """Vertex AI's JobServiceClient of the region."""
        from google.cloud.aiplatform_v1.services.job_service import JobServiceClient

        return self._client(JobServiceClient, f"{self.region}-aiplatform")

    @functools.cached_property
    def notebooks(self) -> Any:
        """Vertex AI's NotebookServiceClient of the region."""
        from google.cloud.aiplatform_v1.services.notebook_service import NotebookServiceClient

        return self._client(NotebookServiceClient, f"{self.region}-aiplatform")

    @functools.cached_property
    def secrets(self) -> Any:
        """Secret Manager's client."""
        from google.cloud.secretmanager import SecretManagerServiceClient

        return self._client(SecretManagerServiceClient, "secretmanager")

    def bucket(self, name: str) -> Any:
        """google-cloud-storage's bucket; asks nothing."""
        from google.cloud.storage import Client

        with _translated():
            client = Client(project=self._project or self.default_project, credentials=self._default[0])
            return client.bucket(name)

    def token(self) -> str:
        """An access token, for a registry's login."""
        from google.auth.transport.requests import Request

        credentials = self._default[0]

        def fresh() -> str:
            if not credentials.valid:
                credentials.refresh(Request())
            return str(credentials.token)

        return str(ask(fresh))

    def rest(self, method: str, url: str, body: Json | None = None, **query: Any) -> Json:
        """Call a REST address; gives the JSON of the answer. ``query`` becomes the query string."""

        def ask() -> Json:
            from google.api_core.exceptions import from_http_response

            answer = self.session.request(method, url, json=body, params=query or None, timeout=SECONDS)
            if answer.status_code >= 400:
                raise from_http_response(answer)
            content: Json = answer.json() if answer.content else {}
            return content

        told: Json = call(ask)
        return told


def with_project(plan: Plan, unresolved: Callable[[Json], tuple[Unresolved, ...]]) -> Plan:
    """The plan with the project that the credentials name, where it has none; ``unresolved``: what a request lacks."""
    if not any(each.path.endswith(".project") for each in plan.unresolved):
        return plan
    project = Account(None, plan.request["region"]).default_project
    if project is None:
        return plan
    request = filled(plan.backend, plan.request, {"project": project})
    return plan.model_copy(update={"request": request, "unresolved": unresolved(request)})


def call(method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Make one call, again where the service puts it off. Raises BackendError; `GoogleError` for a refusal."""
    return _repeated(lambda: method(*arguments, **keywords), lambda again: True)


def ask(method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """As `call`, for a question that a person waits for: where Google is not reached, that is told after some 6 s."""
    return _repeated(lambda: method(*arguments, **keywords), lambda again: True, UNREACHED_TRIES)


def call_once(method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """As `call`, for what must not be done twice: again only where the service did nothing for sure. After any other
    error it may be done, or not."""
    return _repeated(lambda: method(*arguments, **keywords), lambda again: again.undone)


def _repeated(make: Callable[[], Any], allowed: Callable[[_Again], bool], unreached_tries: int = TRIES) -> Any:
    for attempt in range(TRIES):
        try:
            with _translated():
                return make()
        except _Again as again:
            tries = unreached_tries if again.unreached else TRIES
            if attempt >= tries - 1 or not allowed(again):
                raise again.error from again
            time.sleep(min(0.2 * 2**attempt, 10.0))
    raise AssertionError


def pages(account: Account, url: str, key: str, body: Json | None = None, **query: Any) -> Iterator[Json]:
    """All items of a REST answer that comes in pages: by POST where there is a body, else by GET."""
    more: Json = {}
    while True:
        answer = account.rest("GET", url, **query, **more) if body is None else account.rest("POST", url, body | more)
        yield from answer.get(key, [])
        if not answer.get("nextPageToken"):
            return
        more = {"pageToken": answer["nextPageToken"]}


def path(name: str) -> str:
    """A name as one part of an address."""
    return quote(name, safe="")


@contextmanager
def _translated() -> Iterator[None]:
    """Give Google's exceptions as ours."""
    import requests
    from google.api_core import exceptions as refusals
    from google.auth import exceptions as logins

    try:
        yield
    except BackendError:
        raise
    except logins.DefaultCredentialsError as error:
        raise BackendError(f"no Google credentials: {error}", hint=LOG_IN, reason=Reason.CREDENTIALS) from error
    except logins.RefreshError as error:
        refused = BackendError(
            f"the Google credentials have expired or were revoked: {error.args[0]}", LOG_IN, Reason.CREDENTIALS
        )
        raise (_Again(refused) if error.retryable else refused) from error
    except logins.GoogleAuthError as error:
        raise _Again(_unreached(error), unreached=isinstance(error, logins.TransportError)) from error
    except refusals.RetryError as error:
        raise _unreached(error.cause or error) from error
    except refusals.GoogleAPICallError as error:
        raise _refusal(error) from error
    except requests.RequestException as error:  # ends in the middle of an answer too
        raise _Again(_unreached(error), unreached=isinstance(error, requests.ConnectionError)) from error


def _unreached(error: BaseException) -> BackendError:
    return BackendError(f"Google Cloud cannot be reached: {error}", hint="check the connection and HTTPS_PROXY")


def _refusal(error: Any) -> BaseException:
    code = int(error.code or 500)
    text = str(error.message)
    if code == 401:
        message = f"Google Cloud does not take the credentials: {text}"
        return GoogleError(code, message, LOG_IN, Reason.CREDENTIALS)
    if code == 403:
        return GoogleError(code, f"Google Cloud refused: {text}", ROLES, Reason.CREDENTIALS)
    if code == TOO_FAST and any(words in text for words in LIMITS) and "per minute" not in text:
        hint = "request a higher limit on the console's Quotas page, or take another machine or region"
        return GoogleError(code, f"Google Cloud refused: {text}", hint, Reason.QUOTA)
    refused = GoogleError(
        code, f"Google Cloud refused: {text}", "the message says what the service does not accept", Reason.UNKNOWN
    )
    return _Again(refused, undone=code == TOO_FAST) if code in PUT_OFF else refused
