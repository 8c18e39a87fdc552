"""What was measured of one library in one case."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import roofline
from benchmarks.cases import Case
from benchmarks.measure import Timing


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
        copy: For dasp, time of a copy of the input into existing memory, the yardstick of the roofline.
        copy_to_fresh: The same into memory that is new from the system.
        bytes_forward: For dasp, the bytes that a call without gradients must move.
        bytes_forward_backward: The same with all gradients.
        threads: The number of threads, where it is not that of the run.
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
    copy: Timing | None = None
    copy_to_fresh: Timing | None = None
    bytes_forward: int | None = None
    bytes_forward_backward: int | None = None
    threads: int | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether the library raised an error."""
        return self.note.startswith("failed: ")

    @property
    def roofline_forward(self) -> float | None:
        """The share of the speed of a copy that a call without gradients reaches."""
        return self._roofline(self.bytes_forward, self.forward)

    @property
    def roofline_forward_backward(self) -> float | None:
        """The same with all gradients."""
        return self._roofline(self.bytes_forward_backward, self.forward_backward)

    def _roofline(self, moved: int | None, timing: Timing | None) -> float | None:
        if moved is None or timing is None or self.copy is None:
            return None
        samples = self.case.samples
        return roofline.share(moved, timing.median * samples, self.case.bytes, self.copy.median * samples)

    def record(self) -> dict[str, Any]:
        """The row as it stands in the JSON, without what it does not have."""
        fields = {
            "case": self.case.name,
            "group": self.case.group,
            "shape": list(self.case.shape),
            "threads": self.threads,
            "library": self.library,
            "forward_ns_per_sample": _timing(self.forward),
            "forward_backward_ns_per_sample": _timing(self.forward_backward),
            "memory_forward_bytes": self.memory_forward,
            "memory_forward_backward_bytes": self.memory_forward_backward,
            "copy_ns_per_sample": _timing(self.copy),
            "copy_to_fresh_ns_per_sample": _timing(self.copy_to_fresh),
            "bytes_forward": self.bytes_forward,
            "bytes_forward_backward": self.bytes_forward_backward,
            "roofline_forward": self.roofline_forward,
            "roofline_forward_backward": self.roofline_forward_backward,
            "error_db": self.error_db,
            "median_error_db": self.median_error_db,
            "note": self.note or None,
        }
        not_finite = [name for name, value in fields.items() if isinstance(value, float) and not math.isfinite(value)]
        known = {name: value for name, value in fields.items() if value is not None and name not in not_finite}
        return known | ({"not_finite": not_finite} if not_finite else {})


def _timing(timing: Timing | None) -> dict[str, Any] | None:
    return None if timing is None else asdict(timing)


def speed_ratio(ours: Timing | None, theirs: Timing | None) -> float | None:
    """How many times as long theirs takes; below 1 where dasp is the slower."""
    return None if ours is None or theirs is None else theirs.median / ours.median
