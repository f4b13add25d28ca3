"""What the last step of a learning curve is said to mean."""

from __future__ import annotations

import pytest

from launcher.report.compare import Pair
from launcher.report.learning_curve import Point, _told

POINTS = [Point(50, 60, "half", 0.6, (0.5, 0.7)), Point(100, 120, "whole", 0.7, (0.6, 0.8))]


@pytest.mark.parametrize(
    ("difference", "ci95", "better", "higher", "helps", "words"),
    [
        (0.10, (0.04, 0.16), "whole", True, True, "More data would probably help: from 60 to 120 training rows"),
        (-0.10, (-0.16, -0.04), "half", True, False, "it got worse"),
        (0.00, (-0.01, 0.01), None, True, False, "would help little"),
        (0.03, (-0.03, 0.09), None, True, None, "is not clear"),
        (-0.50, (-0.90, -0.10), "whole", False, True, "More data would probably help"),
        (None, None, None, True, None, "cannot be told: other test rows"),
    ],
    ids=["helps", "harms", "little", "unclear", "a loss", "not paired"],
)
def test_what_more_data_would_do(difference, ci95, better, higher, helps, words):
    last = Pair("whole", "half", difference, ci95, better, "" if ci95 else "other test rows")
    more_helps, text = _told(last, POINTS, "macro_f1", higher)
    assert more_helps is helps
    assert words in text
