"""Compares two commits in one run: each in a checkout and processes of its own, which measure in turns."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tables import Table

ROOT = Path(__file__).resolve().parents[1]
WORKING_TREE = "."

# New processes meet other memory addresses, on which the time of a call depends too.
_ROUNDS, _TURNS = 3, 5
_QUICK_ROUNDS, _QUICK_TURNS = 1, 3
# Two processes with the same code differ by about this much.
_LEAST_CHANGE = 0.03


class CompareError(Exception):
    """Why two commits cannot be compared."""


@dataclass
class Difference:
    """The seconds of one call, of A and of B, turn by turn.

    Attributes:
        case: The case.
        what: "fwd" or "fwd+bwd".
        a: Those of A.
        b: Those of B, each taken right after or before that of A.
    """

    case: str
    what: str
    a: list[float] = field(default_factory=list)
    b: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> tuple[float, float, float]:
        """How many times as long B takes: lower quartile, median and upper quartile over the turns."""
        low, median, high = statistics.quantiles(
            (b / a for a, b in zip(self.a, self.b, strict=True)), n=4, method="inclusive"
        )
        return low, median, high

    @property
    def verdict(self) -> str:
        """ "faster" or "slower" if B differs by more than the turns do, else ""."""
        low, median, high = self.ratios
        if abs(median - 1) < _LEAST_CHANGE or low <= 1 <= high:
            return ""
        return "slower" if median > 1 else "faster"


class Side:
    """A process that measures one of the two."""

    def __init__(self, folder: Path, suite: Path, quick: bool) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(suite), str(folder)])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", str(folder), "quick" if quick else "full"],
            cwd=suite,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # An interrupt from the keyboard is for the parent, which ends the process.
        )

    def ask(self, verb: str, argument: str) -> Any:
        """The answer of the process.

        Raises:
            CompareError: If it has none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([verb, argument]) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise CompareError("a process ended, see above")
        done, answer = json.loads(line)
        if not done:
            raise CompareError(answer)
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise CompareError(result.stderr.strip() or f"git {arguments[0]} failed")
    return result.stdout.strip()


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """A folder with a commit and its kernels, while it lasts; the working tree stays where it is."""
    if commit == WORKING_TREE:
        build(ROOT)
        yield ROOT
        return
    try:
        _git("worktree", "add", "--detach", str(folder), _git("rev-parse", "--verify", f"{commit}^{{commit}}"))
        build(folder)
        yield folder
    finally:
        # Also what git was interrupted in making, which it leaves locked and does not remove.
        with contextlib.suppress(CompareError):
            _git("worktree", "unlock", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        _git("worktree", "prune")


def build(folder: Path) -> None:
    """Builds the C++ library of a checkout, unless it is newer than its sources."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise CompareError(f"the kernels cannot be built: {result.stderr.strip()[-1000:]}")


def compare(a: str, b: str, names: Sequence[str], quick: bool) -> tuple[list[Difference], list[str]]:
    """Measures the cases in both; returns the differences, and which cases could not be measured and why."""
    rounds, turns = (_QUICK_ROUNDS, _QUICK_TURNS) if quick else (_ROUNDS, _TURNS)
    found: dict[tuple[str, str], Difference] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dasp-compare-")))
        # Both sides are measured by this suite, which old commits do not have.
        suite = temporary / "suite"
        shutil.copytree(
            ROOT / "benchmarks", suite / "benchmarks", ignore=shutil.ignore_patterns("__pycache__", "results")
        )
        folders = [stack.enter_context(checkout(commit, temporary / name)) for name, commit in (("a", a), ("b", b))]
        for number in range(rounds):
            with ExitStack() as processes:
                sides = [Side(folder, suite, quick) for folder in folders]
                for side in sides:
                    processes.callback(side.close)
                for name in names:
                    print(f"[round {number + 1}/{rounds}] {name}", file=sys.stderr, flush=True)
                    if name not in failed:
                        try:
                            _take_turns(name, sides, turns, found)
                        except CompareError as error:
                            failed[name] = str(error)
    differences = [difference for difference in found.values() if difference.case not in failed]
    return differences, [f"{name} was not measured: {reason}" for name, reason in failed.items()]


def _take_turns(case: str, sides: Sequence[Side], turns: int, found: dict[tuple[str, str], Difference]) -> None:
    kinds = [side.ask("prepare", case) for side in sides]
    for what in kinds[0]:
        difference = found.setdefault((case, what), Difference(case, what))
        for turn in range(turns):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            seconds = {index: sides[index].ask("measure", what) for index in order}
            difference.a.append(seconds[0])
            difference.b.append(seconds[1])


def table(differences: Sequence[Difference]) -> Table:
    """The medians of both in microseconds, and how many times as long B takes, with its quartiles."""
    lines = []
    for difference in differences:
        low, median, high = difference.ratios
        times = [f"{1e6 * statistics.median(seconds):.4g}" for seconds in (difference.a, difference.b)]
        ratios = [f"{median:.3f}", f"{low:.3f}", f"{high:.3f}"]
        lines.append([difference.case, difference.what, *times, *ratios, difference.verdict])
    header = ("case", "call", "A", "B", "B/A", "low", "high", "status")
    return Table("microseconds per call, and how many times as long B takes", header, lines)


def main(a: str, b: str, names: Sequence[str], quick: bool) -> int:
    """Prints the comparison; returns the exit status."""
    # So that the worktrees are removed when the process is asked to end, too.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        differences, failed = compare(a, b, names, quick)
    except CompareError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"A is {a}, B is {b}\n\n{table(differences).markdown()}")
    for line in failed:
        print(line)
    changed = sum(bool(difference.verdict) for difference in differences)
    print(f"{changed} of {len(differences)} differ by more than their spread and {100 * _LEAST_CHANGE:.0f} %")
    return 1 if failed else 0
