"""The tables of a results file, as they are printed and as they stand in the documentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

SCHEMA = 2
"""Changes with the meaning of the JSON's fields."""

Record: TypeAlias = Mapping[str, Any]

_OURS = "dasp"
# Short audio is lost in the pages that any call touches.
_LEAST_BYTES_FOR_MEMORY = 1 << 20


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: What it is about, with the unit of the times.
        header: The names of the columns.
        lines: The cells.
    """

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in Markdown, aligned: the first two columns and notes to the left."""
        cells = [self.header, *self.lines]
        widths = [max(len(line[column]) for line in cells) for column in range(len(self.header))]
        left = [column < 2 or name in ("note", "status") for column, name in enumerate(self.header)]
        aligned = [
            " | ".join(c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(line, widths, left, strict=True))
            for line in cells
        ]
        rule = "|".join("-" * (w + 1) + ("-" if to_left else ":") for w, to_left in zip(widths, left, strict=True))
        return "\n".join([self.title, f"| {aligned[0]} |", f"|{rule}|", *(f"| {line} |" for line in aligned[1:])])


def notes(document: Record) -> list[str]:
    """The remarks that tables refer to, by number from 1."""
    return list(dict.fromkeys(row["note"] for row in document["rows"] if "note" in row))


def speed(document: Record, group: str) -> list[Table]:
    """Times, ratios and errors of one of the groups kernels, processors, overhead, console and meters."""
    rows = [row for row in document["rows"] if row["group"] == group]
    unit = "microseconds per call" if group == "overhead" else "nanoseconds per sample"
    ours = {row["case"]: row for row in rows if row["library"] == _OURS}
    remarks = notes(document)
    lines = []
    for row, case in _named(rows):
        per_call = _samples(row) / 1000 if group == "overhead" else 1
        cells = [case, row["library"]]
        for field in ("forward_ns_per_sample", "forward_backward_ns_per_sample"):
            cells += _time_cells(row.get(field), ours.get(row["case"], {}).get(field), per_call)
        lines.append([*cells, _error(row, "error_db"), f"[{remarks.index(row['note']) + 1}]" if "note" in row else ""])
    header = ("case", "library", "fwd", "±", "/dasp", "fwd+bwd", "±", "/dasp", "error", "note")
    return [Table(f"{group}, {unit}", header, lines)] if lines else []


def accuracy(document: Record) -> list[Table]:
    """Errors over a range of settings."""
    rows = [row for row in document["rows"] if row["group"] == "accuracy"]
    lines = [
        [case, row["library"], _error(row, "error_db"), _error(row, "median_error_db")] for row, case in _named(rows)
    ]
    return [Table("accuracy, dB", ("case", "library", "worst", "median"), lines)] if lines else []


def errors(document: Record) -> list[Table]:
    """The errors of every case, a column for each library; in brackets the number of a remark."""
    rows = [row for row in document["rows"] if "error_db" in row and row["group"] != "accuracy"]
    libraries = list(dict.fromkeys([_OURS, *(row["library"] for row in rows)]))
    remarks = notes(document)
    lines = []
    for case, found in groupby(rows, key=lambda row: row["case"]):
        cells = dict.fromkeys(libraries, "")
        for row in found:
            remark = f" [{remarks.index(row['note']) + 1}]" if "note" in row else ""
            cells[row["library"]] = _error(row, "error_db") + remark
        lines.append([case, *cells.values()])
    return [Table("errors, dB", ("case", *libraries), lines)] if lines else []


def memory(document: Record) -> list[Table]:
    """Peak extra memory of calls on audio that is long enough to tell."""
    fields = ("memory_forward_bytes", "memory_forward_backward_bytes")
    rows = [row for row in document["rows"] if _bytes(row) >= _LEAST_BYTES_FOR_MEMORY and any(f in row for f in fields)]
    lines = [
        [case, row["library"], *(f"{row[field] / _bytes(row):.1f}" if field in row else "-" for field in fields)]
        for row, case in _named(rows)
    ]
    return [Table("memory, multiples of the input", ("case", "library", "fwd", "fwd+bwd"), lines)] if lines else []


def roofline(document: Record) -> list[Table]:
    """The shares of the speed of a copy, and the copies."""
    lines = [
        [
            case,
            *(_figures(row[f"copy{to}_ns_per_sample"]["median"]) for to in ("", "_to_fresh")),
            *(f"{row[f'bytes_{field}'] / _samples(row):.1f}" for field in ("forward", "forward_backward")),
            *(_percent(row.get(f"roofline_{field}")) for field in ("forward", "forward_backward")),
        ]
        for row, case in _named(row for row in document["rows"] if "copy_ns_per_sample" in row)
    ]
    header = ("case", "copy", "to fresh", "bytes", "bytes+bwd", "share", "share+bwd")
    title = "roofline, nanoseconds and bytes per sample, share of the speed of a copy"
    return [Table(title, header, lines)] if lines else []


def scaling(document: Record) -> list[Table]:
    """Times per sample over samples, rows and threads."""
    rows = [row for row in document["rows"] if row["group"] == "scaling"]
    lines = [
        [
            row["case"] if first else "",
            "x".join(map(str, row["shape"])),
            str(row.get("threads", document["environment"]["threads"])),
            *_time_cells(row.get("forward_ns_per_sample"))[:2],
            *_time_cells(row.get("forward_backward_ns_per_sample"))[:2],
        ]
        for row, first in _firsts(rows, lambda row: row["case"])
    ]
    header = ("case", "shape", "threads", "fwd", "±", "fwd+bwd", "±")
    return [Table("scaling, nanoseconds per sample", header, lines)] if lines else []


def targets(document: Record, accuracy: bool | None = None) -> list[Table]:
    """The figures that the project sets itself, and whether they are reached: all, those of accuracy, or the others."""
    lines = []
    for target in document["targets"]:
        if accuracy is not None and accuracy != (target["unit"] == "dB"):
            continue
        sign, limit = ("<=", target["at_most"]) if "at_most" in target else (">=", target["at_least"])
        found = target["measured"]
        measured = "-" if found is None else f"{found:.4g} {target['unit']}"
        lines.append([target["target"], f"{sign} {limit:g} {target['unit']}", measured, target["status"]])
    return [Table("targets", ("target", "wanted", "measured", "status"), lines)] if lines else []


def machine(document: Record) -> list[Table]:
    """What ran where, and the versions."""
    environment, peers = document["environment"], document["peers"]
    keys = ("time", "commit", "dirty", "cpu", "cpus", "instruction_set", "threads", "load_average", "platform")
    versions = ("dasp", "python", "torch", "numpy", "scipy")
    lines = [[key, _plain(environment[key])] for key in (*keys, *versions) if key in environment]
    lines += [
        [peer["name"], " ".join(filter(None, [peer["version"], f"({peer['status']})" if peer["status"] else ""]))]
        for peer in peers
        if peer["name"] not in versions
    ]
    return [Table("machine and versions", ("", ""), lines)]


def every(document: Record) -> list[Table]:
    """All tables, in the order in which they are printed."""
    timed = [table for group in ("kernels", "processors", "overhead") for table in speed(document, group)]
    return [
        *timed,
        *accuracy(document),
        *speed(document, "console"),
        *speed(document, "meters"),
        *(table for make in (scaling, memory, roofline, machine, targets) for table in make(document)),
    ]


def _firsts(rows: Iterable[Record], key: Callable[[Record], object]) -> Iterable[tuple[Record, bool]]:
    """Rows, and whether each is the first of its kind in a series."""
    return ((row, index == 0) for _, group in groupby(rows, key) for index, row in enumerate(group))


def _named(rows: Iterable[Record]) -> Iterable[tuple[Record, str]]:
    """Rows with the name and shape of their case where it begins."""
    for row, first in _firsts(rows, lambda row: (row["case"], row["shape"])):
        yield row, f"{row['case']} {'x'.join(map(str, row['shape']))}" if first else ""


def _samples(row: Record) -> int:
    return math.prod(row["shape"])


def _bytes(row: Record) -> int:
    return 4 * _samples(row)


def _time_cells(timing: Record | None, ours: Record | None = None, scale: float = 1) -> list[str]:
    """The median, its spread, and the ratio to that of dasp in rows of others."""
    if timing is None:
        return ["-", "", ""]
    median = timing["median"]
    spread = "once" if timing["cold"] else f"{50 * (timing['high'] - timing['low']) / median:.0f}%"
    ratio = "" if ours is None or timing is ours else _figures(median / ours["median"])
    return [_figures(scale * median), spread, ratio]


def _figures(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if 0 < value < 100 else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{_figures(100 * value)}%"


def _error(row: Record, field: str) -> str:
    if field in row:
        return f"{row[field]:.0f}"
    # The worst is infinite where any output is not finite, the median only where most are not.
    return "NaN" if field in row.get("not_finite", ()) else "-"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{item:.2f}" for item in value)
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value)
