"""AWS's price list: the bulk file of SageMaker in one region, which asks for no credentials."""

from __future__ import annotations

from collections.abc import Callable

from tests.clouds.gateway import Request, Response, as_json

HOST = "pricing.us-east-1.amazonaws.com"
RATES = {"ml.g5.xlarge": "1.4100000000", "ml.g6.xlarge": "1.1300000000", "ml.g4dn.xlarge": "0.7360000000"}
"""Dollars an hour of training machines."""


def price_list(rates: dict[str, str]) -> Callable[[Request], Response]:
    """The bulk file of SageMaker: training beside hosting, warm pools and another region's stray row; one GPU each."""

    def serve(request: Request) -> Response:
        products, terms = {}, {}

        def add(sku: str, usd: str, **attributes: str) -> None:
            about = {"servicecode": "AmazonSageMaker", "regionCode": "us-east-1", **attributes}
            products[sku] = {"sku": sku, "productFamily": "ML Instance", "attributes": about}
            rate = {"unit": "Hrs", "description": "$ per hour", "pricePerUnit": {"USD": usd}, "beginRange": "0"}
            dimensions = {f"{sku}.JRTCKXETXF.6YS6EN2CT7": rate}
            terms[sku] = {f"{sku}.JRTCKXETXF": {"offerTermCode": "JRTCKXETXF", "priceDimensions": dimensions}}

        for number, (name, usd) in enumerate(rates.items()):
            train = {"component": "Training", "instanceType": f"{name}-Training", "usagetype": f"USE1-Train:{name}"}
            add(f"TRAIN{number}", usd, instanceName=name, gpu="1", vCpu="4", **train)
            host = {"component": "Hosting", "instanceType": f"{name}-Hosting", "usagetype": f"USE1-Host:{name}"}
            add(f"HOST{number}", "99.0000000000", instanceName=name, **host)
            pool = {"component": "Training", "usagetype": f"USE1-TrainWarmPool:{name}"}
            add(f"POOL{number}", "77.0000000000", instanceName=name, **pool)
            there = {"component": "Training", "regionCode": "us-west-2", "usagetype": f"USW2-Train:{name}"}
            add(f"WEST{number}", "55.0000000000", instanceName=name, **there)
        add(
            "CPU",
            "0.2300000000",
            component="Training",
            instanceName="ml.m5.xlarge",
            usagetype="USE1-Train:ml.m5.xlarge",
        )
        document = {
            "formatVersion": "v1.0", "offerCode": "AmazonSageMaker", "publicationDate": "2026-11-20T00:00:00Z",
            "products": products, "terms": {"OnDemand": terms},
        }  # fmt: skip
        right = request.path == "/offers/v1.0/aws/AmazonSageMaker/current/us-east-1/index.json"
        return as_json(document) if right else as_json({"message": "Not Found"}, 404)

    return serve
