"""What a request to AWS is in the words of IAM: who, which actions, on which resource."""

import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from tests.clouds.gateway import Request

S3_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com")
CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")


@dataclass(frozen=True)
class Call:
    key: str
    """Access key id."""
    service: str
    operation: str
    """The API's own name of it."""
    rights: tuple[tuple[str, str], ...]
    """(action, resource) pairs that IAM must allow."""
    content: dict
    """The parsed body of a JSON or query call."""
    region: str = ""
    """That the call was signed for."""


def read(request: Request, region: str, account: str) -> Call:
    match = CREDENTIAL.search(request.headers.get("Authorization", ""))
    key = match[1] if match else ""
    if S3_HOST.fullmatch(request.host):
        operation, rights = _s3(request)
        return Call(key, "s3", operation, tuple(rights), {})
    service = match[3] if match else request.host.partition(".")[0]
    if target := request.headers.get("X-Amz-Target"):
        operation, content = target.rpartition(".")[2], json.loads(request.body or b"{}")
    else:
        form = {name: values[0] for name, values in parse_qs(request.body.decode(errors="replace")).items()}
        operation, content = form.get("Action") or urlsplit(request.path).path.rpartition("/")[2], form
    rights = _rights(service, operation, content, f"{region}:{account}", account)
    return Call(key, service, operation, tuple(rights), content, match[2] if match else region)


def _rights(service, operation, content, place, account):
    resource = _resource(service, content, place, account)
    yield f"{service}:{operation}", "*" if operation in UNBOUND else resource
    if service == "sagemaker" and operation == "CreateTrainingJob":
        yield "iam:PassRole", str(content.get("RoleArn"))
        if content.get("Tags"):
            yield "sagemaker:AddTags", resource
    if service == "secretsmanager" and operation == "CreateSecret" and content.get("Tags"):
        yield "secretsmanager:TagResource", resource


UNBOUND = {
    "GetCallerIdentity",
    "GetAuthorizationToken",
    "ListServiceQuotas",
    "ListAWSDefaultServiceQuotas",
    "ListRoles",
    "ListTrainingJobs",
    "Search",
    "GetProducts",
}
"""Operations that IAM knows no resource for."""


def _resource(service, content, place, account):
    if service == "sagemaker":
        arn = content.get("ResourceArn")
        return arn or f"arn:aws:sagemaker:{place}:training-job/{content.get('TrainingJobName', '')}"
    if service == "logs":
        return f"arn:aws:logs:{place}:log-group:{content.get('logGroupName', '')}:*"
    if service == "ecr":
        return f"arn:aws:ecr:{place}:repository/{content.get('repositoryName', '')}"
    if service == "secretsmanager":
        name = str(content.get("SecretId") or content.get("Name"))
        return name if name.startswith("arn:") else f"arn:aws:secretsmanager:{place}:secret:{name}-a1B2c3"
    if service == "iam":
        return str(content.get("PolicySourceArn") or f"arn:aws:iam::{account}:role/{content.get('RoleName', '')}")
    return "*"


def _s3(request: Request):
    """S3 has no action names on the wire; its documentation's table of operations and permissions."""
    parts = urlsplit(request.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket = S3_HOST.fullmatch(request.host)["bucket"]
    path = unquote(parts.path).lstrip("/")
    if bucket is None:
        bucket, _, path = path.partition("/")
    on_bucket, on_object = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{path}"
    method = request.method
    if not bucket:
        return "ListBuckets", [("s3:ListAllMyBuckets", "*")]
    if not path:
        if method == "PUT" and not query:
            return "CreateBucket", [("s3:CreateBucket", on_bucket)]
        if method == "POST" and "delete" in query:
            keys = re.findall(r"<Key>(.*?)</Key>", request.body.decode())
            return "DeleteObjects", [("s3:DeleteObject", f"{on_bucket}/{key}") for key in keys]
        if method == "GET" and "location" in query:
            return "GetBucketLocation", [("s3:GetBucketLocation", on_bucket)]
        return ("HeadBucket" if method == "HEAD" else "ListObjectsV2"), [("s3:ListBucket", on_bucket)]
    if source := request.headers.get("x-amz-copy-source"):
        origin = f"arn:aws:s3:::{unquote(source).lstrip('/')}"
        return "CopyObject", [("s3:GetObject", origin), ("s3:PutObject", on_object)]
    if method in ("GET", "HEAD"):
        return f"{method.title()}Object", [("s3:GetObject", on_object)]
    if method == "DELETE":
        action = "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
        return action.partition(":")[2], [(action, on_object)]
    if method == "POST":
        operation = "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
        return operation, [("s3:PutObject", on_object)]
    return "UploadPart" if "uploadId" in query else "PutObject", [("s3:PutObject", on_object)]
