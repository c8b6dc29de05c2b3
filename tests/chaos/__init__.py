"""Chaos: a real service of real processes over a real store, killed by a seeded plan, and a checker of its history.

`python -m tests.chaos --help`. `plan` says which fault comes after how many jobs, `faults` does it to `cluster` and
`store`, `load` submits and watches, `checker` judges what was seen and what the bucket holds, `report` tells it.
"""
