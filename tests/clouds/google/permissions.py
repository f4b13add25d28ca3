"""The IAM permissions that a call needs, by the services' references."""

import re
from urllib.parse import urlsplit

from tests.clouds.gateway import Request

TABLE = (
    ("storage", "GET", r"/storage/v1/b/[^/]+", "storage.buckets.get"),
    ("storage", "POST", r"/storage/v1/b", "storage.buckets.create"),
    ("storage", "GET", r"/storage/v1/b/[^/]+/o", "storage.objects.list"),
    ("storage", "GET", r"(/download)?/storage/v1/b/[^/]+/o/[^/]+", "storage.objects.get"),
    ("storage", "DELETE", r"/storage/v1/b/[^/]+/o/[^/]+", "storage.objects.delete"),
    ("storage", "POST", r"/storage/v1/b/[^/]+/o/[^/]+/rewriteTo/.+", "storage.objects.get storage.objects.create"),
    ("storage", "POST|PUT", r"/upload/storage/v1/b/[^/]+/o", "storage.objects.create"),
    ("aiplatform", "POST", r"/v1/.+/customJobs", "aiplatform.customJobs.create"),
    ("aiplatform", "GET", r"/v1/.+/customJobs", "aiplatform.customJobs.list"),
    ("aiplatform", "GET", r"/v1/.+/customJobs/[^/]+", "aiplatform.customJobs.get"),
    ("aiplatform", "POST", r"/v1/.+/customJobs/[^/]+:cancel", "aiplatform.customJobs.cancel"),
    ("aiplatform", "POST", r"/v1/.+/notebookExecutionJobs", "aiplatform.notebookExecutionJobs.create"),
    ("aiplatform", "GET", r"/v1/.+/notebookExecutionJobs", "aiplatform.notebookExecutionJobs.list"),
    ("aiplatform", "GET", r"/v1/.+/notebookExecutionJobs/[^/]+", "aiplatform.notebookExecutionJobs.get"),
    ("aiplatform", "GET", r"/v1/.+/notebookRuntimeTemplates/[^/]+", "aiplatform.notebookRuntimeTemplates.get"),
    ("aiplatform", "GET", r"/v1/.+/notebookExecutionJobs/[^/]+/operations", "aiplatform.operations.list"),
    ("aiplatform", "POST", r"/v1/.+/operations/[^/]+:cancel", ""),  # not documented
    ("logging", "POST", r"/v2/entries:list", "logging.logEntries.list"),
    ("serviceusage", "GET", r"/v1/.+/services:batchGet", "serviceusage.services.get"),
    ("serviceusage", "GET", r"/v1beta1/.+/consumerQuotaMetrics/.+", "serviceusage.quotas.get"),
    ("secretmanager", "POST", r"/v1/projects/[^/]+/secrets", "secretmanager.secrets.create"),
    ("secretmanager", "POST", r"/v1/.+:setIamPolicy", "secretmanager.secrets.setIamPolicy"),
    ("secretmanager", "POST", r"/v1/.+:addVersion", "secretmanager.versions.add"),
    ("secretmanager", "GET", r"/v1/.+/versions/[^/]+:access", ""),  # by the secret's own policy
    ("secretmanager", "DELETE", r"/v1/projects/[^/]+/secrets/[^/]+", "secretmanager.secrets.delete"),
    ("iam", "POST", r"/v1/projects/-/serviceAccounts/[^/]+:testIamPermissions", ""),
    ("artifactregistry", "GET", r"/v1/.+/repositories/[^/]+", "artifactregistry.repositories.get"),
    ("artifactregistry", "POST", r"/v1/.+/repositories", "artifactregistry.repositories.create"),
    ("artifactregistry", "GET", r"/v1/.+/operations/[^/]+", "artifactregistry.repositories.get"),
)
"""Service, methods, path, permissions."""

REGISTRY = {
    "check_layer": "artifactregistry.repositories.downloadArtifacts",
    "get_layer": "artifactregistry.repositories.downloadArtifacts",
    "get_manifest": "artifactregistry.repositories.downloadArtifacts",
    "start_upload": "artifactregistry.repositories.uploadArtifacts",
    "upload_part": "artifactregistry.repositories.uploadArtifacts",
    "finish_upload": "artifactregistry.repositories.uploadArtifacts",
    "put_manifest": "artifactregistry.repositories.uploadArtifacts",
}
"""By operation at the registry's host."""


def needed(request: Request) -> list[str]:
    """What the caller must be allowed; a call that the table has not is refused for the lack of one that nobody has."""
    service = request.host.partition(".")[0].rpartition("-")[2]
    path = urlsplit(request.path).path
    for name, methods, pattern, permissions in TABLE:
        if name == service and re.fullmatch(methods, request.method) and re.fullmatch(pattern, path):
            return permissions.split()
    return [f"unknown call {request.method} {request.host}{path}"]
