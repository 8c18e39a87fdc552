"""What was measured, as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

import dasp
from benchmarks.cases import OURS, Case
from benchmarks.measure import Timing
from benchmarks.peers import Peer

SCHEMA = 1
"""Changes with the meaning of the JSON's fields."""


@dataclass(frozen=True)
class Row:
    """One library in one case.

    Attributes:
        case: The case.
        library: The library.
        forward: Time of a call without gradients.
        forward_backward: Time of a call with all gradients.
        memory_forward: Peak extra memory of a call without gradients, in bytes.
        memory_forward_backward: The same with all gradients.
        error_db: Largest error over largest value; over all inputs of a sweep the worst.
        median_error_db: For a sweep, the median.
        note: What to know of the row; "failed: ..." if there are no figures.
    """

    case: Case
    library: str
    forward: Timing | None = None
    forward_backward: Timing | None = None
    memory_forward: int | None = None
    memory_forward_backward: int | None = None
    error_db: float | None = None
    median_error_db: float | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether the library raised an error."""
        return self.note.startswith("failed: ")

    def record(self) -> dict[str, Any]:
        """The row as it stands in the JSON."""
        return {
            "case": self.case.name,
            "group": self.case.group,
            "shape": list(self.case.shape),
            "library": self.library,
            "forward_ns_per_sample": None if self.forward is None else asdict(self.forward),
            "forward_backward_ns_per_sample": None if self.forward_backward is None else asdict(self.forward_backward),
            "memory_forward_bytes": self.memory_forward,
            "memory_forward_backward_bytes": self.memory_forward_backward,
            "error_db": _finite(self.error_db),
            "median_error_db": _finite(self.median_error_db),
            "note": self.note,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Target:
    """A figure that the project sets itself.

    Attributes:
        text: What it is about.
        case: The case it is read from.
        peer: For a ratio, the library that dasp must be faster than.
        at_least: The lowest ratio of times of forward and backward.
        at_most_db: For an error, the highest.
    """

    text: str
    case: str
    peer: str = ""
    at_least: float = math.nan
    at_most_db: float = math.nan


TARGETS = (
    Target("six-band equaliser, forward and backward, beside dasp-pytorch", "parametric_eq", "dasp-pytorch", 15),
    Target("compressor, forward and backward, beside dasp-pytorch", "compressor", "dasp-pytorch", 5),
    Target("noise reverb, forward and backward, beside dasp-pytorch", "noise_shaped_reverb", "dasp-pytorch", 200),
    Target("error of sosfilt, 8 to 192 kHz", "sosfilt_accuracy", at_most_db=-140),
    Target("error of parametric_eq, 8 to 192 kHz", "parametric_eq_accuracy", at_most_db=-140),
)


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured: status is "PASS", "MISS" or why it cannot be judged."""

    target: Target
    measured: float | None
    status: str

    def record(self) -> dict[str, Any]:
        """The verdict as it stands in the JSON."""
        wanted = {"at_most_db": self.target.at_most_db} if not self.target.peer else {"at_least": self.target.at_least}
        return {
            "target": self.target.text,
            "case": self.target.case,
            **wanted,
            "measured": self.measured,
            "status": self.status,
        }

    def line(self) -> str:
        """The verdict as it is printed."""
        ratio = bool(self.target.peer)
        wanted = f">= {self.target.at_least:g} x" if ratio else f"<= {self.target.at_most_db:g} dB"
        measured = "-" if self.measured is None else f"{self.measured:.1f} {'x' if ratio else 'dB'}"
        return f"{self.target.text}: {measured}, target {wanted}: {self.status}"


def verdicts(rows: Sequence[Row], quick: bool) -> list[Verdict]:
    """The targets whose cases were run."""
    by_name = {(row.case.name, row.library): row for row in rows}
    found = []
    for target in TARGETS:
        ours = by_name.get((target.case, OURS))
        if ours is None:
            continue
        peer = by_name.get((target.case, target.peer))
        if not target.peer:
            measured = _finite(ours.error_db)
            passed = measured is not None and measured <= target.at_most_db
        else:
            ratio = None if peer is None else speed_ratio(ours.forward_backward, peer.forward_backward)
            if ratio is None:
                found.append(Verdict(target, None, f"not measured: no figure of {target.peer}"))
                continue
            measured, passed = ratio, ratio >= target.at_least
        status = "not judged: a quick run is too small" if quick else "PASS" if passed else "MISS"
        found.append(Verdict(target, measured, status))
    return found


def speed_ratio(ours: Timing | None, theirs: Timing | None) -> float | None:
    """How many times as long theirs takes; below 1 where dasp is the slower."""
    return None if ours is None or theirs is None else theirs.median / ours.median


def table(rows: Sequence[Row]) -> str:
    """All rows in Markdown, a table for each group, and the notes below."""
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    parts = []
    for group in dict.fromkeys(row.case.group for row in rows):
        of_group = [row for row in rows if row.case.group == group]
        cells = _sweep_cells(of_group) if group == "accuracy" else _cells(of_group)
        marks = ["note", *(f"[{notes.index(row.note) + 1}]" if row.note else "" for row in of_group)]
        marked = [[*line, mark] for line, mark in zip(cells, marks, strict=True)]
        parts.append(f"{group}\n{_markdown(marked)}")
    parts.append("\n".join(f"[{number}] {note}" for number, note in enumerate(notes, 1)))
    return "\n\n".join(parts).rstrip()


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    header = ["case", "library", "fwd", "±", "/dasp", "fwd+bwd", "±", "/dasp", "mem", "mem+bwd", "error"]
    ours = {row.case.name: row for row in rows if row.library == OURS}
    cells, last = [header], ""
    for row in rows:
        reference = ours.get(row.case.name)
        size = 4 * row.case.samples  # Audio is float32.
        shape = "x".join(map(str, row.case.shape))
        cells.append(
            [
                f"{row.case.name} {shape}" if row.case.name != last else "",
                row.library,
                *_time_cells(row.forward, reference.forward if reference else None),
                *_time_cells(row.forward_backward, reference.forward_backward if reference else None),
                _memory(row.memory_forward, size),
                _memory(row.memory_forward_backward, size),
                _decibel(row.error_db),
            ]
        )
        last = row.case.name
    return cells


def _sweep_cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["case", "library", "worst", "median"]]
    for row in rows:
        name = f"{row.case.name} 6x{'x'.join(map(str, row.case.shape))}"
        cells.append([name, row.library, _decibel(row.error_db), _decibel(row.median_error_db)])
    return cells


def _time_cells(timing: Timing | None, ours: Timing | None) -> list[str]:
    if timing is None:
        return ["-", "", ""]
    ratio = None if timing is ours else speed_ratio(ours, timing)
    spread = "once" if timing.cold else f"{100 * timing.spread:.0f}%"
    return [_figures(timing.median), spread, "" if ratio is None else _figures(ratio)]


def _figures(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if 0 < value < 100 else f"{value:.0f}"


def _memory(size: int | None, audio: int) -> str:
    # Short audio is lost in the pages that any call touches.
    return "-" if size is None or audio < 1 << 20 else f"{size / audio:.1f}"


def _decibel(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if math.isfinite(value) else "NaN"


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    numeric = [column > 1 and cells[0][column] != "note" for column in range(len(widths))]
    lines = [
        "| " + " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def environment() -> dict[str, Any]:
    """The machine and the versions."""
    commit, dirty = _commit()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        **dasp.info(),
        "threads": torch.get_num_threads(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """The commit of this checkout and whether files differ from it; None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
    try:
        return git("rev-parse", "HEAD"), dirty
    except subprocess.CalledProcessError:  # Nothing is committed yet.
        return None, dirty


def document(
    rows: Iterable[Row],
    found: Iterable[Verdict],
    peers: Iterable[Peer],
    environment: dict[str, Any],
    run: dict[str, Any],
) -> dict[str, Any]:
    """Everything, as it is written to the JSON file; `run` says how it was called."""
    return {
        "schema": SCHEMA,
        "run": run,
        "environment": environment,
        "peers": [{"name": peer.name, "version": peer.version, "status": peer.status or "used"} for peer in peers],
        "rows": [row.record() for row in rows],
        "targets": [verdict.record() for verdict in found],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes all or nothing: an interrupted run leaves the file that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
