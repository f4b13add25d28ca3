"""Service Quotas of SageMaker, by the names that the real service gives them."""

import hashlib

from tests.clouds.aws.shapes import model

CODES = {
    "ml.g4dn.xlarge for training job usage": "L-3F53BF0F",
    "ml.p5.48xlarge for training job usage": "L-82E1C851",
}
"""The codes that are publicly known; the others have the same form."""
USES = ("training job usage", "spot training job usage", "training warm pool usage")
PAGE = 100


class Quotas:
    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        """By name; GPU machines have none unless a value stands here, as in a new account."""

    def value(self, machine: str, use: str) -> float:
        name = f"{machine} for {use}"
        return self.values.get(name, 20.0 if machine.startswith(("ml.m", "ml.c", "ml.t")) else 0.0)

    def list(self, content: dict) -> dict:
        """ListServiceQuotas."""
        machines = model("sagemaker").shape_for("TrainingInstanceType").enum
        names = [(machine, use) for machine in machines for use in USES]
        start = int(content.get("NextToken") or 0)
        size = min(int(content.get("MaxResults") or PAGE), PAGE)
        page = [self._quota(machine, use) for machine, use in names[start : start + size]]
        more = {"NextToken": str(start + size)} if start + size < len(names) else {}
        return {"Quotas": page, **more}

    def _quota(self, machine: str, use: str) -> dict:
        name = f"{machine} for {use}"
        code = CODES.get(name) or f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
        return {
            "ServiceCode": "sagemaker",
            "ServiceName": "Amazon SageMaker",
            "QuotaName": name,
            "QuotaCode": code,
            "Value": self.value(machine, use),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }
