"""Machine sizes and the quota of cores by their families, dedicated and low priority apart: two rows of one name."""

from tests.clouds.azure.answers import Refused

LOW_PRIORITY = "TotalLowPriorityCores"
SIZES = {
    "Standard_DS3_v2": ("standardDSv2Family", 4, 0),
    "Standard_NC4as_T4_v3": ("Standard NCASv3_T4 Family", 4, 1),
    "Standard_NC24ads_A100_v4": ("StandardNCADSA100v4Family", 24, 1),
}
"""(family, cores, GPUs) by name."""


class Quotas:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.limits: dict[str, int] = {}
        """By family; families with GPUs have none unless a value stands here, as in a new subscription."""
        self.low_priority_limits: dict[str, int] = {}
        """Of a family's low-priority cores, below those of all families; by default there is no such limit: -1."""

    def limit(self, family: str) -> int:
        return self.limits.get(family, 100 if family in (LOW_PRIORITY, "standardDSv2Family") else 0)

    def of(self, machine: str, spot: bool) -> tuple[str, int]:
        """Family whose quota counts, and cores."""
        if machine not in SIZES:
            raise Refused(400, "InvalidVmSize", f"{machine} is not a machine size of {self.cloud.region}")
        family, cores, _ = SIZES[machine]
        return (LOW_PRIORITY if spot else family), cores

    def usages(self) -> dict:
        families = list(dict.fromkeys(family for family, _, _ in SIZES.values()))
        jobs = [job for job in self.cloud.jobs.jobs.values() if not job.ended]

        def used(quota: str, family: str | None = None) -> int:
            counted = (job for job in jobs if job.family == quota)
            return sum(
                job.cores for job in counted if family in (None, SIZES[job.body["resources"]["instanceType"]][0])
            )

        dedicated = [
            self._row("vmFamily/dedicatedCores", family, used(family), self.limit(family)) for family in families
        ]
        low = [
            self._row(
                "vmFamily/lowPriorityCores",
                family,
                used(LOW_PRIORITY, family),
                self.low_priority_limits.get(family, -1),
            )
            for family in families
        ]
        total = self._row("lowPriorityCores", LOW_PRIORITY, used(LOW_PRIORITY), self.limit(LOW_PRIORITY))
        return {"value": [*dedicated, total, *low]}

    def _row(self, kind: str, name: str, used: int, limit: int) -> dict:
        place = f"/subscriptions/{self.cloud.subscription}/providers/Microsoft.MachineLearningServices"
        return {
            "id": f"{place}/locations/{self.cloud.region}/usages/{name}",
            "type": f"Microsoft.MachineLearningServices/{kind}/usages",
            "unit": "Count",
            "currentValue": used,
            "limit": limit,
            "name": {"value": name, "localizedValue": name},
        }

    def sizes(self) -> dict:
        return {
            "value": [
                {
                    "name": name,
                    "family": family,
                    "vCPUs": cores,
                    "gpus": gpus,
                    "memoryGB": 7.0 * cores,
                    "lowPriorityCapable": True,
                    "premiumIO": True,
                    "supportedComputeTypes": ["AmlCompute"],
                }
                for name, (family, cores, gpus) in SIZES.items()
            ]
        }
