"""What the requests to Vertex AI and to Colab Enterprise have in common: pure, without Google's libraries."""

from __future__ import annotations

from pydantic import Field

from backends.interface import BackendOptions

JOB_LABEL = "ftlaunch_job"
DAY = 86400
SMALLEST_DISK_GB = 100
"""Vertex AI's least boot disk."""


class GoogleOptions(BackendOptions):
    """The options of both."""

    region: str = Field(
        "us-central1", pattern=r"^[a-z]+-[a-z]+\d+$", description="Region of the job and of what it needs."
    )
    project: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$", description="Project's id; default: that of the credentials."
    )
    bucket: str | None = Field(
        None, description="Bucket for data and results; default: PROJECT-ftlaunch-REGION, made if it is missing."
    )
    prefix: str = Field("ftlaunch", pattern=r"^[\w.-]+(/[\w.-]+)*$", description="Prefix of everything in the bucket.")
    service_account: str | None = Field(
        None,
        pattern=r"^[^@]+@[^@]+$",
        description="Service account that the job runs as; Vertex AI needs one with secrets, Colab Enterprise always.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of the job, for the bill.")


def label(job_name: str) -> str:
    """A job's name as a label's value: at most 63 lowercase letters, digits and hyphens."""
    return job_name.lower()


def bucket_of(project: str, region: str) -> str:
    """The bucket that is taken where none is named."""
    return f"{project}-ftlaunch-{region}"


def place_of(bucket: str, prefix: str, job_name: str) -> str:
    """The ``gs://`` folder of a job."""
    return f"gs://{bucket}/{prefix}/jobs/{job_name}"
