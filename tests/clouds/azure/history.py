"""The region's data plane: run history, and the MLflow interface of the workspace."""

import json
import secrets
import time
from urllib.parse import parse_qs, urlsplit

import jwt

from tests.clouds.azure.answers import Refused, answer, denied, error, match
from tests.clouds.gateway import Request, Response

AUDIENCES = ("https://ml.azure.com", "https://management.azure.com")
RUNS = "Microsoft.MachineLearningServices/workspaces/experiments/runs"
RUN_TOKEN_SECONDS = 3600
MLFLOW = "/api/2.0/mlflow"


class History:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.host = f"{cloud.region}.api.azureml.ms"
        self.tracking = f"azureml://{self.host}/mlflow/v1.0{cloud.scope}"
        self._key = secrets.token_hex(32)
        cloud.gateway.route(self.host.replace(".", r"\."), self.serve)

    def serve(self, request: Request) -> Response:
        if trouble := self.cloud.trouble_for(request):
            return trouble
        path = urlsplit(request.path).path
        if path == "/discovery":  # for anybody
            return answer({"api": f"https://{self.host}", "history": f"https://{self.host}"})
        run = self._run_token(request)
        principal = run or self.cloud.entra.principal(request.headers.get("Authorization"), *AUDIENCES)
        if principal is None:
            return error(401, "UserError", "Bearer token not provided, or not valid.")
        try:
            return self.cloud.cut(answer(self._answer(request, path, principal, run)))
        except Refused as refused:
            return refused.response()

    def run_token(self, run: str) -> str:
        """What a job gets to log to its own run."""
        claims = {"runid": run, "exp": int(time.time()) + RUN_TOKEN_SECONDS}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def _run_token(self, request: Request) -> str | None:
        """The name of the run whose own token is shown."""
        try:
            return jwt.decode(request.headers.get("Authorization", "")[7:], self._key, ["HS256"])["runid"]
        except (jwt.InvalidTokenError, KeyError):
            return None

    def _answer(self, request: Request, path: str, principal: str, run: str | None) -> dict:
        place = f"/history/v1.0{self.cloud.scope}/experiments/{{experiment}}/runs/{{run}}"
        for pattern, details in ((place, False), (f"{place}/details", True)):
            if found := match(pattern, path):
                job = self._job(found, principal, "read" if request.method == "GET" else "write")
                if request.method == "PATCH":
                    job.tags.update(json.loads(request.body).get("tags") or {})
                return job.history(details)
        for version in ("v1.0", "v2.0"):
            base = f"/mlflow/{version}{self.cloud.scope}{MLFLOW}"
            if path.lower().startswith(base.lower()):
                return self._mlflow(request, path[len(base) :], principal, run)
        raise Refused(404, "NotFound", f"{path} is not served here")

    def _mlflow(self, request: Request, call: str, principal: str, run: str | None) -> dict:
        if request.method == "GET":
            told = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        else:
            told = json.loads(request.body)
        name = told.get("run_id") or told.get("run_uuid")
        if run is not None and name != run:
            raise Refused(403, "Forbidden", "a run's token is good for that run alone")
        job = self.cloud.jobs.job(name)
        if run is None:
            self._may(principal, "read" if request.method == "GET" else "write")
        if call == "/runs/log-batch":
            return self._log(job, told.get("metrics", []))
        if call == "/runs/log-metric":
            return self._log(job, [told])
        if call == "/metrics/get-history":
            return {"metrics": job.metrics.get(told["metric_key"], [])}
        if call == "/runs/get":
            latest = [history[-1] for history in job.metrics.values()]
            return {"run": {"info": {"run_id": job.name, "status": "RUNNING"}, "data": {"metrics": latest}}}
        raise Refused(404, "ENDPOINT_NOT_FOUND", f"{call} is not served here")

    def _log(self, job, metrics: list[dict]) -> dict:
        """MLflow's limits of a batch, and its types."""
        if len(metrics) > 1000:
            raise Refused(400, "INVALID_PARAMETER_VALUE", "more than 1000 metrics")
        for each in metrics:
            if not isinstance(each["value"], float | int) or not isinstance(each["timestamp"], int):
                raise Refused(400, "INVALID_PARAMETER_VALUE", f"{each}")
            kept = {key: each[key] for key in ("key", "value", "timestamp")} | {"step": int(each.get("step", 0))}
            job.metrics.setdefault(each["key"], []).append(kept)
        return {}

    def _job(self, found: dict, principal: str, verb: str):
        self._may(principal, verb)
        job = self.cloud.jobs.job(found["run"])
        if job.body["experimentName"] != found["experiment"]:
            raise Refused(404, "UserError", f"the experiment {found['experiment']} has no run {found['run']}")
        return job

    def _may(self, principal: str, verb: str) -> None:
        action = f"{RUNS}/{verb}"
        if not self.cloud.rights.allowed(principal, action):
            raise denied(principal, action)
