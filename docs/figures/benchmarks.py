"""Pictures of the benchmarks, from `docs/benchmarks.json`."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from figures.media import picture
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

RESULTS = Path(__file__).parents[1] / "benchmarks.json"
# A colour and a mark for each library, so that either is enough.
STYLES = {
    "dasp": ("black", "o"),
    "dasp-pytorch": ("tab:orange", "s"),
    "pedalboard": ("tab:blue", "^"),
    "scipy": ("tab:green", "D"),
    "torchcomp": ("tab:red", "v"),
    "torchcomp (smoothing alone)": ("tab:pink", "v"),
    "torchlpc": ("tab:purple", "P"),
    "pyloudnorm": ("tab:brown", "X"),
    "torchaudio": ("tab:cyan", "<"),
    "philtorch": ("tab:olive", ">"),
}
# Equal to the bit, and anything below, is drawn here.
_FLOOR_DB = -170.0


def _cases(groups: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    rows = [row for row in json.loads(RESULTS.read_text())["rows"] if row["group"] in groups]
    return {case: list(found) for case, found in groupby(rows, lambda row: row["case"])}


def _ours_last(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """dasp's mark on top of those that it meets."""
    return sorted(rows, key=lambda row: row["library"] == "dasp")


def _lined(cases: dict[str, list[dict[str, Any]]]) -> Axes:
    """A line for each case, the first at the top."""
    figure = Figure(figsize=(7.5, 0.9 + 0.22 * len(cases)), layout="constrained")
    axis = figure.subplots()
    axis.set(ylim=(len(cases) - 0.4, -0.6))
    axis.set_yticks(range(len(cases)), cases)
    axis.grid(axis="y", color="lightgray", linewidth=0.6)
    axis.grid(axis="x", color="gray", linewidth=0.4)
    axis.set_axisbelow(True)
    found = {row["library"] for rows in cases.values() for row in rows}
    marks = [
        Line2D([], [], color=colour, marker=mark, linestyle="", label=library)
        for library, (colour, mark) in STYLES.items()
        if library in found
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4)
    return axis


@picture("Nanoseconds per sample of every processor, of dasp and of other libraries, on a logarithmic axis.")
def speed() -> list[Axes]:
    """Nanoseconds per sample of the processors.  Filled: a call and all gradients; hollow: a call alone."""
    cases = _cases(("processors", "kernels", "console", "meters"))
    axis = _lined(cases)
    for place, rows in enumerate(cases.values()):
        for row in _ours_last(rows):
            colour, mark = STYLES[row["library"]]
            for field, filling in (("forward", "white"), ("forward_backward", colour)):
                if timing := row.get(f"{field}_ns_per_sample"):
                    axis.plot(timing["median"], place, mark, color=colour, markerfacecolor=filling, markersize=5)
    axis.set(xscale="log", xlabel="nanoseconds per sample")
    axis.xaxis.set_major_formatter("{x:g}")
    return [axis]


@picture("Largest error of every case in dB, of dasp and of other libraries.")
def accuracy() -> list[Axes]:
    """The largest error of every case; one that is not finite has no mark.  To the left is better."""
    cases = {
        case: kept
        for case, rows in _cases(("accuracy", "processors", "kernels", "overhead", "console", "meters")).items()
        if (kept := [row for row in rows if "error_db" in row])
    }
    axis = _lined(cases)
    for place, rows in enumerate(cases.values()):
        for row in _ours_last(rows):
            colour, mark = STYLES[row["library"]]
            axis.plot(max(row["error_db"], _FLOOR_DB), place, mark, color=colour, markersize=5)
    axis.axvline(-140, color="black", linewidth=0.8, linestyle="--")
    axis.set(xlabel="error in dB; dashed: the target for filters")
    return [axis]
