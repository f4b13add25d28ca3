"""``ftlaunch prices refresh`` against loopback sources in real shapes: what fails changes nothing, and is told."""

from __future__ import annotations

import json
import re

import pytest

from backends import prices
from launcher.cost import live, sources
from tests.clouds.authority import Authority
from tests.clouds.aws.price_list import HOST, RATES, price_list
from tests.clouds.azure.entra import HOST as LOGIN
from tests.clouds.azure.entra import Entra
from tests.clouds.gateway import Gateway, Response, as_json
from tests.clouds.google import billing
from tests.cost import price_lists
from tests.cost.price_lists import AZURE, Source
from tests.launcher.conftest import Command, ftlaunch  # noqa: F401

HOSTS = {"aws": HOST, "azure": "prices.azure.com", "google": billing.HOST}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    made = Gateway(Authority(tmp_path_factory.mktemp("authority")))
    yield made
    made.close()
    assert made.refused == []


@pytest.fixture
def lists(gateway, ftlaunch, monkeypatch):
    """The sources by name; the command reaches them and nothing else."""
    made = {
        "aws": Source(price_list(RATES)),
        "azure": Source(price_lists.azure(AZURE)),
        "google": Source(billing.catalog()),
    }
    gateway.routes.clear()
    for name, source in made.items():
        gateway.route(re.escape(HOSTS[name]), source)
    way = {"HTTPS_PROXY": gateway.proxy, "SSL_CERT_FILE": str(gateway.authority.file), "GOOGLE_API_KEY": billing.KEY}
    ftlaunch.environment |= way | {"NO_PROXY": "", "no_proxy": ""}
    monkeypatch.setenv("FTLAUNCH_HOME", str(ftlaunch.home))
    return made


def refresh(ftlaunch: Command, *names: str, code: int = 0) -> tuple[list, str]:
    done = ftlaunch("prices", "refresh", "--json", *(f"--source={name}" for name in names), code=code)
    return json.loads(done.stdout), done.stderr


def of(place: str, region: str, machine: str) -> prices.Price:
    return prices.load().prices[place, region, machine]


def test_aws_training_alone_of_this_region(ftlaunch, lists):
    told, said = refresh(ftlaunch, "aws")
    assert told[0]["prices"] == 3
    found = of("sagemaker", "us-east-1", "ml.g5.xlarge")
    assert (found.usd_per_hour, found.kind, found.as_of) == (1.41, "live", "2026-11-20")
    assert of("sagemaker", "us-west-2", "ml.g5.xlarge").usd_per_hour == 1.408
    assert "ml.p4d.24xlarge" in told[0]["vanished"]  # names no more, and keeps its old price with its old date
    assert of("sagemaker", "us-east-1", "ml.p4d.24xlarge").as_of == "2026-09-27"
    assert "names no more" in said
    table = ftlaunch("cost", price_lists_job(ftlaunch), "--backend", "sagemaker").stdout
    assert "1.41/h live 2026-11-20" in table


def price_lists_job(ftlaunch):
    folder = ftlaunch.folder / "job"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 50)
    (folder / "ftlaunch.yaml").write_text(
        "model: {id: Qwen/Qwen2.5-1.5B}\ndata: {train: rows.jsonl}\ntask: {type: instruction}\n"
    )
    return folder


def test_azure_by_pages_without_windows_or_zero_and_with_tiers_apart(ftlaunch, lists):
    told, _ = refresh(ftlaunch, "azure")
    assert told[0]["prices"] == 2
    assert len(lists["azure"].asked) == 3
    found = of("azureml", "eastus", "Standard_NC4as_T4_v3")
    assert (found.usd_per_hour, found.usd_per_hour_spot) == (0.55, pytest.approx(0.11))
    assert "low priority" in found.source


def test_google_adds_core_memory_and_gpu_and_no_fee(ftlaunch, lists):
    told, _ = refresh(ftlaunch, "google")
    assert told[0]["prices"] == 8
    found = of("vertex", "us-central1", "g2-standard-8")
    assert found.usd_per_hour == pytest.approx(8 * 0.02874 + 32 * 0.003367 + 0.644046, abs=1e-6)
    assert found.usd_per_hour_spot == pytest.approx(8 * 0.01 + 32 * 0.001 + 0.2, abs=1e-6)
    two = of("vertex", "us-central1", "g2-standard-24")
    assert two.usd_per_hour == pytest.approx(24 * 0.02874 + 96 * 0.003367 + 2 * 0.644046, abs=1e-6)
    ftlaunch.environment["GOOGLE_API_KEY"] = "another"
    told, said = refresh(ftlaunch, "google", code=3)
    assert "403" in told[0]["error"]
    assert "another" not in said  # a key is not shown


def cut(right: Response) -> Response:
    return Response(200, right.headers, right.body[: len(right.body) // 2])


def broken_off(right: Response) -> Response:
    return Response(200, right.headers, right.body, cut_after=100)


TROUBLES = {
    "truncated JSON": (cut, "breaks off"),
    "a connection that breaks off": (broken_off, ""),
    "throttling": (lambda _: Response(429, [("Retry-After", "0")]), "429"),
    "another shape": (lambda _: as_json({"products": [], "Items": None, "skus": [{}]}), "shape"),
    "no such page": (lambda _: as_json({}, 404), "404"),
    "nothing we know": (
        lambda _: as_json({"publicationDate": "2026-11-20", "products": {}, "terms": {"OnDemand": {}}, "Items": []}),
        "none of the machines",
    ),
}


@pytest.mark.parametrize("source", ["aws", "azure", "google"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_fails_leaves_the_prices_before_and_says_so(gateway, lists, monkeypatch, source, trouble):
    """In this process, so that no time is waited away."""
    environment(monkeypatch, gateway)
    place, region, fetch = sources.SOURCES[source]
    assert not live.refresh(source, place, region, fetch).error
    before = prices.live_path().read_bytes()
    monkeypatch.setattr(live.time, "sleep", lambda _: None)
    monkeypatch.setattr(live.get_json, "__defaults__", (None, lambda _: None))
    lists[source].trouble, words = TROUBLES[trouble]
    outcome = live.refresh(source, place, region, fetch)
    assert words in outcome.error
    assert outcome.error
    assert prices.live_path().read_bytes() == before


@pytest.mark.parametrize("status", [429, 503])
def test_throttling_is_waited_for_as_long_as_the_source_says(gateway, lists, monkeypatch, status):
    environment(monkeypatch, gateway)
    waits: list[float] = []
    monkeypatch.setattr(live.get_json, "__defaults__", (None, waits.append))
    left = [None, Response(status, [("Retry-After", "7")]), Response(status)]
    lists["aws"].trouble = lambda _: left.pop()
    outcome = live.refresh("aws", *sources.SOURCES["aws"])
    assert not outcome.error
    assert waits == [0.5, 7.0]


def test_an_absurd_price_is_not_believed_and_the_others_are(ftlaunch, lists):
    rates = {"ml.g5.xlarge": "14.1", "ml.g6.xlarge": "0.0", "ml.g4dn.xlarge": "0.75", "ml.g5.12xlarge": "7.09"}
    lists["aws"].answer = price_list(rates)
    told, said = refresh(ftlaunch, "aws")
    assert told[0]["prices"] == 1
    assert len(told[0]["not_believed"]) == 3
    assert "times what it was" in said
    assert "ml.g5.12xlarge: priced for 1 GPUs, and it has 4" in said
    assert of("sagemaker", "us-east-1", "ml.g5.xlarge").usd_per_hour == 1.408
    assert of("sagemaker", "us-east-1", "ml.g4dn.xlarge").usd_per_hour == 0.75


def test_azure_ml_vm_sizes_with_linux_tiers_by_a_token_of_entra(gateway, lists, ftlaunch):
    """The real azure-identity logs in at a loopback Entra."""
    entra = Entra("72f988bf-0000-4000-8000-2d7cd011db47")
    gateway.route(re.escape(LOGIN), entra.serve)
    gateway.route(
        "management\\.azure\\.com", Source(price_lists.sizes(AZURE | {"Standard_NC48ads_A100_v4": 7.3}, entra))
    )
    told, _ = refresh(ftlaunch, "azure-sizes", code=3)
    assert "AZURE_SUBSCRIPTION_ID" in told[0]["error"]
    account = entra.add_application("a-person")
    way = {"REQUESTS_CA_BUNDLE": str(gateway.authority.file), "HOME": str(ftlaunch.home)}
    ftlaunch.environment |= way | account | {"AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000"}
    told, _ = refresh(ftlaunch, "azure-sizes")
    assert not told[0]["error"]
    found = of("azureml", "eastus", "Standard_NC24ads_A100_v4")
    assert (found.usd_per_hour, found.usd_per_hour_spot) == (3.7, pytest.approx(0.74))
    assert told[0]["not_believed"] == ["azureml eastus Standard_NC48ads_A100_v4: priced for 1 GPUs, and it has 2"]
    ftlaunch.environment["AZURE_CLIENT_SECRET"] = "wrong"
    told, said = refresh(ftlaunch, "azure-sizes", code=3)
    assert "Azure gave no token" in told[0]["error"]
    assert account["AZURE_CLIENT_SECRET"] not in said


@pytest.mark.parametrize(
    ("usage", "sessions", "usd", "word"),
    [
        ("Current balance: 90.00 compute units\nUsage rate: 1.20/hr\nActive assignments: 1", "a | T4 | GPU", 0.12, ""),
        ("Current balance: 90.00 compute units\nUsage rate: 7.52/hr\nActive assignments: 1", "A100 HIGHMEM", 0.752, ""),
        ("Current balance: 90.00 compute units\nUsage rate: 0.00/hr\nActive assignments: 0", "none", None, "assigned"),
        ("Current balance: 90.00 compute units\nUsage rate: 3.00/hr\nActive assignments: 2", "T4\nL4", None, "2 now"),
        ("Guthaben: 90", "T4", None, "not known"),
    ],
)
def test_colab_by_its_own_tool(home, tmp_path, monkeypatch, usage, sessions, usd, word):
    tool = tmp_path / "colab"
    tool.write_text(f"#!/bin/sh\ncase $3 in usage) echo '{usage}';; *) echo '{sessions}';; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    outcome = live.refresh("colab", *sources.SOURCES["colab"])
    assert word in outcome.error
    if usd is not None:
        (price,) = outcome.prices
        assert price.usd_per_hour == pytest.approx(usd)
        assert not outcome.vanished


def environment(monkeypatch, gateway) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", gateway.proxy)
    monkeypatch.setenv("SSL_CERT_FILE", str(gateway.authority.file))
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key")
