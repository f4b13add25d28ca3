"""SageMaker's training jobs: the control plane, strict about what it takes. The job itself is `machine_room.Job`."""

import re
import threading
import time

from tests.clouds.aws.machine_room import Job
from tests.clouds.aws.shapes import problems
from training_image.contracts import SAGEMAKER

IMAGE = re.compile(
    r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([a-z0-9._/-]+?)(?::([\w.-]+))?(?:@(sha256:\w{64}))?"
)


class Refused(Exception):
    """An error answer of the service."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class Training:
    """Takes the calls of the service; each gives the answer's content or raises `Refused`."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self.operations = {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "StopTrainingJob": self.stop,
            "ListTrainingJobs": self.list,
            "Search": self.search,
            "ListTags": self.list_tags,
            "AddTags": self.add_tags,
        }

    def answer(self, operation: str, content: dict, region: str) -> dict:
        if operation not in self.operations:
            raise Refused("UnknownOperationException", f"{operation} is not served here")
        wrong = problems("sagemaker", operation, content)
        if wrong:
            raise Refused("ValidationException", f"{len(wrong)} validation errors detected: {'; '.join(wrong)}")
        return self.operations[operation](content, region)

    def create(self, content: dict, region: str) -> dict:
        self._check(content)
        with self._lock:
            if content["TrainingJobName"] in self.jobs:
                message = "Training job names must be unique within an AWS account and Region"
                raise Refused("ResourceInUse", f"{message}: {content['TrainingJobName']}")
            self._check_quota(content)
            arn = f"arn:aws:sagemaker:{region}:{self.cloud.account}:training-job/{content['TrainingJobName']}"
            job = Job(self.cloud, content, arn)
            self.jobs[content["TrainingJobName"]] = job
        job.start()
        return {"TrainingJobArn": job.arn}

    def describe(self, content: dict, region: str) -> dict:
        return self._job(content["TrainingJobName"], region).description()

    def stop(self, content: dict, region: str) -> dict:
        job = self._job(content["TrainingJobName"], region)
        if job.status not in ("InProgress", "Stopping"):
            message = f"The request was rejected because the training job is in status {job.status}."
            raise Refused("ValidationException", message)
        job.stop("Stopped")
        return {}

    def list(self, content: dict, region: str) -> dict:
        part = content.get("NameContains", "")
        found = sorted((job for job in self._of(region) if part in job.name), key=lambda job: -job.created)
        start = int(content.get("NextToken") or 0)
        size = content.get("MaxResults", 10)
        summaries = [
            {
                "TrainingJobName": job.name,
                "TrainingJobArn": job.arn,
                "CreationTime": job.created,
                "TrainingJobStatus": job.status,
            }
            for job in found[start : start + size]
        ]
        more = {"NextToken": str(start + size)} if start + size < len(found) else {}
        return {"TrainingJobSummaries": summaries, **more}

    def search(self, content: dict, region: str) -> dict:
        """By tags that must be there, which is all that is served here of the service's expressions."""
        if content["Resource"] != "TrainingJob":
            raise Refused("ValidationException", "only training jobs are here")
        wanted = content.get("SearchExpression", {}).get("Filters", [])
        if any(not each["Name"].startswith("Tags.") or each.get("Operator") != "Exists" for each in wanted):
            raise Refused("ValidationException", "only filters Tags.KEY Exists are served here")
        keys = {each["Name"].removeprefix("Tags.") for each in wanted}
        found = sorted((job for job in self._of(region) if keys <= job.tags.keys()), key=lambda job: -job.created)
        start, size = int(content.get("NextToken") or 0), content.get("MaxResults", 10)
        results = [
            {"TrainingJob": job.description() | {"Tags": [{"Key": k, "Value": v} for k, v in job.tags.items()]}}
            for job in found[start : start + size]
        ]
        more = {"NextToken": str(start + size)} if start + size < len(found) else {}
        return {"Results": results, **more}

    def list_tags(self, content: dict, region: str) -> dict:
        return {"Tags": [{"Key": key, "Value": value} for key, value in self._by_arn(content, region).tags.items()]}

    def add_tags(self, content: dict, region: str) -> dict:
        self._by_arn(content, region).tags |= {tag["Key"]: tag["Value"] for tag in content["Tags"]}
        return {"Tags": content["Tags"]}

    def _by_arn(self, content: dict, region: str) -> Job:
        return self._job(content["ResourceArn"].rpartition("/")[2], region)

    def _of(self, region: str):
        """The jobs of a region, which is that of their ARN."""
        return [job for job in tuple(self.jobs.values()) if job.arn.split(":")[3] == region]

    def _job(self, name: str, region: str) -> Job:
        job = self.jobs.get(name)
        if job is None or job.arn.split(":")[3] != region:
            raise Refused("ValidationException", "Requested resource not found.")
        return job

    def _check(self, content: dict) -> None:
        """What the service checks beyond its model."""
        resources, stopping = content.get("ResourceConfig"), content.get("StoppingCondition")
        image = content.get("AlgorithmSpecification", {}).get("TrainingImage")
        if resources is None or stopping is None or image is None:
            raise Refused("ValidationException", "ResourceConfig, StoppingCondition and TrainingImage are required")
        longest, wait = stopping.get("MaxRuntimeInSeconds", 86400), stopping.get("MaxWaitTimeInSeconds")
        spot = content.get("EnableManagedSpotTraining", False)
        if spot and (wait is None or wait < longest):
            raise Refused("ValidationException", "Invalid MaxWaitTimeInSeconds. It must be present and be greater "
                          "than or equal to MaxRuntimeInSeconds")  # fmt: skip
        if wait is not None and not spot:
            raise Refused("ValidationException", "MaxWaitTimeInSeconds above 0 is not supported without spot training")
        if spot and resources.get("KeepAlivePeriodInSeconds"):
            raise Refused("ValidationException", "KeepAlivePeriodInSeconds is not supported with managed spot training")
        for name, value in content.get("Environment", {}).items():
            if len(value) > SAGEMAKER.max_environment_length:
                raise Refused("ValidationException", f"Environment value of {name} is longer than 512 characters")
        for metric in content["AlgorithmSpecification"].get("MetricDefinitions", []):
            if re.compile(metric["Regex"]).groups < 1:
                raise Refused("ValidationException", f"the regex of {metric['Name']} has no group")
        if not self.cloud.rights.role_trusts(content["RoleArn"], "sagemaker.amazonaws.com"):
            raise Refused("ValidationException", f"Could not assume role {content['RoleArn']}. Please ensure that the "
                          "role exists and allows principal 'sagemaker.amazonaws.com' to assume the role.")  # fmt: skip
        self.image(image)

    def image(self, uri: str) -> str:
        """The local registry's name of the image, by digest; refuses one that is not there."""
        match = IMAGE.fullmatch(uri)
        digest = match and self.cloud.front.digest(match[3], match[5] or match[4] or "latest")
        if digest is None:
            raise Refused("ValidationException", f"Cannot find the requested image: {uri}")
        return f"{self.cloud.front.local(match[3])}@{digest}"

    def _check_quota(self, content: dict) -> None:
        resources = content["ResourceConfig"]
        machine, count = resources["InstanceType"], resources["InstanceCount"]
        spot = content.get("EnableManagedSpotTraining", False)
        use = "spot training job usage" if spot else "training job usage"
        used = sum(job.machines for job in self.jobs.values() if not job.ended and job.takes(machine, spot))
        limit = self.cloud.quotas.value(machine, use)
        if used + count > limit:
            raise Refused(
                "ResourceLimitExceeded",
                f"The account-level service limit '{machine} for {use}' is {limit:.0f} Instances, with current "
                f"utilization of {used} Instances and a request delta of {count} Instances. Please use AWS Service "
                "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact AWS "
                "support to request an increase for this quota.",
            )

    def close(self) -> None:
        for job in self.jobs.values():
            job.destroy()
        deadline = time.monotonic() + 20
        for job in self.jobs.values():
            job.join(max(0.0, deadline - time.monotonic()))
