"""Stands in for what Colab's own page offers to a notebook: the user's secrets and Drive, and a download."""
