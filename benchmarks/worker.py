"""One side of a comparison: measures what `benchmarks.compare` asks for, a line of JSON at a time.

The parent puts the folder with the `dasp` to measure on the module path, and gives it as the argument.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import dasp
from benchmarks import cases
from benchmarks.measure import Call, Plan, no_collection, plan
from benchmarks.run import ours

_BUDGET_S = 0.05


class Worker:
    """Holds the calls of the case that is being measured."""

    def __init__(self, quick: bool) -> None:
        self._cases = {case.name: case for case in cases.cases(quick)}
        self._planned: dict[str, tuple[Call, Plan]] = {}

    def prepare(self, case: str) -> list[str]:
        """Makes the calls of a case and plans their measurement; returns what can be measured."""
        self._planned.clear()
        chosen = self._cases[case]
        (inputs,) = chosen.make(chosen.shape)
        subject = ours(chosen, inputs)
        for name, call in (("fwd", subject.forward), ("fwd+bwd", subject.backward)):
            if call is not None:
                call()
                self._planned[name] = call, plan(call, _BUDGET_S, least=1)
        return list(self._planned)

    def measure(self, what: str) -> float:
        """The median of the seconds of one call, over the measurements of one turn."""
        call, planned = self._planned[what]
        with no_collection():
            durations = sorted(planned.measure(call) for _ in range(planned.repeats))
        return durations[len(durations) // 2]


def serve(handlers: dict[str, Callable[[str], Any]], requests: TextIO, replies: TextIO) -> None:
    """Answers `[verb, argument]` with `[true, result]`, or `[false, text]` for an error, until the requests end."""
    for line in requests:
        verb, argument = json.loads(line)
        try:
            reply = [True, handlers[verb](argument)]
        except Exception as error:  # The parent says which case this was.
            reply = [False, f"{type(error).__name__}: {error}".splitlines()[0]]
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Serves the parent, on a copy of the standard output that no library prints to."""
    folder, quick = Path(sys.argv[1]).resolve(), sys.argv[2] == "quick"
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        if folder not in Path(dasp.__file__).resolve().parents:
            raise SystemExit(f"dasp is imported from elsewhere than {folder}")
        worker = Worker(quick)
        serve({"prepare": worker.prepare, "measure": worker.measure}, sys.stdin, replies)


if __name__ == "__main__":
    main()
