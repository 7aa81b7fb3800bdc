"""How fast, measured: one module a question, each runnable by itself.

`python -m benchmarks` (that is `make bench`) runs all of them and writes `RESULTS.md`.
"""
