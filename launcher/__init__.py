"""What runs on the user's machine."""
