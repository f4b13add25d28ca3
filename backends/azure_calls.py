"""Calls to Azure: one credential, the SDK's clients, and errors as `BackendError`.

The SDKs ask again after throttling, timeouts and broken connections (azure-core's retry policy, ten times).
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from backends.azureml_request import scope
from backends.interface import BackendError, Json, Reason

ARM = "https://management.azure.com"
SCOPE = f"{ARM}/.default"
LOG_IN = (
    "log in to Azure again (az login), or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of a service"
    " principal"
)
RIGHTS = "let the subscription's owner allow it: docs/azureml-role.json lists all that ftlaunch needs"
CONNECTION = "check the connection and HTTPS_PROXY"
_UNREACHED = re.compile(r"\S[^\n]*(Failed to (establish a new connection|resolve)|Unable to connect to proxy)[^\n]*")
"""In urllib3's words, which a chain of credentials has in the midst of its text: a lost connection is no lost login."""
QUOTA_CODES = frozenset({"ClusterCoreQuotaReached", "SubscriptionCoreQuotaReached", "QuotaExceeded"})
CAPACITY_CODES = frozenset(
    {"SkuNotAvailable", "AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest"}
)


class AzureError(BackendError):
    """Azure refused a call; ``code`` is the service's own, ``status`` the one of HTTP."""

    def __init__(self, status: int, code: str, message: str, hint: str, reason: Reason) -> None:
        super().__init__(message, hint, reason)
        self.status, self.code = status, code


class Workspace(NamedTuple):
    """Where an Azure ML workspace is."""

    subscription: str
    resource_group: str
    name: str

    @property
    def id(self) -> str:
        """Its resource id."""
        return scope(self.subscription, self.resource_group, self.name)


class Account:
    """What the user's credentials lead to, in one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is imported or asked before it is needed."""
        self.workspace = workspace

    @functools.cached_property
    def credential(self) -> Any:
        """Azure's own chain of credentials: environment, managed identity, ``az login`` and so on."""
        from azure.identity import DefaultAzureCredential

        logging.getLogger("azure").setLevel(logging.CRITICAL)  # its warnings come back as errors, or are no news
        return DefaultAzureCredential()

    @functools.cached_property
    def ml(self) -> Any:
        """azure-ai-ml's client of the workspace; its telemetry is off."""
        from azure.ai.ml import MLClient

        logging.getLogger("azure.ai.ml").setLevel(logging.CRITICAL)  # the import set it anew; half is experimental
        with translated():
            return MLClient(self.credential, *self.workspace, enable_telemetry=False, show_progress=False)

    def get(self, url: str, scope: str = SCOPE, **parameters: str) -> Json:
        """GET a JSON document. Raises BackendError."""
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
        from azure.core.rest import HttpRequest

        policies = [RetryPolicy(), BearerTokenCredentialPolicy(self.credential, scope)]
        client: Any = PipelineClient(url, policies=policies)
        with translated(), client:
            answer = client.send_request(HttpRequest("GET", url, params=parameters))
            answer.raise_for_status()
            content: Json = answer.json()
            return content

    def pages(self, url: str, **parameters: str) -> Iterator[Json]:
        """All items of a paged answer of Azure's resource manager."""
        page = self.get(url, **parameters)
        yield from page["value"]
        while page.get("nextLink"):
            page = self.get(page["nextLink"])
            yield from page["value"]

    def blobs(self, account: str) -> Any:
        """azure-storage-blob's client of a storage account."""
        from azure.storage.blob import BlobServiceClient

        address = f"https://{account}.blob.core.windows.net"
        return BlobServiceClient(address, credential=self.credential, retry_policy=patience())

    def secrets(self, vault: str) -> Any:
        """azure-keyvault-secrets' client of a key vault, by its address."""
        from azure.keyvault.secrets import SecretClient

        return SecretClient(vault, self.credential)

    def check_credential(self) -> None:
        """Raises BackendError where there is no credential that Azure takes."""
        with translated():
            self.credential.get_token(SCOPE)


def patience() -> Any:
    """How azure-storage-blob asks again: after 2, 4, … 32 s (15 s by default), about a minute in all."""
    from azure.storage.blob import ExponentialRetry

    return ExponentialRetry(initial_backoff=0, increment_base=2, retry_total=5, random_jitter_range=1)


@contextmanager
def translated() -> Iterator[None]:
    """Give the SDKs' exceptions as ours."""
    from azure.core import exceptions as native

    try:
        yield
    except BackendError:
        raise
    except native.HttpResponseError as error:
        raise _refused(error) from error
    except (native.ServiceRequestError, native.ServiceResponseError) as error:
        raise BackendError(f"Azure cannot be reached: {error}", hint=CONNECTION) from error
    except native.AzureError as error:
        raise BackendError(f"Azure: {_first_line(error)}", hint="the message says what is wrong") from error
    except Exception as error:
        if not type(error).__module__.startswith("azure.ai.ml."):
            raise
        # azure-ai-ml's own checks, made before anything is sent
        hint = "correct the job's options of azureml"
        raise BackendError(f"azure-ai-ml does not take the job: {_first_line(error)}", hint=hint) from error


def _refused(error: Any) -> BackendError:
    from azure.core.exceptions import ClientAuthenticationError

    status = int(error.status_code or 0)
    code = str(error.error.code if error.error is not None else vars(error).get("error_code") or "")
    text = _first_line(error)
    if isinstance(error, ClientAuthenticationError) and (unreached := _UNREACHED.search(str(error))):
        return BackendError(f"Azure cannot be reached: {unreached[0]}", hint=CONNECTION)
    if isinstance(error, ClientAuthenticationError) or status == 401:
        told = f"Azure does not take the credentials: {_cause(error) or text}"
        return AzureError(status, code, told, LOG_IN, Reason.CREDENTIALS)
    if status == 403:
        return AzureError(status, code, f"Azure does not allow it: {text}", RIGHTS, Reason.CREDENTIALS)
    if code in QUOTA_CODES:
        hint = "request more cores for the machine's family in the studio (Quota), or take another resources.machine"
        return AzureError(status, code, f"Azure refused: {text}", hint, Reason.QUOTA)
    if code in CAPACITY_CODES:
        hint = "try again later, or take another resources.machine or region"
        return AzureError(status, code, f"Azure refused: {text}", hint, Reason.NO_CAPACITY)
    hint = "the message says what the service does not accept"
    return AzureError(status, code, f"Azure refused: {text}", hint, Reason.UNKNOWN)


def _cause(error: Exception) -> str | None:
    """What Entra says, which stands deep in the text of a chain of credentials."""
    found = re.search(r"AADSTS\d+:[^\n]*", str(error))
    return found[0].strip() if found else None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
