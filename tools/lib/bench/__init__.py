"""Benchmarks of the numbers in SPECIFICATION.md."""
