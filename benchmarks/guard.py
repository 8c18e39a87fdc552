"""Guards the speed of the hot loops: their ratios to a memory copy and to scipy, beside those of a checked-in file.

The ratios are taken in CPU time, which other processes do not use up, on one thread, whatever the number of cores, and
from the fastest of many turns, since whatever else disturbs a call makes it slower.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy
import scipy.signal
import torch

from benchmarks import cases
from benchmarks.measure import Timing, times
from benchmarks.oracles import Array
from benchmarks.roofline import copy_to_existing
from benchmarks.run import ours
from dasp import kernels

SCHEMA = 1

# What may be lost of a ratio before the guard fails.
_LOSS = 0.25
# An attempt is disturbed if other processes took more of its time than this: with them come cold caches.
_LEAST_CPU_SHARE = 0.9
# It is disturbed, too, if even the lower quartile of the turns of a yardstick is so much above the fastest: then the
# machine itself changes by as much as the loss that is looked for.
_MOST_SPREAD = 1.25
_ATTEMPTS, _PAUSE_S = 6, 0.5
_BUDGET_S, _LEAST = 0.15, 12
# A call takes about a millisecond, less than what a scheduler gives to a process at a time, and its memory fits into
# the cache that a core has for itself, where no neighbour reaches.
_SAMPLES = 4096
_SCIPY_SAMPLES = 65536
_CASES = (
    "sosfilt", "sosfilt_one_row", "sosfilt_short", "ballistics", "recurrence",
    "parametric_eq", "parametric_eq_short", "compressor", "compressor_short", "expander",
)  # fmt: skip
_YARDSTICKS = ("copy", "scipy")

Ratios: TypeAlias = dict[str, float]
"""By yardstick, how many times as long it takes per sample as the loop does: high is fast."""


@dataclass(frozen=True)
class Attempt:
    """One measurement of a case.

    Attributes:
        yardsticks: Their timings by name.
        loops: The same of the loops.
        cpu_share: CPU time over time.
    """

    yardsticks: Mapping[str, Timing]
    loops: Mapping[str, Timing]
    cpu_share: float = 1.0

    @property
    def disturbance(self) -> str:
        """What makes the attempt unfit to find a loss; "" if nothing does."""
        if self.cpu_share < _LEAST_CPU_SHARE:
            return f"other processes took {100 * (1 - self.cpu_share):.0f} % of the time"
        for name, timing in self.yardsticks.items():
            if timing.low > _MOST_SPREAD * timing.fastest:
                return f"{name} itself varies by {100 * (timing.low / timing.fastest - 1):.0f} %"
        return ""

    def ratios(self, loop: str) -> Ratios:
        """Those of one loop."""
        return {name: timing.fastest / self.loops[loop].fastest for name, timing in self.yardsticks.items()}


Measure: TypeAlias = Callable[[cases.Case], Attempt]


def measure(case: cases.Case) -> Attempt:
    """Measures the loops of a case, forward and with gradients, and the yardsticks in turn with them."""
    (inputs,) = case.make(case.shape)
    subject = ours(case, inputs)
    names = [*_YARDSTICKS, f"{case.name}, forward", f"{case.name}, forward and backward"]
    assert subject.backward is not None
    signal = inputs.x.double().numpy().reshape(-1)[:_SCIPY_SAMPLES]
    sos = _sections()
    calls = [
        copy_to_existing(inputs.x), lambda: scipy.signal.sosfilt(sos, signal), subject.forward, subject.backward
    ]  # fmt: skip
    sizes = [case.samples, signal.size, case.samples, case.samples]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for call in calls:
            call()
        start, start_of_cpu = time.perf_counter(), time.process_time()
        found = dict(zip(names, times(calls, sizes, _BUDGET_S, _LEAST, time.process_time), strict=True))
        share = (time.process_time() - start_of_cpu) / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return Attempt({name: found.pop(name) for name in _YARDSTICKS}, found, share)


def _sections() -> Array:
    """The six-band equaliser of the case sosfilt."""
    (case,) = guarded("sosfilt_short")
    (inputs,) = case.make(case.shape)
    return inputs.arrays()["sos"][0]


def guarded(name_contains: str = "") -> list[cases.Case]:
    """The cases of the guard, cut to its size."""
    found = {case.name: case for case in cases.cases()}
    return [
        replace(found[name], shape=(*found[name].shape[:-1], min(found[name].shape[-1], _SAMPLES)))
        for name in _CASES
        if name_contains in name
    ]


@dataclass(frozen=True)
class Finding:
    """What the guard says of a loop; `status` is "ok", "lost" or "unmeasurable"."""

    loop: str
    status: str
    text: str

    def line(self) -> str:
        """As it is printed."""
        return f"{self.loop}: {self.status}: {self.text}"


def check(chosen: Sequence[cases.Case], expected: Mapping[str, Ratios], measure: Measure = measure) -> list[Finding]:
    """Compares the loops with what is expected of them; what falls short is measured again before it fails."""
    attempts: dict[str, list[Attempt]] = {}
    findings: dict[str, Finding] = {}
    pending = list(chosen)
    for attempt in range(_ATTEMPTS):
        if attempt and pending:
            time.sleep(_PAUSE_S)
        for case in pending:
            attempts.setdefault(case.name, []).append(measure(case))
            for loop in attempts[case.name][0].loops:
                findings[loop] = judge(loop, expected.get(loop), attempts[case.name])
        pending = [
            case
            for case in pending
            if any(findings[loop].status != "ok" and loop in expected for loop in attempts[case.name][0].loops)
        ]
    return list(findings.values())


def judge(loop: str, expected: Ratios | None, attempts: Sequence[Attempt]) -> Finding:
    """It has lost speed if no attempt comes near what is expected, beside any yardstick, and most are undisturbed."""
    if expected is None:
        return Finding(loop, "unmeasurable", "nothing is recorded for it (--guard --update records it)")
    best = {name: max(attempt.ratios(loop)[name] for attempt in attempts) for name in expected}
    text = ", ".join(f"{found:.3g} x {name}, expected {expected[name]:.3g}" for name, found in best.items())
    if any(found >= (1 - _LOSS) * expected[name] for name, found in best.items()):
        return Finding(loop, "ok", text)
    disturbances = [attempt.disturbance for attempt in attempts if attempt.disturbance]
    if 2 * len(disturbances) >= len(attempts):
        return Finding(loop, "unmeasurable", f"{disturbances[-1]} ({text})")
    return Finding(loop, "lost", text)


def load(path: Path) -> dict[str, Any]:
    """The recorded ratios, by instruction set and loop; empty if there is no file."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"schema": SCHEMA, "ratios": {}}
    if content["schema"] != SCHEMA:
        raise ValueError(f"{path.name} has schema {content['schema']}, expected {SCHEMA}: write it anew with --update")
    return content


def update(path: Path, chosen: Sequence[cases.Case], measure: Measure = measure) -> None:
    """Records the ratios of this machine's instruction set, the median of several attempts; keeps the others."""
    recorded = load(path)["ratios"]
    ratios = recorded.setdefault(kernels.describe()["instruction_set"], {})
    attempts = [[measure(case) for case in chosen] for _ in range(_ATTEMPTS)]
    for of_case in zip(*attempts, strict=True):
        for loop in of_case[0].loops:
            found = [attempt.ratios(loop) for attempt in of_case]
            ratios[loop] = {
                name: float(f"{statistics.median(ratio[name] for ratio in found):.3g}") for name in _YARDSTICKS
            }
    content = {
        "schema": SCHEMA,
        "made_by": "python -m benchmarks --guard --update",
        "versions": {"numpy": numpy.__version__, "scipy": scipy.__version__, "torch": torch.__version__},
        "ratios": recorded,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def main(path: Path, name_contains: str, updating: bool) -> int:
    """Checks or updates; returns the exit status."""
    described = kernels.describe()
    if described["cpu_kernels"] != "compiled":
        print(f"guard: there is nothing to guard, the compiled kernels are not in use ({described['cpu_kernels']})")
        return 1
    chosen = guarded(name_contains)
    if not chosen:
        print(f"guard: no case has {name_contains!r} in its name, expected one of {', '.join(_CASES)}")
        return 2
    if updating:
        update(path, chosen)
        print(f"guard: recorded {len(chosen)} cases for {described['instruction_set']} in {path.name}")
        return 0
    findings = check(chosen, load(path)["ratios"].get(described["instruction_set"], {}))
    for finding in findings:
        if finding.status != "ok":
            print(finding.line())
    count = {status: sum(finding.status == status for finding in findings) for status in ("ok", "lost", "unmeasurable")}
    print("guard: " + ", ".join(f"{number} {status}" for status, number in count.items()))
    return 1 if count["lost"] else 0
