"""Measurements of speed, cost and memory: one module for each question.

`python -m benchmarks` (that is `make bench`) runs all of them and writes `RESULTS.md`.
"""
