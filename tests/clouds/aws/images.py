"""ECR: repositories are moto's, images are those of the real registry behind the account's host."""

import base64
import time

from tests.clouds.aws.training import Refused
from tests.clouds.front import Front

RIGHTS = {
    "check_layer": "ecr:BatchCheckLayerAvailability",
    "get_layer": "ecr:GetDownloadUrlForLayer",
    "start_upload": "ecr:InitiateLayerUpload",
    "upload_part": "ecr:UploadLayerPart",
    "finish_upload": "ecr:CompleteLayerUpload",
    "put_manifest": "ecr:PutImage",
    "get_manifest": "ecr:BatchGetImage",
}


class Images:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.host = f"{cloud.account}.dkr.ecr.{cloud.region}.amazonaws.com"
        self.front = Front(cloud.gateway, self.host, f"loopback-{cloud.account}", self._allow)
        self.used: set[tuple[str, str, str]] = set()
        """(access key, action, resource) of what was done at the registry's host."""
        self.ecr = cloud.client("ecr")
        self.operations = {
            "GetAuthorizationToken": self.token,
            "DescribeImages": self.describe,
        }

    def token(self, call) -> dict:
        token = base64.b64encode(f"AWS:{call.key}".encode()).decode()
        data = {"authorizationToken": token, "expiresAt": time.time() + 43200, "proxyEndpoint": f"https://{self.host}"}
        return {"authorizationData": [data]}

    def describe(self, call) -> dict:
        name = call.content["repositoryName"]
        if not self._repository(name):
            raise Refused("RepositoryNotFoundException", f"The repository with name '{name}' does not exist")
        details = []
        for wanted in call.content.get("imageIds", []):
            digest = self.front.digest(name, wanted.get("imageTag") or wanted["imageDigest"])
            if digest is None:
                raise Refused("ImageNotFoundException", f"The image with imageId {wanted} does not exist")
            details.append({"repositoryName": name, "imageDigest": digest, "imageTags": [wanted.get("imageTag", "")]})
        return {"imageDetails": details}

    def _repository(self, name: str) -> bool:
        try:
            return bool(self.ecr.describe_repositories(repositoryNames=[name])["repositories"])
        except self.ecr.exceptions.RepositoryNotFoundException:
            return False

    def arn(self, uri: str) -> str:
        """The repository of an image."""
        name = uri.removeprefix(f"{self.host}/").partition("@")[0].partition(":")[0]
        return f"arn:aws:ecr:{self.cloud.region}:{self.cloud.account}:repository/{name}"

    def _allow(self, user: str, key: str, operation: str, repository: str) -> bool:
        if user != "AWS" or not self.cloud.rights.known(key):
            return False
        if operation == "login":
            return True
        if operation not in RIGHTS or not self._repository(repository):
            return False
        arn = self.arn(f"{self.host}/{repository}")
        self.used.add((key, RIGHTS[operation], arn))
        return self.cloud.rights.allowed(key, RIGHTS[operation], arn)
