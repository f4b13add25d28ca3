"""Plays a service's contract on the engine here, so that the first paid minute is not spent on a typo."""
