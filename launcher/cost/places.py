"""What each place needs around the training: until it starts, until the script runs, and what of it is on the bill.

Seconds as (least, expected, most); where nothing was published for a place its numbers are assumptions, and said so.
"""

from __future__ import annotations

from typing import NamedTuple

Range = tuple[float, float, float]
"""Least, expected and most: a range that holds in nine of ten cases."""


class Place(NamedTuple):
    """One place."""

    wait: Range
    """Unbilled: from submit to the machine. Capacity and quota may make it endless, which no number says."""
    around: Range
    """Billed seconds beside model, data and training: image, start, install, upload of the results."""
    hub: float
    """Bytes a second at which the base model comes, an assumption everywhere; 0: it is on the machine."""
    limits: str
    """What a place without a bill cannot promise."""
    source: str


SAGEMAKER = "AWS's own sample estimator takes 8 minutes a job, 40 % either way; waits: published logs"
GUESS = "assumed: nothing was published"

PLACES: dict[str, Place] = {
    "sagemaker": Place((60, 100, 600), (210, 390, 600), 2e8, "", SAGEMAKER),
    "vertex": Place((60, 180, 1200), (120, 330, 780), 2e8, "", GUESS + "; waits of 15 to 22 minutes were seen"),
    "azureml": Place(
        (180, 240, 900), (240, 480, 960), 2e8, "", GUESS + "; idle nodes are billed until they are let go"
    ),
    "colab": Place((20, 60, 600), (120, 240, 600), 1.5e8, "", GUESS),
    "colab-enterprise": Place((60, 180, 900), (150, 300, 720), 2e8, "", GUESS),
    "docker": Place((0, 0, 0), (10, 25, 90), 2e7, "this machine's own GPU or processor", GUESS),
    "local": Place((0, 0, 0), (5, 12, 40), 2e7, "this machine's own GPU or processor", GUESS),
}
UNKNOWN = Place((0, 300, 1800), (120, 480, 1200), 1e8, "", GUESS)
"""A plug-in's place."""
FREE_LIMITS = {
    "T4 (free)": "not guaranteed, may end at any time, no background runs; Colab's terms of service apply",
}
"""Machines without a bill at a place that bills others."""
CREDITS = (
    "New AWS accounts (since 2025-07-15) get up to 200 dollars of credits; older ones had 50 hours of m4 or m5.xlarge "
    "training, without a GPU.",
    "Google Cloud's 300 dollars for 90 days cannot be used for GPUs; Azure's 200 dollars come with a GPU quota of 0.",
)
"""What is called free and is not a free GPU."""


def place(name: str) -> Place:
    """What is known of a place."""
    return PLACES.get(name, UNKNOWN)
