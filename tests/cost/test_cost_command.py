"""``ftlaunch cost`` as a user runs it: offline, quick, in one order, in every form."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from datetime import date

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import prices
from backends.interface import Offer
from launcher.cost import compare, tables
from scripts.price_snapshot import ROOT
from tests.cost.conftest import Case
from tests.launcher.conftest import Command, ftlaunch  # noqa: F401
from tests.launcher.test_light import best, cpu_seconds, loaded, slowness

DEFINITIONS = ROOT / "examples" / "definitions"
BILLED = {"sagemaker", "vertex", "azureml", "colab", "colab-enterprise"}


@pytest.fixture
def llama(ftlaunch: Command):
    """A job for Llama-3.1-8B with 5,000 rows."""
    folder = ftlaunch.folder / "llama"
    folder.mkdir()
    rows = ({"prompt": f"{n}: " + "What is it? " * 20, "completion": "It is this. " * 12} for n in range(5000))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {"model": {"id": "meta-llama/Llama-3.1-8B"}, "data": {"train": "rows.jsonl"}, "task": {"type": "instruction"}}
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job))
    return folder


def offline(ftlaunch: Command) -> Command:
    """Without credentials or a way out."""
    for name in list(ftlaunch.environment):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "HF_")):
            del ftlaunch.environment[name]
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HOME": str(ftlaunch.home)}
    ftlaunch.environment |= nowhere | {"HF_HOME": str(ftlaunch.home / "hub")}
    return ftlaunch


def test_both_jobs_offline_below_a_second_without_a_framework(ftlaunch, llama):
    offline(ftlaunch)
    for job in (str(DEFINITIONS), str(llama)):
        found = loaded(ftlaunch, "cost", job, "--json")
        assert not found & {"torch", "transformers", "numpy", "boto3", "proto", "azure", "docker", "matplotlib"}
        assert best(lambda job=job: cpu_seconds("cost", job, environment=ftlaunch.environment), 3) < slowness()
        told = ftlaunch.json("cost", job)
        machines = {(offer["backend"], offer["machine"]) for offer in told["offers"]}
        assert len(machines) >= 40
        assert {place for place, _ in machines} >= BILLED | {"local"}
        assert told["recommended"]["why"]
        assert told["as_of"] >= "2026-09-27"


def test_it_opens_no_connection_and_starts_no_process(ftlaunch):
    trace = (
        "import sys\n"
        "def hook(event, values):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'subprocess.Popen', 'os.system', 'os.exec'):\n"
        "        raise SystemExit(f'{event} {values}')\n"
        "sys.addaudithook(hook)\n"
        "from launcher.cli import call\n"
        f"sys.exit(call(['cost', {str(DEFINITIONS)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", trace], env=ftlaunch.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_order_priced_then_unknown_then_without_a_bill(ftlaunch, llama):
    offers = ftlaunch.json("cost", llama)["offers"]
    block = [2 if each["price"]["kind"] == "free" else 1 if each["total_usd"] is None else 0 for each in offers]
    assert block == sorted(block)
    assert set(block) == {0, 1, 2}
    totals = [each["total_usd"]["expected"] for each in offers if each["total_usd"]]
    assert totals == sorted(totals)
    for each in offers:
        if each["total_usd"]:
            assert 0 < each["total_usd"]["low"] <= each["total_usd"]["expected"] <= each["total_usd"]["high"]
        assert set(each["hours"]) == {"train", "overhead", "wait"}
        assert each["fit"]["verdict"] in ("fits", "tight", "no", "?")
    assert {each["backend"] for each in offers if each["price"]["kind"] == "free"} >= {"local", "colab"}


def test_the_table_says_what_a_reader_must_know(ftlaunch, llama):
    text = ftlaunch("cost", llama).stdout
    for words in ("price not known", "without a bill", "recommended:", "older than 30 days", "not guaranteed", "?"):
        assert words in text
    assert "bytes each" in text  # that the tokens were not counted by a tokenizer
    assert "nine of ten" in text
    assert "cannot be used for GPUs" in text  # credits are named for what they are


def test_filters(ftlaunch, llama):
    def offers(*options: str) -> list:
        return ftlaunch.json("cost", llama, *options)["offers"]

    assert {each["backend"] for each in offers("--backend", "vertex")} == {"vertex"}
    assert {each["gpu"] for each in offers("--gpu", "A100")} == {"A100-40GB", "A100-80GB"}
    assert all(
        each["total_usd"]["expected"] <= 2 for each in offers("--max-usd", "2") if each["price"]["kind"] != "free"
    )
    quick = offers("--max-hours", "1")
    assert quick
    assert all(sum([each["hours"]["train"]["expected"], each["hours"]["overhead"]]) <= 1 for each in quick)
    there = offers("--region", "eu-west-1", "--backend", "sagemaker")
    assert there
    assert all(each["total_usd"] is None and each["region"] == "eu-west-1" for each in there)
    spot = offers("--spot")
    first, *rest = (each["spot_usd"]["expected"] for each in spot)
    assert rest == sorted(rest)
    assert len(spot[0]["price"]["as_of"]) > len("2024")  # a price of some year is not first, cheap as it may be
    assert f"at {first:.2f} dollars" in (text := ftlaunch("cost", llama, "--spot").stdout) or f": {first:.2f}" in text
    assert "on spot" in text
    assert "nowhere" in ftlaunch("cost", llama, "--backend", "nowhere", code=2).stderr
    assert "T800" in ftlaunch("cost", llama, "--gpu", "T800", code=2).stderr
    assert "region 'us-eats-1'; there are" in ftlaunch("cost", llama, "--region", "us-eats-1").stderr


def test_markdown_csv_and_picture(ftlaunch, llama):
    markdown = ftlaunch("cost", llama, "--markdown").stdout
    assert markdown.count("| ---") >= 3
    assert "**Recommended:**" in markdown
    for words in ("not guaranteed", "bytes each", "prices as of", "older than 30 days", "cannot be used for GPUs"):
        assert words in markdown
    rows = list(csv.DictReader(io.StringIO(ftlaunch("cost", llama, "--csv").stdout)))
    assert len(rows) >= 40
    assert float(rows[0]["total_usd_low"]) < float(rows[0]["total_usd_high"])
    assert "bytes each" in rows[0]["tokens"]
    assert any("not guaranteed" in row["limits"] for row in rows)
    picture = ftlaunch.folder / "cost.svg"
    ftlaunch("cost", llama, "--csv", "--plot", picture)
    assert picture.read_text().count("<use") > 20
    assert "exclude" in ftlaunch("cost", llama, "--csv", "--json", code=2).stderr
    assert ".svg" in ftlaunch("cost", llama, "--plot", "cost.doc", code=2).stderr


def test_tokens_are_counted_by_the_tokenizer_where_it_is_and_only_once(ftlaunch):
    folder = ftlaunch.folder / "tiny"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(
        "".join(f'{{"text": "a bird number {n}", "label": "x{n % 2}"}}\n' for n in range(40))
    )
    model = ROOT / "tests" / "tiny_model" / "model"
    job = {"model": {"id": str(model)}, "data": {"train": "rows.jsonl"}, "task": {"type": "classification"}}
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job))
    assert "counted by the model's tokenizer" in ftlaunch("cost", folder).stdout
    (kept,) = (ftlaunch.home / "counts").glob("*.json")
    before = kept.stat().st_mtime_ns
    ftlaunch("cost", folder, "--set", "train.epochs=9")
    assert kept.stat().st_mtime_ns == before
    (folder / "rows.jsonl").write_text((folder / "rows.jsonl").read_text() * 2)
    ftlaunch("cost", folder)
    assert len(list((ftlaunch.home / "counts").glob("*.json"))) == 2


def test_a_broken_price_file_is_named_and_does_no_harm(ftlaunch, llama):
    ftlaunch.home.mkdir(exist_ok=True)
    (ftlaunch.home / "prices.csv").write_text(
        "place,region,machine,usd_per_hour\nsagemaker,us-east-1,ml.p5.48xlarge,0\nvertex,us-central1,g2-standard-4,0.5\n"
    )
    done = ftlaunch("cost", llama, "--json")
    assert "ml.p5.48xlarge" in done.stderr
    offers = {f"{each['backend']} {each['machine']}": each["price"] for each in json.loads(done.stdout)["offers"]}
    assert offers["sagemaker ml.p5.48xlarge"]["usd_per_hour"] == 63.296
    assert (offers["vertex g2-standard-4"]["usd_per_hour"], offers["vertex g2-standard-4"]["kind"]) == (0.5, "user")


def test_no_unknown_price_is_first_or_recommended():
    unknown = Case(place="colab-enterprise", machine="g2-standard-8").row()
    dear = Case(machine="ml.p5.48xlarge").row()
    assert compare.order([unknown, dear])[0] is dear
    assert compare.recommend([unknown, dear])[0] is dear
    assert compare.recommend([unknown]) is None
    assert "no price of these machines is known" in tables.recommended([unknown])
    large = Case(place="colab-enterprise", machine="g2-standard-8", model="meta-llama/Llama-3.1-70B").row()
    assert "fits on none" in tables.recommended([large])


odd = st.sampled_from([None, 0.0, -1.0, 1e-9, 1e9, float("nan"), float("inf"), 700.0])
dates = st.sampled_from(["", "2019", "2024-01", "soon", "2026-13-40", "3000-01-01"])


@given(st.lists(st.tuples(odd, odd, dates), max_size=6), st.randoms())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_zero_missing_stale_or_absurd_price_never_ranks_first(made, shuffle):
    """Whatever a plug-in's place offers, beside one dear machine with a believed price of this year."""
    sound = Case(machine="ml.p5.48xlarge").row()
    today = sound.offer.model_copy(update={"as_of": date.today().isoformat()})
    sound = replace(sound, offer=today)
    rows = [sound]
    for usd, spot, day in made:
        change = {"backend": "plugin", "usd_per_hour": usd, "usd_per_hour_spot": spot, "as_of": day}
        rows.append(replace(sound, offer=sound.offer.model_copy(update=change)))
    old = sound.offer.model_copy(update={"usd_per_hour": 20.0, "usd_per_hour_spot": 1.0, "as_of": "2024"})
    rows.append(replace(sound, offer=old))
    shuffle.shuffle(rows)
    for on_spot in (False, True):
        ordered = compare.order(rows, on_spot)
        assert ordered[0] is sound
        assert compare.recommend(rows, on_spot)[0] is sound
        document = compare.document(ordered, on_spot)
        assert len(document["offers"]) == len(rows)
    for row in ordered:
        tables.cells(row)


def test_a_place_without_a_bill_is_recommended_only_where_it_is_quick():
    rented = Case(model="Qwen/Qwen2.5-0.5B").row()
    assert rented.total is not None
    here = Offer(
        backend="local", machine="this machine", region=None, gpu="NVIDIA A10G", gpu_count=1, usd_per_hour=None,
        kind="free", as_of="", source="no bill",
    )  # fmt: skip

    class Here(Case):
        def offer(self):
            return here

    assert compare.recommend([rented, Here(model="Qwen/Qwen2.5-0.5B").row()])[0].offer is here
    assert compare.recommend([rented, Here(model="Qwen/Qwen2.5-0.5B", rows=200_000).row()])[0] is rented


def test_prices_of_every_billed_place_are_there():
    assert set(prices.places()) == BILLED


def test_a_plug_in_without_offers_is_named_and_stops_nobody(ftlaunch, llama):
    told = ftlaunch("cost", llama, "--json", BILLED_USD="dear")
    assert "billed gave no offers" in told.stderr
    assert len(json.loads(told.stdout)["offers"]) >= 40
