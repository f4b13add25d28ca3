"""Machine sizes and the quota of cores by their families, dedicated and low priority apart."""

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

    def limit(self, family: str) -> int:
        return self.limits.get(family, 100 if family in (LOW_PRIORITY, "standardDSv2Family") else 0)

    def of(self, machine: str, spot: bool) -> tuple[str, int]:
        """Family whose quota counts, and cores."""
        if machine not in SIZES:
            raise Refused(400, "InvalidVmSize", f"{machine} is not a machine size of {self.cloud.region}")
        family, cores, _ = SIZES[machine]
        return (LOW_PRIORITY if spot else family), cores

    def usages(self) -> dict:
        families = [LOW_PRIORITY, *dict.fromkeys(family for family, _, _ in SIZES.values())]
        place = f"/subscriptions/{self.cloud.subscription}/providers/Microsoft.MachineLearningServices"
        jobs = self.cloud.jobs.jobs.values()
        return {
            "value": [
                {
                    "id": f"{place}/locations/{self.cloud.region}/usages/{family}",
                    "type": "Microsoft.MachineLearningServices/vmFamily/dedicatedCores/usages",
                    "unit": "Count",
                    "currentValue": sum(job.cores for job in jobs if not job.ended and job.family == family),
                    "limit": self.limit(family),
                    "name": {"value": family, "localizedValue": family},
                }
                for family in families
            ]
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
