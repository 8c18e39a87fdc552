"""The figures that the project sets itself, and what was measured beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from benchmarks.cases import OURS
from benchmarks.peers import Peer
from benchmarks.row import Row, speed_ratio


class NotMeasuredError(Exception):
    """Why a target has no figure."""


@dataclass(frozen=True)
class Results:
    """The rows of a run, and why peers are missing in it."""

    rows: Sequence[Row]
    peers: Sequence[Peer] = ()

    def ours(self, case: str) -> Row:
        """The row of dasp in a case."""
        return self.of(case, OURS)

    def of(self, case: str, library: str) -> Row:
        """The row of a library in a case.

        Raises:
            NotMeasuredError: If there is none with figures.
        """
        for row in self.rows:
            if (row.case.name, row.library) == (case, library) and not row.failed:
                return row
        reasons = [peer.status for peer in self.peers if peer.name == library.partition(" (")[0] and not peer.module]
        raise NotMeasuredError("; ".join([f"no figure of {library}", *reasons]))


Measure: TypeAlias = Callable[[Results, str], float | None]


@dataclass(frozen=True)
class Target:
    """A figure that the project sets itself.

    Attributes:
        text: What it is about.
        case: The case it is read from.
        limit: The figure.
        unit: Its unit.
        measure: Reads what was measured from the results, given the case.
        at_most: Whether the limit is the highest that passes, and not the lowest.
        peer: The library that the measure is a comparison with.
    """

    text: str
    case: str
    limit: float
    unit: str
    measure: Measure
    at_most: bool = False
    peer: str = ""


def _faster(results: Results, case: str, library: str, field: str) -> float | None:
    return speed_ratio(getattr(results.ours(case), field), getattr(results.of(case, library), field))


def _error_db(results: Results, case: str) -> float | None:
    return results.ours(case).error_db


def _memory(results: Results, case: str) -> float | None:
    row = results.ours(case)
    size = row.memory_forward_backward
    return None if size is None else size / row.case.bytes


def _call_us(results: Results, case: str) -> float | None:
    row = results.ours(case)
    return None if row.forward_backward is None else row.forward_backward.median * row.case.samples / 1000


def _roofline(results: Results, case: str) -> float | None:
    found = results.ours(case).roofline_forward
    return None if found is None else 100 * found


def _medians(results: Results, case: str) -> list[tuple[Row, list[float]]]:
    """The points of a case in the group "scaling", with the times forward, and forward and backward."""
    rows = [row for row in results.rows if row.case.name == case and not row.failed]
    if not rows:
        raise NotMeasuredError(f"no figure of {OURS}")
    return [(row, [t.median for t in (row.forward, row.forward_backward) if t is not None]) for row in rows]


def _variation(results: Results, case: str) -> float | None:
    """The largest time per sample over the smallest; the worse of forward, and forward and backward."""
    return max(
        max(series) / min(series) for series in zip(*(found for _, found in _medians(results, case)), strict=True)
    )


def _two_threads(results: Results, case: str) -> float | None:
    """How much faster two threads are than one; the worse of forward, and forward and backward."""
    by_threads = {row.threads: found for row, found in _medians(results, case)}
    if 2 not in by_threads:
        raise NotMeasuredError("one thread only")
    return min(one / two for one, two in zip(by_threads[1], by_threads[2], strict=True))


def _speed(text: str, case: str, peer: str, limit: float, field: str = "forward_backward") -> Target:
    direction = "forward" if field == "forward" else "forward and backward"
    measure = partial(_faster, library=peer, field=field)
    return Target(f"{text}, {direction}, beside {peer}", case, limit, "x", measure, peer=peer)


def _limit(text: str, case: str, limit: float, unit: str, measure: Measure) -> Target:
    return Target(text, case, limit, unit, measure, at_most=True)


_EQ, _COMPRESSOR = "six-band equaliser", "compressor"
_SCALED = (("sosfilt", "sosfilt"), ("parametric_eq", _EQ), ("compressor", _COMPRESSOR))

TARGETS = (
    _speed(_EQ, "parametric_eq", "scipy", 16, "forward"),
    _speed(_EQ, "parametric_eq", "dasp-pytorch", 60),
    _speed(_EQ, "parametric_eq", "torchaudio", 90),
    _speed(_EQ, "parametric_eq", "philtorch", 40),
    _speed(f"{_EQ}, one row", "parametric_eq_one_row", "scipy", 6, "forward"),
    _speed(f"{_EQ}, one row", "parametric_eq_one_row", "dasp-pytorch", 60),
    _speed(_COMPRESSOR, "compressor", "dasp-pytorch", 15),
    _speed(_COMPRESSOR, "compressor", "torchcomp (smoothing alone)", 3),
    _speed(f"{_COMPRESSOR}, one row", "compressor_one_row", "pedalboard", 3, "forward"),
    _speed("noise reverb", "noise_shaped_reverb", "dasp-pytorch", 400),
    _speed("console with reverb", "console_reverb", "dasp-pytorch", 500),
    _speed("console without reverb", "console", "dasp-pytorch", 20),
    _speed("loudness of 64 programmes", "integrated_loudness", "pyloudnorm", 10, "forward"),
    _limit("error of sosfilt, 8 to 192 kHz", "sosfilt_accuracy", -140, "dB", _error_db),
    _limit("error of parametric_eq, 8 to 192 kHz", "parametric_eq_accuracy", -140, "dB", _error_db),
    _limit(f"extra memory of the {_EQ}, forward and backward", "parametric_eq", 3, "x input", _memory),
    _limit(f"extra memory of the {_COMPRESSOR}, forward and backward", "compressor", 5, "x input", _memory),
    _limit("extra memory of the expander, forward and backward", "expander", 5, "x input", _memory),
    *(
        _limit(f"a call of 64 samples with gradients, {text}", f"{name}_short", 80, "us", _call_us)
        for name, text in _SCALED
    ),
    Target("share of the speed of a copy, sosfilt forward", "sosfilt", 35, "%", _roofline),
    *(
        _limit(f"variation of the time per sample from 1 s to 10 min, {text}", f"{name}_samples", 1.2, "x", _variation)
        for name, text in _SCALED
    ),
    *(Target(f"two threads beside one, {text}", f"{name}_threads", 1.7, "x", _two_threads) for name, text in _SCALED),
)


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured: status is "PASS", "MISS" or why it cannot be judged."""

    target: Target
    measured: float | None
    status: str

    def record(self) -> dict[str, Any]:
        """The verdict as it stands in the JSON."""
        return {
            "target": self.target.text,
            "case": self.target.case,
            "at_most" if self.target.at_most else "at_least": self.target.limit,
            "unit": self.target.unit,
            "measured": self.measured,
            "status": self.status,
        }

    def line(self) -> str:
        """The verdict as it is printed."""
        wanted = f"{'<=' if self.target.at_most else '>='} {self.target.limit:g} {self.target.unit}"
        measured = "-" if self.measured is None else f"{self.measured:.4g} {self.target.unit}"
        return f"{self.target.text}: {measured}, target {wanted}: {self.status}"


def verdicts(results: Results, quick: bool) -> list[Verdict]:
    """The targets whose cases were run."""
    run = {row.case.name for row in results.rows}
    return [_verdict(target, results, quick) for target in TARGETS if target.case in run]


def _verdict(target: Target, results: Results, quick: bool) -> Verdict:
    try:
        measured = target.measure(results, target.case)
    except NotMeasuredError as reason:
        return Verdict(target, None, f"not measured: {reason}")
    if measured is None:
        return Verdict(target, None, "not measured: this system does not tell")
    finite = measured if math.isfinite(measured) else None
    if quick:
        return Verdict(target, finite, "not judged: a quick run is too small")
    passed = measured <= target.limit if target.at_most else measured >= target.limit
    return Verdict(target, finite, "PASS" if passed else "MISS")


def missed(found: Iterable[Verdict]) -> bool:
    """Whether any target was."""
    return any(verdict.status == "MISS" for verdict in found)
