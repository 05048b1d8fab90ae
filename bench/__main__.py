"""Runs benchmarks and prints a table: `python -m bench`, or `python -m bench appends …` for some.

A benchmark is a module of this package with `run()`, which gives Figures. One with `ON_DEMAND` takes minutes, and
runs only when it is named.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

import bench
from bench.figure import Figure


def find_benchmarks() -> dict[str, ModuleType]:
    """Every module that has `run`, by name."""
    modules = {
        info.name: importlib.import_module(f"bench.{info.name}")
        for info in pkgutil.iter_modules(bench.__path__)
        if info.name != "__main__"
    }
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def main(wanted: Sequence[str]) -> int:
    benchmarks = find_benchmarks()
    if unknown := [name for name in wanted if name not in benchmarks]:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(benchmarks)}", file=sys.stderr)
        return 2
    usual = [name for name, module in benchmarks.items() if not hasattr(module, "ON_DEMAND")]
    for name in wanted or usual:
        print(name, flush=True)
        run: Callable[[], Iterable[Figure]] = benchmarks[name].run
        for figure in run():
            print(f"  {figure.name:<70} {figure.value:>14,.1f} {figure.unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
