"""Google's billing catalog: Vertex AI's SKUs, for an API key or for whoever is logged in."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

from tests.clouds.gateway import Request, Response, as_json

HOST = "cloudbilling.googleapis.com"
KEY = "a-key"
"""The API key that is taken."""


def catalog(
    prefix: str = "Vertex AI: Training/Pipelines on ", allowed: Callable[[Request], bool] = lambda _: False
) -> Callable[[Request], Response]:
    """Two pages of Vertex's SKUs: on demand, spot whose text holds the on-demand one, other regions, a fee."""

    def sku(text: str, usd: float, regions: list[str], unit: str = "h") -> dict:
        units, nanos = divmod(round(usd * 1e9), 10**9)
        rate = {"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": str(units), "nanos": nanos}}
        return {
            "skuId": text[-9:], "description": text, "serviceRegions": regions,
            "category": {"usageType": "OnDemand"},
            "pricingInfo": [{"pricingExpression": {"usageUnit": unit, "tieredRates": [rate]}}],
        }  # fmt: skip

    here, there = ["us-central1"], ["europe-west4"]
    first = [
        sku(f"{prefix}Spot Preemptible G2 Instance Core running in Americas", 0.01, here),
        sku(f"{prefix}G2 Instance Core running in Americas", 0.02874, here),
        sku(f"{prefix}G2 Instance Core running in Netherlands", 0.9, there),
        sku("Vertex AI: Management fee on G2 Instance Core running in Americas", 0.5, here),
    ]
    second = [
        sku(f"{prefix}G2 Instance Ram running in Americas", 0.003367, here, "GiBy.h"),
        sku(f"{prefix}Spot Preemptible G2 Instance Ram running in Americas", 0.001, here, "GiBy.h"),
        sku(f"{prefix}Nvidia L4 GPU attached to Spot Preemptible VMs running in Americas", 0.2, here),
        sku(f"{prefix}Nvidia L4 GPU running in Americas", 0.644046, here),
    ]

    def serve(request: Request) -> Response:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        if query.get("key") != [KEY] and not allowed(request):
            return as_json({"error": {"code": 403, "status": "PERMISSION_DENIED"}}, 403)
        if "pageToken" not in query:
            return as_json({"skus": first, "nextPageToken": "more"})
        return as_json({"skus": second, "nextPageToken": ""})

    return serve
