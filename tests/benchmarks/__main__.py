"""``python -m tests.benchmarks [NAME …] [--quick] [--json FILE]``: no name means all of them."""

import argparse
import asyncio
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import tests.benchmarks as package
from tests.benchmarks.harness import Row, machine, view, write


def names() -> Sequence[str]:
    """All benchmarks, in order of the alphabet; what begins with an underscore only serves them."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(name for name in modules - {"harness"} if not name.startswith("_"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table each, write the rows."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names()):
        parser.error(f"no benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(machine(), highlight=False)
    results: list[tuple[str, Sequence[Row]]] = []
    for name in options.names or names():
        rows: Sequence[Row] = asyncio.run(importlib.import_module(f"tests.benchmarks.{name}").measure(options.quick))
        results.append((name, rows))
        console.print(view(name, rows))
        if options.json is not None:  # after each: what is measured is kept, even where the next one fails
            write(options.json, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description="Measure foretag, peers beside it.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or several of: {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: a look, not a figure to report")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return parser


if __name__ == "__main__":
    main()
