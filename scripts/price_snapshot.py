"""Makes the bundled tables ``backends/prices.csv`` and ``backends/hardware.csv`` of published prices.

Usage: python -m scripts.price_snapshot [PUBLISHED.csv]. Each row is either taken over or left out for a reason that is
printed; a row of neither kind ends the script, so that nothing comes in unseen.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "scripts" / "published" / "prices.csv"
PRICES = ROOT / "backends" / "prices.csv"
HARDWARE = ROOT / "backends" / "hardware.csv"

Row = dict[str, str]
VERTEX_RATE = 1.15
"""Vertex training SKUs over Compute Engine's: a billed H100 was 11.2660332 = 1.15 x 9.796550569."""

LEFT_OUT: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("ml.p3 is retired: the price list has no on-demand rate any more", lambda r: r["instance"].startswith("ml.p3.")),
    ("Azure's NCv3 series was retired in September 2025", lambda r: r["instance"] == "Standard_NC6s_v3"),
    ("said to be us-west-2, but its usage type USE1 is us-east-1's", lambda r: "USE1-" in r["source"]),
    ("rounded from the exact list price, which another row has", lambda r: _rounded(r)),
    ("not a place of ours; Vertex's rate is derived from it", lambda r: r["service"] == "compute-engine"),
    ("Flex-start is a queue of its own, neither on demand nor spot", lambda r: "Flex-start" in r["instance"]),
    ("the region is not told", lambda r: "unspecified" in r["region"]),
    ("a3-highgpu with 1, 2 or 4 GPUs is not sold on demand, whatever its SKUs add up to", lambda r: _not_sold(r)),
    ("an older reading of the same row is superseded", lambda r: _superseded(r)),
    ("no GPU", lambda r: not r["gpu"]),
)
EXACT = (
    ("ml.g5.xlarge", "1.408"),
    ("ml.g5.2xlarge", "1.515"),
)
"""us-east-1 on-demand rates of SageMaker training, by the Price List API (component Training, usage type USE1-Train);
the list page rounds them to 1.41 and 1.52."""
NEWER_COLAB = {"T4 @ 1.19 CU/h": "T4 @ ~1.07 CU/h", "G4 (RTX PRO 6000) @ 8.71 CU/h": "G4 @ ~8.9 CU/h"}
COLAB = {"T4": "T4", "L4": "L4", "A100-40GB": "A100", "A100-80GB": "A100-80GB", "G4": "G4", "H100": "H100"}
"""Colab's rows by the beginning of their name; the machine is named as Colab's own tool names it."""
GPUS = {"A100-80GB (High-RAM)": "A100-80GB", "G4 (RTX PRO 6000)": "RTX-PRO-6000"}
PLACES = {
    "sagemaker-training": "sagemaker",
    "vertex-custom-training": "vertex",
    "azureml": "azureml",
    "vm (=azureml rate)": "azureml",
    "colab-payg": "colab",
    "colab-free": "colab",
}
ENTERPRISE = ("n1-standard-4+1xT4", "n1-standard-8+1xT4", "g2-standard-4", "g2-standard-8", "g2-standard-12")
ENTERPRISE_LARGE = ("g2-standard-24", "a2-highgpu-1g", "a2-ultragpu-1g")
"""Machines of Colab Enterprise's runtimes. Its rates were not found anywhere: unknown, not zero."""


def main() -> None:
    """Write both tables and tell what was left out."""
    published = Path(sys.argv[1]) if len(sys.argv) > 1 else PUBLISHED
    prices, hardware, left_out = tables(_read(published))
    _write(PRICES, prices)
    _write(HARDWARE, hardware)
    print(f"{len(prices)} prices of {len(hardware)} machines")
    for reason, count in left_out.most_common():
        print(f"left out {count}: {reason}")


def tables(rows: list[Row]) -> tuple[list[Row], list[Row], Counter[str]]:
    """Prices, hardware, and how many rows were left out for which reason. Raises ValueError for what is doubtful."""
    prices: dict[tuple[str, str, str], Row] = {}
    hardware: dict[tuple[str, str], Row] = {}
    left_out: Counter[str] = Counter()
    _check_derivation(rows)
    for row in rows:
        reason = next((reason for reason, applies in LEFT_OUT if applies(row)), None)
        if _rounded(row):
            hardware["sagemaker", row["instance"]] = _machine(row, _price(row))
        if reason:
            left_out[reason] += 1
            continue
        made = _price(row)
        key = (made["place"], made["region"], made["machine"])
        if key in prices and prices[key]["as_of"] >= made["as_of"]:
            raise ValueError(f"two rows for {key}")
        prices[key] = made
        hardware.setdefault(key[::2], _machine(row, made))
    for made in (*_exact(), *_spot_only(rows), *_enterprise(hardware)):
        prices[made["place"], made["region"], made["machine"]] = made
    hardware |= {("vertex", "a3-highgpu-1g"): _hardware("vertex", "a3-highgpu-1g", "H100-80GB", "1", "26", "234")}
    for name in (*ENTERPRISE, *ENTERPRISE_LARGE):
        hardware["colab-enterprise", name] = hardware["vertex", name] | {"place": "colab-enterprise"}
    return list(prices.values()), list(hardware.values()), left_out


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [row["place"], *list(row.values())[1:3]]))


def _rounded(row: Row) -> bool:
    return row["region"] == "us-east-1" and any(row["instance"] == name for name, _ in EXACT)


def _superseded(row: Row) -> bool:
    """Azure's newer reading (commit 098741e) has the same machines, two of Colab's were read again in September, and a
    bill of 2025 bears out the derived rate of 2026."""
    again = {"NC8as_T4_v3", "NC64as_T4_v3", "NC96ads_A100_v4", "ND96asr_v4", "ND96amsr_A100_v4"}
    again |= {"ND96isr_H100_v5", "NC80adis_H100_v5"}
    older = "a7fff17" in row["date"] and row["instance"].removeprefix("Standard_") in again
    return older or row["instance"] in NEWER_COLAB or "billed SKUs" in row["instance"]


def _not_sold(row: Row) -> bool:
    small = re.fullmatch(r"a3-highgpu-[124]g", row["instance"]) is not None
    return small and row["service"] == "vertex-custom-training"


def _check_derivation(rows: Iterable[Row]) -> None:
    """Vertex's derived rates are Compute Engine's times 1.15, or the published row is wrong."""
    rows = list(rows)
    derived_from = [r for r in rows if r["service"] == "compute-engine" and r["date"] == "2025-04..2026-02"]
    base = {r["instance"]: float(r["usd_per_hour_ondemand"]) for r in derived_from}
    for row in rows:
        if row["service"] == "vertex-custom-training" and row["date"] == "derived 2026":
            wanted = VERTEX_RATE * base[row["instance"]]
            if abs(float(row["usd_per_hour_ondemand"]) - wanted) > 2e-6 * wanted:
                raise ValueError(f"not {VERTEX_RATE} times Compute Engine's rate: {row}")


def _price(row: Row) -> Row:
    place = PLACES[row["service"]]
    machine = row["instance"]
    if row["service"] == "colab-free":
        machine = "T4 (free)"
    elif place == "colab":
        machine = COLAB[machine.split(" ")[0]]
    kind = "free" if row["service"] == "colab-free" else "derived" if row["date"].startswith("derived") else "snapshot"
    return {
        "place": place,
        "region": "" if row["region"] == "n/a" else row["region"],
        "machine": machine,
        "usd_per_hour": "" if kind == "free" else row["usd_per_hour_ondemand"],
        "usd_per_hour_spot": row["usd_per_hour_spot"],
        "kind": kind,
        "as_of": _as_of(row["date"]),
        "source": _source(row),
    }


def _as_of(date: str) -> str:
    """ISO 8601, to the precision that the source tells: the day, the month or the year."""
    if date.startswith("derived"):
        return "2026-02-24"  # the Compute Engine SKUs that the rate is derived from
    found = re.match(r"(?:c\. )?(\d{4}(?:-\d\d(?!\d)(?:-\d\d)?)?)", date)
    if found is None:
        raise ValueError(f"no date: {date!r}")
    return found[1] if not date.startswith("c.") else found[1][:4]


def _source(row: Row) -> str:
    text = row["source"]
    if PLACES[row["service"]] == "azureml" and row["usd_per_hour_spot"]:
        text += "; the spot meter is that of VM Spot, low-priority clusters have one of their own"
    if "a2-ultragpu" in row["instance"]:
        text += "; without the local SSDs that come with it"
    if "A10_v5" in row["instance"] and "NV36" in row["instance"]:
        text += "; 3.20 was seen again in March 2026, region not told"
    return text


def _machine(row: Row, made: Row) -> Row:
    gpu = GPUS.get(row["gpu"], row["gpu"])
    return _hardware(made["place"], made["machine"], gpu, row["gpu_count"], row["vcpus"], row["ram_gib"])


def _hardware(place: str, machine: str, gpu: str, gpus: str, vcpus: str, ram: str) -> Row:
    return {"place": place, "machine": machine, "gpu": gpu, "gpus": gpus, "vcpus": vcpus, "ram_gib": ram}


def _exact() -> list[Row]:
    source = "AWS Price List API, us-east-1, component Training; the list page shows it rounded"
    return [
        {
            "place": "sagemaker",
            "region": "us-east-1",
            "machine": machine,
            "usd_per_hour": usd,
            "usd_per_hour_spot": "",
            "kind": "snapshot",
            "as_of": "2026-09-27",
            "source": source,
        }
        for machine, usd in EXACT
    ]


def _spot_only(rows: list[Row]) -> list[Row]:
    """a3-highgpu-1g is sold as spot (and Flex-start) alone; Vertex's rate for it is inferred."""
    spot = next(
        float(row["usd_per_hour_spot"])
        for row in rows
        if row["instance"] == "a3-highgpu-1g" and row["usd_per_hour_spot"]
    )
    return [
        {
            "place": "vertex",
            "region": "us-central1",
            "machine": "a3-highgpu-1g",
            "usd_per_hour": "",
            "usd_per_hour_spot": f"{VERTEX_RATE * spot:.4f}",
            "kind": "derived",
            "as_of": "2026-09-26",
            "source": "Compute Engine spot SKUs x 1.15 (that spot bills so is inferred); not sold on demand",
        }
    ]


def _enterprise(hardware: dict[tuple[str, str], Row]) -> list[Row]:
    return [
        {
            "place": "colab-enterprise",
            "region": "us-central1",
            "machine": machine,
            "usd_per_hour": "",
            "usd_per_hour_spot": "",
            "kind": "snapshot",
            "as_of": "2026-11",
            "source": "no published rate of Colab Enterprise was found",
        }
        for machine in (*ENTERPRISE, *ENTERPRISE_LARGE)
        if ("vertex", machine) in hardware
    ]


if __name__ == "__main__":
    main()
