"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import GROUPS

if TYPE_CHECKING:
    from benchmarks.cases import Case

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Speed, memory and accuracy beside others.")
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS), help="run these groups")
    parser.add_argument("--filter", metavar="NAME", default="", help="run the cases whose name contains NAME")
    parser.add_argument("--quick", action="store_true", help="small inputs and few repetitions, to see that all works")
    parser.add_argument("--no-peers", action="store_true", help="measure dasp alone")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of every library that has them (with --quick: 1)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures, machine and versions to PATH")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--list", action="store_true", help="print the cases and who takes part, and stop")
    parser.add_argument(
        "--guard",
        type=Path,
        nargs="?",
        const=Path(__file__).parent / "guard.json",
        metavar="FILE",
        help="compare the speed of the hot loops, beside a copy and scipy, with FILE (benchmarks/guard.json)",
    )
    parser.add_argument("--update", action="store_true", help="with --guard: write FILE")
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help='measure two commits in turns; "." is the working tree',
    )
    parsed = parser.parse_args(arguments)
    if parsed.update and parsed.guard is None:
        parser.error("--update is for --guard")
    if parsed.guard is not None:
        parsed.threads = 1  # Ratios of one thread do not depend on the number of cores.
    if parsed.threads is not None and parsed.threads < 1:
        parser.error(f"--threads is {parsed.threads}, expected at least 1")
    if parsed.quick and parsed.threads is None:
        # On short audio, threads cost more than they bring, and very much more on a busy machine.
        parsed.threads = 1
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks; returns the exit status."""
    options = _arguments(arguments)
    if options.threads is not None:
        # Read when the libraries are imported, which is why they are not imported above.
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(options.threads)))

    import torch

    from benchmarks import cases, compare, guard, peers

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.guard is not None:
        return guard.main(options.guard, options.filter, options.update)
    chosen = [
        case for case in cases.cases(options.quick) if case.group in options.group and options.filter in case.name
    ]
    if not chosen:
        print(f"no case has {options.filter!r} in its name; --list prints them all", file=sys.stderr)
        return 2
    if options.list:
        for case in chosen:
            libraries = ", ".join([cases.OURS, *(() if case.points else peers.names(case.subject))])
            print(f"{case.group:<11}{case.name:<25}{'x'.join(map(str, case.shape)):<16}{libraries}")
        return 0
    if options.compare is not None:
        names = [case.name for case in chosen if not case.sweep and not case.points]
        return compare.main(*options.compare, names, options.quick)
    return _measure(options, chosen)


def _measure(options: argparse.Namespace, chosen: Sequence[Case]) -> int:
    """Runs cases beside the peers, and prints and writes what was found; returns the exit status."""
    from benchmarks import cases, peers, report, tables, targets
    from benchmarks.run import run

    start = time.perf_counter()
    environment = report.environment()
    found_peers = [] if options.no_peers else peers.load()
    gc.freeze()  # What the imports made is no garbage, and looking through it before each measurement takes long.
    rows = []
    for number, case in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {case.name}", file=sys.stderr, flush=True)
        rows += run(case, found_peers, options.quick)
    seconds = time.perf_counter() - start

    found = targets.verdicts(targets.Results(rows, found_peers), options.quick)
    called = {name: getattr(options, name) for name in ("group", "filter", "quick", "no_peers", "threads")}
    content = report.document(rows, found, found_peers, environment, {**called, "seconds": round(seconds, 1)})
    print("\n\n".join(table.markdown() for table in tables.every(content)), "\n")
    for number, note in enumerate(tables.notes(content), 1):
        print(f"[{number}] {note}")
    print(f"{seconds:.0f} s")
    if options.json is not None:
        report.write_json(options.json, content)
    failed = any(row.library == cases.OURS and row.failed for row in rows)
    return 1 if failed or (options.check and targets.missed(found)) else 0


if __name__ == "__main__":
    sys.exit(main())
