"""What runs inside the container; stands alone there."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # when imported it tells of kernels that it could fetch
