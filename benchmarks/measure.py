"""Time, memory and error of calls."""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Call = Callable[[], object]
Clock = Callable[[], float]

# Shorter calls are repeated within one measurement until it takes this long.
_SHORTEST_MEASUREMENT_S = 2e-3
# Calls shorter than this are made once more, untimed, before each measurement: the library whose turn it was before has
# left its own data in the caches, and perhaps threads that spin for some milliseconds.
_SETTLE_S = 0.1
# Errors are printed down to this, which stands for bit-equal.
EXACT_DB = -400.0


@dataclass(frozen=True)
class Timing:
    """Durations of one call in nanoseconds per sample of the input.

    Attributes:
        median: The median over the measurements.
        low: The lower quartile.
        high: The upper quartile.
        fastest: The least.
        repeats: The number of measurements.
        cold: Whether this is the only call, without one before it to warm up.
    """

    median: float
    low: float
    high: float
    fastest: float
    repeats: int
    cold: bool = False

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles over the median."""
        return (self.high - self.low) / (2 * self.median)


@contextmanager
def no_collection() -> Iterator[None]:
    """Keeps Python's collector of garbage from running in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _duration(call: Call, number: int = 1, clock: Clock = time.perf_counter) -> float:
    start = clock()
    for _ in range(number):
        call()
    return clock() - start


def times(
    calls: Sequence[Call],
    samples: int | Sequence[int],
    budget_s: float,
    least: int = 5,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """Times calls in turns, so that a slow phase of the machine meets all of them.

    Args:
        calls: The calls, each made before at least once.
        samples: Samples of the input, of each call's if they differ.
        budget_s: Time to spend on each call.
        least: Measurements to make at least, three if a call takes more than a second.
        clock: What tells the time in seconds.

    Returns:
        Their timings.
    """
    plans = [plan(call, budget_s, least) for call in calls]
    measured: list[list[float]] = [[] for _ in calls]
    with no_collection():
        for turn in range(max((planned.repeats for planned in plans), default=0)):
            for call, planned, durations in zip(calls, plans, measured, strict=True):
                if turn < planned.repeats:
                    durations.append(planned.measure(call, clock))
    sizes = [samples] * len(calls) if isinstance(samples, int) else samples
    return [_timing(durations, size) for durations, size in zip(measured, sizes, strict=True)]


@dataclass(frozen=True)
class Plan:
    """How often to measure a call, how many calls make one measurement, and whether to make one untimed before."""

    repeats: int
    number: int
    settle: bool

    def measure(self, call: Call, clock: Clock = time.perf_counter) -> float:
        """Seconds of one call, from one measurement."""
        if self.settle:
            call()
        return _duration(call, self.number, clock) / self.number


def plan(call: Call, budget_s: float, least: int) -> Plan:
    """How to measure a call within a budget, from a trial or two."""
    once = _duration(call)
    if once < 1:
        once = _duration(call)
    number = max(1, math.ceil(_SHORTEST_MEASUREMENT_S / max(once, 1e-9)))
    settle = once < _SETTLE_S
    affordable = int(budget_s / (once * (number + settle)))
    return Plan(min(50, max(3 if once > 1 else least, affordable)), number, settle)


def _timing(durations: list[float], samples: int) -> Timing:
    per_sample = [duration * 1e9 / samples for duration in durations]
    low, median, high = statistics.quantiles(per_sample, n=4, method="inclusive")
    return Timing(median, low, high, min(per_sample), len(durations))


def time_and_memory_of_one_call(call: Call, samples: int) -> tuple[Timing, int | None]:
    """For calls too slow to repeat: duration and peak memory of a single, cold one."""
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        seconds = _duration(call)

    memory = peak_memory(timed)
    per_sample = seconds * 1e9 / samples
    return Timing(per_sample, per_sample, per_sample, per_sample, 1, cold=True), memory


def _status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def peak_memory(call: Call) -> int | None:
    """The most resident memory during a call, above what was resident before it, in bytes.

    The call's result is part of it.  What the C library keeps of freed memory is given back to the system first, so
    that it cannot serve the call unseen.  What a library keeps from earlier calls is not part of it.

    Returns:
        The number of bytes, or None where the system does not tell: this needs Linux and the GNU C library.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
        gc.collect()
        trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Resets the high-water mark VmHWM.
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except (AttributeError, OSError):
        return None


def errors_db(y: npt.NDArray[np.floating], exact: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Largest error over largest value of each item (of the first dimension) in dB; infinite for output with NaN.

    Raises:
        ValueError: If the shapes differ.
    """
    if y.shape != exact.shape:
        raise ValueError(f"output has shape {y.shape}, expected {exact.shape}")
    y, exact = (a.reshape(len(a), -1).astype(np.float64) for a in (y, exact))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(y - exact).max(-1) / np.abs(exact).max(-1)
        decibel = 20 * np.log10(relative)
    return np.where(np.isnan(decibel), np.where(np.isfinite(y).all(-1), EXACT_DB, np.inf), decibel).clip(EXACT_DB)
