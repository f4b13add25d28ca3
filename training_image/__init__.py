"""What runs inside the container; stands alone there."""
