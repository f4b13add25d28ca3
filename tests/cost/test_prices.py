"""Prices: the snapshot as its script makes it, and rows that cannot be right."""

from __future__ import annotations

import csv
import io
from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import hardware, prices
from launcher.cost import live
from scripts import price_snapshot

GOOD = prices.Price("sagemaker", "us-east-1", "ml.g5.xlarge", 1.408, None, "live", "2026-11-01", "a list")


def test_the_snapshot_is_what_its_script_makes_of_the_published_rows():
    with price_snapshot.PUBLISHED.open(newline="") as file:
        made, machines, left_out = price_snapshot.tables(list(csv.DictReader(file)))
    for path, rows in ((price_snapshot.PRICES, made), (price_snapshot.HARDWARE, machines)):
        with path.open(newline="") as file:
            bundled = list(csv.DictReader(file))
        assert sorted(map(str, bundled)) == sorted(map(str, rows))
    assert sum(left_out.values()) > 30


def test_every_bundled_row_is_believed():
    book = prices.load()
    assert not book.complaints
    with prices.BUNDLED.open(newline="") as file:
        assert len(book.prices) == len(list(csv.DictReader(file)))


def test_the_snapshot_has_none_of_the_traps():
    found = prices.load().prices
    machines = {key[2] for key in found}
    assert not [name for name in machines if name.startswith("ml.p3") or "NC6s_v3" in name]  # retired
    assert found["sagemaker", "us-east-1", "ml.g5.2xlarge"].usd_per_hour == 1.515  # not the rounded 1.52
    assert ("sagemaker", "us-west-2", "ml.g5.2xlarge") not in found  # its usage type says us-east-1
    assert found["vertex", "us-central1", "a3-highgpu-1g"].usd_per_hour is None  # spot only
    assert found["vertex", "us-central1", "g2-standard-8"].usd_per_hour == pytest.approx(1.15 * 0.853624, rel=1e-5)
    assert found["azureml", "eastus", "Standard_ND96isr_H100_v5"].usd_per_hour_spot is None  # equalled on demand
    assert hardware.machines()["azureml", "Standard_ND96isr_H100_v5"].gpus == 8  # a catalogue says 12
    assert found["colab", "", "T4"].usd_per_hour == 0.107  # the newer of two readings
    assert found["colab", "", "H100"].usd_per_hour is None
    assert all(price.usd_per_hour is None for key, price in found.items() if key[0] == "colab-enterprise")
    assert [key for key, price in found.items() if price.kind == "free"] == [("colab", "", "T4 (free)")]
    assert all(
        prices.age_days(price.as_of, date(2026, 11, 24)) > 300 for key, price in found.items() if "azure" in key[0]
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"usd_per_hour": 0.0}, "cannot be right"),
        ({"usd_per_hour": 700.0}, "cannot be right"),
        ({"usd_per_hour_spot": 1.408}, "not below"),
        ({"usd_per_hour": 5.0}, "times what it was"),
        ({"usd_per_hour": 0.3}, "times what it was"),
        ({"machine": "ml.g9.xlarge"}, "not among"),
        ({"as_of": "yesterday"}, "no date"),
        ({"gpus": 12}, "priced for 12 GPUs, and it has 1"),
    ],
)
def test_rows_that_cannot_be_right(changes, word):
    assert prices.check(GOOD, GOOD) == ""
    assert word in prices.check(GOOD._replace(**changes), GOOD)


def test_whose_price_goes_before_whose(home):
    key = GOOD.key
    assert prices.load().prices[key].kind == "snapshot"
    prices.write_live([GOOD._replace(usd_per_hour=1.5)])
    assert prices.load().prices[key][3:6] == (1.5, None, "live")
    (home / "prices.csv").write_text("place,region,machine,usd_per_hour\nsagemaker,us-east-1,ml.g5.xlarge,0.4\n")
    assert prices.load().prices[key][3:6] == (0.4, None, "user")  # a contract may be far below the list


def test_a_price_of_the_users_without_a_region_holds_in_all_of_them(home):
    (home / "prices.csv").write_text("place,region,machine,usd_per_hour\nsagemaker,,ml.g5.xlarge,0.5\n")
    for region in (None, "us-east-1", "eu-west-3"):
        found = [offer for offer in prices.offers("sagemaker", region) if offer.machine == "ml.g5.xlarge"]
        assert [(offer.usd_per_hour, offer.region) for offer in found] == [(0.5, region)]


def test_a_price_that_has_moved_far_step_by_step_is_believed(home):
    """Each step is held against the list price before it: not against the bundled one, nor the user's contract."""
    (home / "prices.csv").write_text("place,region,machine,usd_per_hour\nsagemaker,us-east-1,ml.g5.xlarge,0.2\n")
    for usd in (3.5, 6.0):
        step = GOOD._replace(usd_per_hour=usd)
        assert live.refresh("aws", "sagemaker", "us-east-1", lambda _, step=step: [step]).complaints == []
    (home / "prices.csv").unlink()
    book = prices.load()
    assert (book.complaints, book.prices[GOOD.key].usd_per_hour) == ((), 6.0)


def test_a_region_without_a_row_has_no_price():
    there = list(prices.offers("sagemaker", "eu-west-3"))
    assert len(there) > 30
    assert all(offer.usd_per_hour is None for offer in there)
    assert {offer.region for offer in there} == {"eu-west-3"}


@pytest.mark.parametrize(("text", "days"), [("2026-11-20", 4), ("2026-11", 23), ("2026", 327), ("2024-13", None)])
def test_ages_are_counted_from_the_first_day_a_date_can_mean(text, days):
    assert prices.age_days(text, date(2026, 11, 24)) == days


texts = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "0", "-1", "nan", "inf", "1e99", "1.5", "live", "free", "2026"])
)
keys = st.sampled_from([tuple(row) for row in prices.load().prices])


@given(st.lists(st.tuples(keys, texts, texts, texts, texts, texts), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_of_prices_ends_a_command_or_gives_a_machine_away(home, rows):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(prices.COLUMNS)
    writer.writerows([*key, *rest] for key, *rest in rows)
    prices.live_path().write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass")
    book = prices.load()
    assert len(book.prices) >= 80
    for price in book.prices.values():
        gpus = hardware.machines()[price.place, price.machine].gpus
        for usd in (price.usd_per_hour, price.usd_per_hour_spot):
            assert usd is None or prices.CHEAPEST * gpus <= usd <= prices.DEAREST * gpus


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_in_the_place_of_prices_end_a_command(home, content):
    prices.user_path().write_bytes(content)
    assert len(prices.load().prices) >= 80


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA A10G", "A10G"),
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
    ],
)
def test_gpus_by_the_drivers_names(told, name):
    assert hardware.gpu(told).name == name


def test_every_machine_has_a_gpu_of_the_table():
    assert all(hardware.gpu(machine.gpu) for machine in hardware.machines().values())
    assert hardware.gpu("Radeon") is None
    assert hardware.matches("A100", "A100-80GB")
    assert hardware.matches("nvidia a10g", "A10G")
    assert not hardware.matches("A10", "A100-40GB")


SEVERAL = {
    **dict.fromkeys(("ml.g4dn.12xlarge", "ml.g5.12xlarge", "ml.g5.24xlarge", "ml.g6.12xlarge", "ml.g6.24xlarge"), 4),
    **dict.fromkeys(("ml.g6e.12xlarge", "ml.g6e.24xlarge", "g2-standard-48"), 4),
    **dict.fromkeys(("ml.g5.48xlarge", "ml.g6.48xlarge", "ml.g6e.48xlarge", "ml.p4d.24xlarge", "ml.p4de.24xlarge"), 8),
    **dict.fromkeys(("ml.p5.48xlarge", "g2-standard-96", "a3-highgpu-8g"), 8),
    **{f"a2-{kind}gpu-{count}g": count for kind in ("high", "ultra") for count in (2, 4, 8)},
    **dict.fromkeys(("Standard_NC64as_T4_v3", "Standard_NC96ads_A100_v4"), 4),
    **dict.fromkeys(("Standard_ND96amsr_A100_v4", "Standard_ND96asr_v4", "Standard_ND96isr_H100_v5"), 8),
    **dict.fromkeys(("g2-standard-24", "Standard_NC48ads_A100_v4", "Standard_NC80adis_H100_v5"), 2),
    "Standard_NV72ads_A10_v5": 2,
}
"""Machines with more than one GPU, by the services' pages of their machines, read apart from the published prices."""


def test_the_machines_gpus_are_counted_as_their_makers_count_them():
    found = {machine.name: machine.gpus for machine in hardware.machines().values()}
    assert {name: count for name, count in found.items() if count != 1} == SEVERAL
