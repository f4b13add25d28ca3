"""The live price sources: AWS's list, Azure's retail prices and vmSizes, Google's catalog, Colab's units."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from backends import hardware
from backends.colab_request import ColabOptions
from backends.home import config_home
from backends.prices import Price
from launcher import yamlfile
from launcher.cost.live import SourceError, get_json, pages
from training_image.errors import InputError

AWS = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonSageMaker/current/{region}/index.json"
AZURE = "https://prices.azure.com/api/retail/prices?"
AZURE_SIZES = (
    "https://management.azure.com/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices"
    "/locations/{region}/vmSizes?api-version=2024-04-01"
)
GOOGLE = "https://cloudbilling.googleapis.com/v1/services/{service}/skus?"
VERTEX_SERVICE = "C7E2-9256-1C43"
VERTEX_PREFIXES = ("Vertex AI: Training/Pipelines on ", "Vertex AI: Training/Pipelines using ")
"""Beginnings of SKUs that hold Vertex's own rate: Compute Engine's with the fee in it, so no fee is added to them."""
DOLLARS_PER_UNIT = 0.1
"""Of a Colab compute unit: 100 of them for 10 dollars (9.99), pay as you go."""


def aws(region: str) -> Iterator[Price]:
    """SageMaker's on-demand rates of training, from the region's bulk file; no credentials.

    Training, hosting, transform and warm pools have prices of their own for the same machine. Spot has no list.
    """
    document = get_json(AWS.format(region=region))
    day = str(document["publicationDate"])[:10]
    for sku, product in document["products"].items():
        about = product.get("attributes", {})
        name = str(about.get("instanceName") or about.get("instanceType", "")).removesuffix("-Training")
        usage = str(about.get("usagetype", "Train:")).partition(":")[0]
        training = str(about.get("component", "")).lower() == "training" and usage.endswith("Train")
        if not training or about.get("regionCode", region) != region:
            continue
        if ("sagemaker", name) not in hardware.machines():
            continue
        terms = document["terms"]["OnDemand"].get(sku, {})
        rates = [rate for term in terms.values() for rate in term["priceDimensions"].values()]
        hourly = [float(rate["pricePerUnit"]["USD"]) for rate in rates if str(rate.get("unit", "Hrs")).startswith("H")]
        if hourly:
            row = _live("sagemaker", region, name, hourly[0], None, day, f"AWS price list, {usage}")
            yield row._replace(gpus=_count(about.get("gpu")))


def azure(region: str) -> Iterator[Price]:
    """Azure's retail rates of virtual machines, which Azure ML bills; no credentials.

    Spot and Low Priority are meters apart: low priority is what Azure ML's clusters take, so it goes before spot.
    Zero prices, which the catalogue has, are left out.
    """
    wanted = f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '{region}'"
    wanted += " and contains(productName,'Windows') eq false"
    query = urlencode({"api-version": "2023-01-01-preview", "currencyCode": "USD", "$filter": wanted}, quote_via=quote)
    rates: dict[str, dict[str, tuple[float, str]]] = {}
    for page in pages(AZURE + query, lambda document: document.get("NextPageLink")):
        for item in page["Items"]:
            name, usd = str(item["armSkuName"]), float(item["retailPrice"])
            known = ("azureml", name) in hardware.machines() and item["armRegionName"] == region
            if not known or usd < 1e-4 or item["unitOfMeasure"] != "1 Hour" or "Windows" in item["productName"]:
                continue
            if item.get("type") == "Consumption" and item.get("currencyCode") == "USD":
                tier = _tier(str(item["meterName"]))
                rates.setdefault(name, {})[tier] = (usd, str(item.get("effectiveStartDate", ""))[:10])
    today = datetime.date.today().isoformat()
    for name, found in rates.items():
        if "standard" in found:
            low = next((tier for tier in ("low priority", "spot") if tier in found), None)
            source = "Azure retail prices" + (f"; interruptible by the meter {low}" if low else "")
            spot = found[low][0] if low else None
            yield _live("azureml", region, name, found["standard"][0], spot, today, source)


def azure_sizes(region: str) -> Iterator[Price]:
    """The workspace's own list of machines with their estimated prices: the best of Azure's sources.

    Needs AZURE_SUBSCRIPTION_ID and credentials that azure-identity finds.
    """
    subscription = os.environ.get("AZURE_SUBSCRIPTION_ID")
    if not subscription:
        raise SourceError("needs AZURE_SUBSCRIPTION_ID and credentials of Azure")
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise SourceError("needs azure-identity (pip install 'ftlaunch[azure]')") from error
    try:
        token = DefaultAzureCredential().get_token("https://management.azure.com/.default").token
    except Exception as error:  # azure-identity raises one of many kinds
        raise SourceError(f"Azure gave no token: {str(error).splitlines()[0]}") from error
    url = AZURE_SIZES.format(subscription=subscription, region=region)
    document = get_json(url, {"Authorization": f"Bearer {token}"})
    today = datetime.date.today().isoformat()
    for size in document["value"]:
        told = size.get("estimatedVMPrices") or {}
        if ("azureml", size["name"]) not in hardware.machines() or told.get("billingCurrency") != "USD":
            continue
        tiers = {
            each["vmTier"]: float(each["retailPrice"])
            for each in told["values"]
            if each["osType"] == "Linux" and float(each["retailPrice"]) > 0
        }
        if "Standard" in tiers:
            low = tiers.get("LowPriority", tiers.get("Spot"))
            row = _live("azureml", region, str(size["name"]), tiers["Standard"], low, today, "Azure ML vmSizes")
            yield row._replace(gpus=_count(size.get("gpus")))


def google(region: str) -> Iterator[Price]:
    """Vertex's rates: core, memory and GPU SKUs of Google's billing catalog, added up by machine.

    The text of an on-demand SKU stands inside that of its spot SKU, so texts are compared from their beginning. Needs
    an API key (GOOGLE_API_KEY), or credentials that google-auth finds.
    """
    key = os.environ.get("GOOGLE_API_KEY")
    headers = {} if key else {"Authorization": f"Bearer {_google_token()}"}
    address = GOOGLE.format(service=VERTEX_SERVICE)

    def url(more: Mapping[str, str]) -> str:
        return address + urlencode({"pageSize": "5000", "currencyCode": "USD", **({"key": key} if key else {}), **more})

    def following(document: Any) -> str | None:
        token = document.get("nextPageToken")
        return url({"pageToken": token}) if token else None

    skus = [sku for page in pages(url({}), following, headers) for sku in page.get("skus", [])]
    rates = {tier: _components(skus, region, tier) for tier in ("", "spot")}
    today = datetime.date.today().isoformat()
    for machine in hardware.machines().values():
        if machine.place == "vertex":
            usd, spot = (_sum(machine, rates[tier]) for tier in ("", "spot"))
            if usd is not None:
                yield _live("vertex", region, machine.name, usd, spot, today, "Google billing catalog, Vertex SKUs")


def colab(region: str) -> Iterator[Price]:
    """Colab's present rate by its own tool, which knows it only while exactly one machine is assigned.

    ``config.yaml`` says which tool that is and how it signs in, as for the backend.
    """
    options = _colab_options()
    usage, sessions = _colab(options, "usage"), _colab(options, "sessions")
    rate = re.search(r"^Usage rate: ([\d.]+)/hr$", usage, re.M)
    count = re.search(r"^Active assignments: (\d+)$", usage, re.M)
    if rate is None or count is None:
        raise SourceError(f"`colab usage` said something that is not known here: {usage[:80]!r}")
    if count[1] != "1":
        raise SourceError(f"the rate is told only while one machine is assigned; there are {count[1]} now")
    named = [name for name in ("A100", "H100", "G4", "L4", "T4") if re.search(rf"\b{name}\b", sessions)]
    if len(named) != 1 or float(rate[1]) <= 0:
        raise SourceError("no rate of a machine with a GPU was told")
    today = datetime.date.today().isoformat()
    large = named[0] == "A100" and "HIGH" in sessions.upper()
    yield _live(
        "colab",
        "",
        "A100-80GB" if large else named[0],
        float(rate[1]) * DOLLARS_PER_UNIT,
        None,
        today,
        "colab usage, 0.10 USD a unit",
    )


SOURCES: dict[str, tuple[str, str, Any]] = {
    "aws": ("sagemaker", "us-east-1", aws),
    "azure": ("azureml", "eastus", azure),
    "azure-sizes": ("azureml", "eastus", azure_sizes),
    "google": ("vertex", "us-central1", google),
    "colab": ("colab", "", colab),
}
"""Name of each source, the place it prices, its region by default, and the adapter."""

_PARTS = {
    "g2": ("G2 Instance", "Nvidia L4 GPU"),
    "n1": ("N1 Predefined Instance", "Nvidia Tesla T4 GPU"),
    "a2-highgpu": ("A2 Instance", "Nvidia Tesla A100 GPU"),
    "a2-ultragpu": ("A2 Instance", "Nvidia Tesla A100 80GB GPU"),
    "a3": ("A3 Instance", "Nvidia H100 80GB GPU"),
}


def _live(place: str, region: str, name: str, usd: float, spot: float | None, day: str, source: str) -> Price:
    return Price(place, region, name, usd, spot, "live", day, source)


def _count(told: object) -> int | None:
    """The number of GPUs that a source tells; None where it tells none."""
    return int(str(told)) if str(told).isdecimal() else None


def _tier(meter: str) -> str:
    return "spot" if "Spot" in meter else "low priority" if "Low Priority" in meter else "standard"


def _components(skus: Iterable[Any], region: str, tier: str) -> dict[str, float]:
    """Hourly rates by component of one region; the text behind the service's prefix tells on demand from spot."""
    found: dict[str, float] = {}
    for sku in skus:
        text = next((sku["description"][len(p) :] for p in VERTEX_PREFIXES if sku["description"].startswith(p)), None)
        if text is None or region not in sku.get("serviceRegions", []):
            continue
        spot = text.startswith(("Spot ", "Preemptible ")) or "attached to Spot" in text or "attached to Preempt" in text
        if spot != (tier == "spot"):
            continue
        name = re.sub(r"^(Spot )?(Preemptible )?|( attached to .*)? running in .*$", "", text)
        usd = _unit_price(sku)
        if usd:
            found[name] = usd
    return found


def _unit_price(sku: Any) -> float:
    price = sku["pricingInfo"][-1]["pricingExpression"]["tieredRates"][-1]["unitPrice"]
    return float(price.get("units") or 0) + float(price.get("nanos") or 0) / 1e9


def _sum(machine: hardware.Machine, rates: Mapping[str, float]) -> float | None:
    """The whole machine's rate; None where one of its parts is not in the list."""
    series = next((parts for begin, parts in _PARTS.items() if machine.name.startswith(begin)), None)
    if series is None or machine.vcpus is None or machine.ram_gib is None:
        return None
    body, gpu = series
    parts = {f"{body} Core": machine.vcpus, f"{body} Ram": machine.ram_gib, gpu: machine.gpus}
    if not rates.keys() >= parts.keys():
        return None
    return round(sum(rates[name] * amount for name, amount in parts.items()), 6)


def _google_token() -> str:
    try:
        import google.auth
        import google.auth.transport.requests
    except ImportError as error:
        raise SourceError("needs GOOGLE_API_KEY, or google-auth (pip install 'ftlaunch[gcp]')") from error
    try:
        credentials, _ = google.auth.default(["https://www.googleapis.com/auth/cloud-billing.readonly"])
        credentials.refresh(google.auth.transport.requests.Request())
    except Exception as error:  # google-auth raises one of many kinds
        raise SourceError(f"needs GOOGLE_API_KEY or credentials of Google: {str(error).splitlines()[0]}") from error
    return str(credentials.token)


def _colab_options() -> ColabOptions:
    """The user's ``backends.colab``; the defaults where there is none."""
    config = config_home() / "config.yaml"
    try:
        content = yamlfile.read(config).value if config.is_file() else {}
        return ColabOptions.model_validate((content.get("backends") or {}).get("colab") or {})
    except (InputError, ValidationError, AttributeError) as error:
        raise SourceError(f"backends.colab in {config} cannot be used: {error}") from error


def _colab(options: ColabOptions, verb: str) -> str:
    tool = shutil.which(os.path.expanduser(options.command))
    if tool is None:
        raise SourceError(f"needs Colab's command line tool (google-colab-cli), signed in; no {options.command!r} here")
    command = [tool, "--auth", options.auth, verb]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,  # one that is not signed in asks for a code, and ends at once without an answer
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"`colab {verb}` did not answer: {error}") from error
    if done.returncode:
        raise SourceError(f"`colab {verb}` failed: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout
