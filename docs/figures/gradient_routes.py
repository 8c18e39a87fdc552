"""Pictures of the comparison of gradients, from `docs/gradient_routes.json`."""

from __future__ import annotations

import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from figures.media import picture
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[1] / "gradient_routes.json"
# Two routes of a family have one colour and differ in their line.
STYLES = {
    "AD": ("black", "-"),
    "FD": ("tab:gray", "--"),
    "SPSA 1": ("tab:blue", ":"),
    "SPSA 4": ("tab:blue", "--"),
    "SPSA 16": ("tab:blue", "-"),
    "proxy": ("tab:orange", ":"),
    "half": ("tab:orange", "--"),
    "full": ("tab:red", "-"),
}


def _tasks() -> tuple[dict[str, list[dict[str, Any]]], int]:
    content = json.loads(RESULTS.read_text())
    return {task: list(rows) for task, rows in groupby(content["rows"], lambda row: row["task"])}, content["run"][
        "steps"
    ]


@picture("Distance to the target over steps and over calls of the effect, for each way and task.")
def curves() -> list[Axes]:
    """The median distance over steps (above) and over calls of the effect (below).  A proxy shows what it hears
    itself."""
    tasks, steps = _tasks()
    figure = Figure(figsize=(3 * len(tasks), 5.6), layout="constrained")
    axes = figure.subplots(2, len(tasks), sharey="col")
    for (upper, lower), (task, rows) in zip(axes.T, tasks.items(), strict=True):
        for row in rows:
            colour, line = STYLES[row["route"]]
            loss = np.array(row["curve_db"])
            at = np.linspace(0, steps, len(loss))
            upper.semilogy(at, loss, line, color=colour, label=row["route"])
            if calls := statistics.median(row["calls"]):
                lower.loglog(np.maximum(1, at / steps * calls), loss, line, color=colour)
        upper.set(title=task, xlabel="steps")
        lower.set(xlabel="calls of the effect")
        for axis in (upper, lower):
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
    for left in axes[:, 0]:
        left.set_ylabel("distance in dB")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return [axes[0, 0]]


@picture("Cosine of the gradient of each way to the true gradient, for each task.")
def cosines() -> list[Axes]:
    """The cosine to the true gradient, a point for each song."""
    tasks, _ = _tasks()
    axes = Figure(figsize=(3 * len(tasks), 2.8), layout="constrained").subplots(1, len(tasks), sharey=True)
    for axis, (task, rows) in zip(axes, tasks.items(), strict=True):
        shown = [row for row in rows if row["cosine"] is not None and row["route"] not in ("AD", "half")]
        for place, row in enumerate(shown):
            axis.plot([place] * len(row["cosine"]), row["cosine"], "o", color=STYLES[row["route"]][0], markersize=4)
        axis.axhline(0, color="tab:gray", linewidth=0.8)
        axis.set(title=task, xticks=range(len(shown)), ylim=(-1.05, 1.05))
        axis.set_xticklabels([row["route"] for row in shown], rotation=60)
    axes[0].set_ylabel("cosine to the true gradient")
    return [axes[0]]
