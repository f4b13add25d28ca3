"""A loopback AWS: one account in one region.

S3, STS, IAM, ECR, CloudWatch, Logs and Secrets Manager are moto's; SageMaker's training jobs, Service Quotas, the price
list, IAM's policy simulation and ECR's images are ours, because moto's take what the service refuses, or are not there.
Every call is recorded with the rights that it needs, and is refused where the caller's policy does not allow it.
"""

import contextlib
import http.client
import json
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from tests.clouds.aws import calls
from tests.clouds.aws.images import Images
from tests.clouds.aws.price_list import HOST as PRICING
from tests.clouds.aws.price_list import RATES, price_list
from tests.clouds.aws.quotas import Quotas
from tests.clouds.aws.rights import ROOT, Rights
from tests.clouds.aws.training import Refused, Training
from tests.clouds.containers import Network
from tests.clouds.front import known_to_engine
from tests.clouds.gateway import Request, Response, Tally, forward
from tests.clouds.loopback import Loopback, Troubles
from training_image.contracts import SAGEMAKER

ENGINE_ADDRESS = "127.61.13.7"
"""Where the engine of this machine finds the registry's host: a loopback address that is used for nothing else."""


@dataclass
class AwsTroubles(Troubles):
    refused: str = ""
    """An operation that is answered with an error that no retry helps."""


class Aws(Loopback):
    kinds = AwsTroubles
    region = "us-east-1"
    account = "123456789012"
    network = Network("ftlaunch-loopback-aws", "169.254.170.2")

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(folder, stack)
        self.open_network(self.network, stack)
        self.gateway.listen_plain(self.network.gateway, 80, self._credentials)
        self.moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.moto.start()
        stack.callback(self.moto.stop)
        self._begin_empty()
        self.calls: list[calls.Call] = []
        self.role_used: set[tuple[str, str]] = set()
        """(role, action) of what was done for the jobs."""
        self.bucket_owners: dict[str, str] = {}
        """Accounts that buckets belong to, where it is not this one; the emulator does not look at owners."""
        self.received, self.sent = Tally(), Tally()
        """Bytes of data that came into the buckets, and that went out."""
        self.grace_seconds = float(SAGEMAKER.grace_seconds)
        """Between SIGTERM and SIGKILL, as in the contract; `shortened_grace` is the only way to another."""
        self.log_seconds = 0.0
        self.log_lock = threading.Lock()
        self.s3, self.iam, self.logs, self.cloudwatch = (
            self.client(name) for name in ("s3", "iam", "logs", "cloudwatch")
        )
        self.rights = Rights(self.iam)
        self.quotas = Quotas()
        self.images = Images(self)
        self.front = self.images.front
        self.training = Training(self)
        stack.callback(self.training.close)
        self.gateway.route(re.escape(PRICING), price_list(RATES))
        # The bucket that the sagemaker SDK phones with its telemetry is refused as any other host outside is.
        self.gateway.route(r"(?!sm-pysdk-t-)([a-z0-9.-]+\.)?amazonaws\.com", self._serve)
        stack.enter_context(known_to_engine(self.gateway, [self.front.host], ENGINE_ADDRESS))

    def _begin_empty(self) -> None:
        """The emulator's state outlives its server: an account of this process before this one would still be there."""
        host, port = self.moto.get_host_and_port()
        connection = http.client.HTTPConnection(host, port, timeout=60)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        connection.close()

    def client(self, service: str):
        """A client of the emulator itself, past the gateway: for tests that look at what is really there."""
        host, port = self.moto.get_host_and_port()
        return boto3.client(
            service,
            endpoint_url=f"http://{host}:{port}",
            region_name=self.region,
            aws_access_key_id=ROOT,
            aws_secret_access_key="root",
            config=Config(proxies={}, s3={"addressing_style": "path"}, max_pool_connections=20),
        )

    def environment(self) -> dict[str, str]:
        """The user's own configuration of AWS's tools is not read, either."""
        return super().environment() | {
            "AWS_CA_BUNDLE": str(self.authority.file),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
        }

    @contextlib.contextmanager
    def shortened_grace(self, seconds: float) -> Iterator[None]:
        """While this lasts SIGKILL comes so many seconds after SIGTERM: for a test that waits for it."""
        self.grace_seconds = seconds
        try:
            yield
        finally:
            self.grace_seconds = float(SAGEMAKER.grace_seconds)

    def _serve(self, request: Request) -> Response:
        call = calls.read(request, self.region, self.account)
        self.calls.append(call)
        if refused := self._refused(request, call):
            _ = request.body  # a client that is still sending would see a broken connection, and try again
            return refused
        response = self.cut(self._answer(request, call))
        if call.operation == "GetObject":
            response.body = self._counted(response.body)
        return response

    def _refused(self, request: Request, call: calls.Call) -> Response | None:
        if trouble := self._trouble(call):
            return trouble
        if not self.rights.known(call.key):
            return _error(call, 403, "UnrecognizedClientException", "The security token included is invalid.")
        for action, resource in call.rights:
            if call.service != "sts" and not self.rights.allowed(call.key, action, resource):
                self.denied.append((self.rights.owners.get(call.key, ""), action, resource))
                who = self.rights.owners.get(call.key)
                message = f"User: {who} is not authorized to perform: {action} on resource: {resource}"
                return _error(call, 403, "AccessDeniedException", message)
        if call.service == "s3" and self._is_of_another(request, call):
            return _error(call, 403, "AccessDenied", "Access Denied")
        return None

    def _is_of_another(self, request: Request, call: calls.Call) -> bool:
        """Whether the bucket is not its expected owner's."""
        expected = request.headers.get("x-amz-expected-bucket-owner")
        bucket = call.rights[0][1].removeprefix("arn:aws:s3:::").partition("/")[0]
        return expected not in (None, self.bucket_owners.get(bucket, self.account))

    def _counted(self, body: bytes | Iterator[bytes]) -> bytes | Iterator[bytes]:
        if isinstance(body, bytes):
            self.sent.add(len(body))
            return body
        return self._counted_pieces(body)

    def _counted_pieces(self, body: Iterator[bytes]) -> Iterator[bytes]:
        for piece in body:
            self.sent.add(len(piece))
            yield piece

    def _answer(self, request: Request, call: calls.Call) -> Response:
        if call.service == "s3" and call.operation in ("PutObject", "UploadPart"):
            self.received.add(len(request.body))
        try:
            if call.service == "sagemaker":
                return _json(self.training.answer(call.operation, call.content, call.region))
            if call.service == "servicequotas":
                return _json(self.quotas.list(call.content))
            if call.service == "ecr" and call.operation in self.images.operations:
                return _json(self.images.operations[call.operation](call))
        except Refused as refused:
            return _error(call, refused.status, refused.code, refused.message)
        if (call.service, call.operation) == ("iam", "SimulatePrincipalPolicy"):
            return self.rights.simulate(call.content)
        _ = request.body  # read it whole: moto's server takes no chunks
        return forward(request, self.moto.get_host_and_port(), host=request.host)

    def _trouble(self, call: calls.Call) -> Response | None:
        troubles = self.troubles
        troubles.calls += 1
        if troubles.expired:
            return _error(call, 403, "ExpiredTokenException", "The security token included in the request is expired")
        if call.operation == troubles.refused:
            return _error(call, 400, "InvalidRequest", "The request is refused by the test.")
        if troubles.throttle and troubles.calls % 2:
            return _error(call, 400, "ThrottlingException", "Rate exceeded")
        return None

    def _credentials(self, request: Request) -> Response:
        """What a machine of the account gets at 169.254.170.2: the job's role, for a while."""
        key = request.path.rpartition("/")[2].upper()
        if not self.rights.known(f"ASIA{key}"):
            return Response(404, [], b"{}")
        content = {
            "RoleArn": self.rights.owners[f"ASIA{key}"],
            "AccessKeyId": f"ASIA{key}",
            "SecretAccessKey": "of-a-loopback-role",
            "Token": "of-a-loopback-session",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        return _json(content)


def _json(content: dict) -> Response:
    return Response(200, [("Content-Type", "application/x-amz-json-1.1")], json.dumps(content).encode())


def _error(call: calls.Call, status: int, code: str, message: str) -> Response:
    """An error in the form of the service's protocol."""
    if call.service in ("s3", "iam", "sts"):
        code = {"ExpiredTokenException": "ExpiredToken", "ThrottlingException": "SlowDown"}.get(code, code)
        code = code.replace("AccessDeniedException", "AccessDenied")
        inner = f"<Code>{code}</Code><Message>{message}</Message>"
        body = (
            f"<Error>{inner}</Error>"
            if call.service == "s3"
            else f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>"
        )
        status = 503 if code == "SlowDown" else status
        return Response(status, [("Content-Type", "application/xml")], body.encode())
    body = json.dumps({"__type": code, "message": message}).encode()
    return Response(status, [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", code)], body)


@contextlib.contextmanager
def loopback_aws(folder: Path) -> Iterator[Aws]:
    """A whole account, for as long as this lasts."""
    with contextlib.ExitStack() as stack:
        yield Aws(folder, stack)
