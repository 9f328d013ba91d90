"""Benchmarks in one form: ``python -m tests.benchmarks NAME [--quick] [--json FILE]``.

A module here named ``NAME.py`` with a coroutine ``measure(quick: bool) -> Sequence[Row]`` is the benchmark NAME; the
first line of its docstring says what it measures. Peers are measured in the same run, next to what they are compared
with; figures are medians of several runs (:func:`tests.benchmarks.harness.repeat`).
"""
