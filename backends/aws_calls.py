"""Calls to AWS with boto3: clients, what is asked again, and errors as `BackendError`.

botocore's standard retry mode asks again after throttling, timeouts and refused connections. It does not see an answer
that was cut off in the middle of its body (botocore 1.44: half a JSON document is read as an empty one); `call` does.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from backends.interface import BackendError, JobNotFound, Json, Reason

TRIES = 6
"""How often a call is made whose answer is cut off."""
ASKED_FIRST = frozenset({"sts", "sagemaker"})
"""Services of which one is asked first by every command: where there is no network, these tell it soon."""
UNREACHED_TRIES = 3
"""How often these are called where nobody takes the connection: about 3 s where it is refused, 12 s at most."""
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId", "InvalidToken"})
UNKNOWN_KEY = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "AuthFailure",
        "InvalidSignatureException",
    }
)
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
LOG_IN = "log in to AWS again (aws sso login, aws login, or new AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
POLICY = "let the account's administrator allow it: docs/sagemaker-policy.json lists all that ftlaunch needs"


class CutOff(Exception):
    """An answer ended before its announced length."""


class Account:
    """The account that the user's credentials lead to, in one region."""

    def __init__(self, region: str, profile: str | None = None) -> None:
        """Nothing is imported or asked before the first `client`."""
        self.region = region
        self.profile = profile
        self._clients: dict[str, Any] = {}

    @functools.cached_property
    def session(self) -> Any:
        """boto3's session."""
        import boto3

        with _translated():
            return boto3.Session(profile_name=self.profile, region_name=self.region)

    def client(self, service: str) -> Any:
        """boto3's client of a service, made once."""
        if service not in self._clients:
            self._clients[service] = self._made(service)
        return self._clients[service]

    def _made(self, service: str) -> Any:
        from botocore.config import Config

        soon = service in ASKED_FIRST
        retries = {"mode": "standard", "max_attempts": 10}
        timeouts = {"connect_timeout": 3 if soon else 15, "read_timeout": 60}
        with _translated():
            client = self.session.client(service, config=Config(retries=retries, max_pool_connections=16, **timeouts))
        client.meta.events.register("before-parse", _refuse_cut_off)
        if soon:
            client.meta.events.register("needs-retry", _give_up_unreached)
        client.meta.events.register("needs-retry", _give_up_interrupted)
        return client

    def identity(self) -> Json:
        """Who the credentials belong to: ``Account`` and ``Arn``."""
        identity: Json = call(self.client("sts").get_caller_identity)
        return identity


def configured_region() -> str | None:
    """The region that AWS's own tools take: AWS_DEFAULT_REGION, else that of ~/.aws/config."""
    import boto3

    with _translated():
        region: str | None = boto3.Session().region_name
        return region


def call(method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Make one call. Raises BackendError; errors that mean something to the caller are caught by `code`."""
    from botocore.parsers import ResponseParserError

    for attempt in range(TRIES):
        try:
            with _translated():
                return method(*arguments, **keywords)
        except (CutOff, ResponseParserError) as error:
            if attempt == TRIES - 1:
                raise BackendError("AWS's answers keep being cut off", hint="check the connection") from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def pages(method: Callable[..., Any], key: str, token: str = "NextToken", **keywords: Any) -> Iterator[Json]:  # noqa: S107
    """All items of a paged answer; ``token`` is the name of the page's token in request and answer."""
    more: Json = {}
    while True:
        answer = call(method, **keywords, **more)
        yield from answer.get(key, [])
        if not answer.get(token):
            return
        more = {token: answer[token]}


class AwsError(BackendError):
    """AWS refused a call; ``code`` is the service's own."""

    def __init__(self, code: str, message: str, hint: str, reason: Reason) -> None:
        super().__init__(message, hint, reason)
        self.code = code


def _refuse_cut_off(response_dict: Json, operation_model: Any, **_: Any) -> None:
    body, announced = response_dict["body"], response_dict["headers"].get("content-length")
    encoded = "content-encoding" in response_dict["headers"]  # what is counted then is not what was announced
    if operation_model.http["method"] == "HEAD" or encoded or not announced:
        return
    if isinstance(body, bytes) and len(body) < int(announced):
        raise CutOff(f"{len(body)} of {announced} bytes")


def _give_up_unreached(attempts: int, caught_exception: Exception | None, **_: Any) -> None:
    """Raise what botocore would wait up to a minute for, by its backoff for a service that is too busy."""
    from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError

    unreached = isinstance(caught_exception, EndpointConnectionError | ConnectTimeoutError | ProxyConnectionError)
    if caught_exception is not None and unreached and attempts >= UNREACHED_TRIES:
        raise caught_exception


def _give_up_interrupted(caught_exception: Exception | None, **_: Any) -> None:
    """Raise why a transfer was given up, another part's failure or Ctrl-C: it reaches the parts that are still being
    sent as an error of theirs, which botocore takes for the connection's, and tries again for up to a minute."""
    from concurrent.futures import CancelledError

    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    cause = caught_exception.kwargs.get("error") if isinstance(caught_exception, HTTPClientError) else None
    if isinstance(cause, BotoCoreError | ClientError | CancelledError):
        raise cause


@contextmanager
def _translated() -> Iterator[None]:
    """Give botocore's exceptions as ours."""
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions as native
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except (BackendError, CutOff, ResponseParserError):
        raise
    except ClientError as error:
        raise _client_error(error) from error
    except S3UploadFailedError as error:
        cause = error.__context__  # boto3 puts what S3 said into a text of its own
        raise (_client_error(cause) if isinstance(cause, ClientError) else BackendError(str(error))) from error
    except (native.NoCredentialsError, native.PartialCredentialsError, native.CredentialRetrievalError) as error:
        raise BackendError(f"no AWS credentials: {error}", hint=LOG_IN, reason=Reason.CREDENTIALS) from error
    except (native.TokenRetrievalError, native.UnauthorizedSSOTokenError, native.SSOTokenLoadError) as error:
        raise BackendError(f"the AWS login has expired: {error}", hint=LOG_IN, reason=Reason.CREDENTIALS) from error
    except native.ProfileNotFound as error:
        hint = "correct backends.sagemaker.profile or ~/.aws/config"
        raise BackendError(str(error), hint=hint, reason=Reason.CREDENTIALS) from error
    except (native.HTTPClientError, native.ConnectionError) as error:
        hint = "check the connection, HTTPS_PROXY and backends.sagemaker.region"
        raise BackendError(f"AWS cannot be reached: {error}", hint=hint) from error
    except BotoCoreError as error:
        raise BackendError(f"AWS: {error}", hint="correct the job's AWS options") from error


def _client_error(error: Any) -> BackendError:
    code = str(error.response["Error"].get("Code", ""))
    text = str(error.response["Error"].get("Message") or code)
    message = f"AWS refused {error.operation_name}: {text}"
    if code in EXPIRED:
        return AwsError(code, f"the AWS credentials have expired: {text}", LOG_IN, Reason.CREDENTIALS)
    if code in UNKNOWN_KEY:
        return AwsError(code, f"AWS does not know these credentials: {text}", LOG_IN, Reason.CREDENTIALS)
    if code in DENIED:
        return AwsError(code, message, POLICY, Reason.CREDENTIALS)
    if code == "ResourceLimitExceeded":
        hint = "request a higher quota in the Service Quotas console, or take another resources.machine"
        return AwsError(code, message, hint, Reason.QUOTA)
    if code == "ResourceNotFoundException" and "job" in text.lower():
        return JobNotFound(message, hint="ftlaunch jobs lists those that were started")
    return AwsError(code, message, "the message says what the service does not accept", Reason.UNKNOWN)
