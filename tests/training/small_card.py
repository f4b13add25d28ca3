"""``python -m training_image`` on a card with three megabytes left, as the choice between whole and sharded sees it."""

from __future__ import annotations

import sys
from unittest.mock import patch

from training_image.__main__ import main

if __name__ == "__main__":
    with patch("training_image.sharding.free_bytes", return_value=3e6):
        sys.exit(main())
