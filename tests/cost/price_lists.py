"""Loopback price sources that answer in the services' own shapes, and misbehave as a test asks."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

from tests.clouds.azure.entra import Entra
from tests.clouds.gateway import Request, Response, as_json

AZURE = {"Standard_NC4as_T4_v3": 0.55, "Standard_NC24ads_A100_v4": 3.7}


class Source:
    """One host. ``trouble`` answers first, as often as it gives an answer; then the list itself."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self.answer = answer
        self.trouble: Callable[[Response], Response | None] = lambda _: None
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        right = self.answer(request)
        return self.trouble(right) or right


def azure(rates: dict[str, float], size: int = 4) -> Callable[[Request], Response]:
    """Retail prices by pages: each machine on demand, on spot, at low priority, with Windows, at zero."""

    def serve(request: Request) -> Response:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        assert "armRegionName eq 'eastus'" in query["$filter"][0]
        items = []
        for name, usd in rates.items():
            for meter, product, price in (
                ("", "Virtual Machines Series", 0.0),
                (" Spot", "Virtual Machines Series", usd / 8),
                (" Low Priority", "Virtual Machines Series", usd / 5),
                ("", "Virtual Machines Series Windows", 2 * usd),
                ("", "Virtual Machines Series", usd),
            ):
                items.append(
                    {
                        "currencyCode": "USD", "retailPrice": price, "unitPrice": price, "armRegionName": "eastus",
                        "effectiveStartDate": "2026-10-01T00:00:00Z", "meterName": f"{name}{meter}",
                        "type": "Consumption", "productName": product, "armSkuName": name,
                        "unitOfMeasure": "1 Hour", "skuName": f"{name}{meter}",
                    }
                )  # fmt: skip
        skip = int(query.get("$skip", ["0"])[0])
        more = f"https://prices.azure.com{request.path.partition('&$skip')[0]}&$skip={skip + size}"
        last = skip + size >= len(items)
        page = {"Items": items[skip : skip + size], "NextPageLink": None if last else more, "Count": size}
        return as_json(page)

    return serve


def sizes(rates: dict[str, float], entra: Entra) -> Callable[[Request], Response]:
    """The workspace's vmSizes, for who shows a token of this tenant for the resource manager."""

    def serve(request: Request) -> Response:
        if entra.principal(request.headers["Authorization"], "https://management.azure.com") is None:
            return as_json({"error": {"code": "AuthenticationFailed"}}, 401)
        value = [
            {
                "name": name, "family": "f", "vCPUs": 4, "gpus": 1,
                "estimatedVMPrices": {
                    "billingCurrency": "USD", "unitOfMeasure": "OneHour",
                    "values": [
                        {"retailPrice": usd, "osType": "Linux", "vmTier": "Standard"},
                        {"retailPrice": 2 * usd, "osType": "Windows", "vmTier": "Standard"},
                        {"retailPrice": usd / 5, "osType": "Linux", "vmTier": "LowPriority"},
                        {"retailPrice": usd / 8, "osType": "Linux", "vmTier": "Spot"},
                    ],
                },
            }
            for name, usd in rates.items()
        ]  # fmt: skip
        return as_json({"value": value})

    return serve
