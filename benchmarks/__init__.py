"""Benchmarks: each prints ratios against a named alternative that runs beside it; none is a test."""
