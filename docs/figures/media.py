"""Pictures and sounds of the documentation: what they are made of, and how they become files."""

from __future__ import annotations

import doctest
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import dasp
import dasp.functional as F
import dasp.mixing

DOCS = Path(__file__).parents[1]
RATE = 44100
# Sounds are played at this loudness, or lower where one of a pair would clip.
_LOUDNESS_LUFS, _CEILING_DB, _FADE_S = -20.0, -1.0, 0.01
# What the code of examples uses without importing it.
NAMES = {"F": F, "dasp": dasp, "math": math, "np": np, "torch": torch}
_STYLE = {
    "axes.grid": True,
    "axes.titlesize": 9,
    "axes.prop_cycle": matplotlib.cycler(color=["#1f77b4", "#d1640c", "#2a8c2a", "#c22f2f", "#8458b3"]),
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.framealpha": 0,
    "lines.linewidth": 1.5,
    # Pages are light or dark; their style sheet turns dark lines into light ones.
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    # The same picture is the same file.
    "svg.hashsalt": "dasp",
}


@dataclass(frozen=True)
class Picture:
    """Panels that a page shows beside each other where it is wide and below each other where it is narrow.

    Attributes:
        draw: Gives the panels, each a figure of its own, by one of its axes.
        alt: For each panel, what it shows, for those who do not see it.
        caption: What stands below them, as reStructuredText.
    """

    draw: Callable[[], Sequence[Axes]]
    alt: tuple[str, ...]
    caption: str


def picture(*alt: str) -> Callable[[Callable[[], Sequence[Axes]]], Picture]:
    """Makes a picture of a function that draws it, whose docstring is the caption."""
    return lambda draw: Picture(draw, alt, draw.__doc__ or "")


def panel(**labels: object) -> Axes:
    """Axes of a figure as wide as a phone."""
    axes = Figure(figsize=(4.4, 2.9), layout="constrained").subplots()
    axes.set(**labels)
    return axes


def draw(shown: Picture, folder: Path, name: str) -> list[Path]:
    """Draws a picture into files, one for each panel."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE), torch.no_grad():
        figures = [axes.figure for axes in shown.draw()]
        if len(figures) != len(shown.alt):
            raise ValueError(f"{name} has {len(figures)} panels and {len(shown.alt)} texts for them")
        paths = [folder / f"{name}-{number}.svg" for number in range(1, len(figures) + 1)]
        for figure, path in zip(figures, paths, strict=True):
            figure.savefig(path, metadata={"Date": None})
    return paths


@lru_cache(maxsize=4)
def names_after(code: str) -> dict[str, Any]:
    """Runs code, with prompts or without; gives the names that it leaves."""
    names = dict(NAMES)
    if ">>>" in code:
        code = "".join(example.source for example in doctest.DocTestParser().get_examples(code))
    exec(code, names)
    return names


def code_of(page: str, player: str) -> str:
    """The code of a player on a page, from which a picture beside it can be drawn."""
    content = (DOCS / page).read_text(encoding="utf-8")
    block = re.search(rf"^\.\. player:: {player}\n(?:   :.*\n)*((?:   .*\n|\n)*)", content, re.MULTILINE)
    if block is None:
        raise ValueError(f"{page} has no player {player}")
    return textwrap.dedent(block[1]).strip("\n")


@dataclass(frozen=True)
class Sound:
    """Two sounds, before and after a processor.

    Attributes:
        text: What is heard, as reStructuredText.
        code: Python that makes both.
        before: What is heard before, an expression of the names that the code gives.
        after: What is heard after.
        as_loud: Whether both are played at one loudness; if not, both with one gain.
        labels: What the two players are called.
    """

    text: str
    code: str
    before: str = "x"
    after: str = "y"
    as_loud: bool = True
    labels: tuple[str, str] = ("Before", "After")

    def make(self) -> tuple[Tensor, Tensor]:
        """Runs the code; gives the audio of both, `(channels, samples)` each."""
        names = names_after(self.code)
        return tuple(eval(expression, names).detach() for expression in (self.before, self.after))

    def played(self) -> tuple[Tensor, Tensor]:
        """Both as they are played: faded at their ends, and at one loudness or with one gain."""
        heard = self.make()
        gains = [_LOUDNESS_LUFS - float(F.integrated_loudness(x, RATE)) for x in heard]
        if not self.as_loud:
            gains = [min(gains)] * 2
        peaks = [gain + 20 * math.log10(float(x.abs().max())) for gain, x in zip(gains, heard, strict=True)]
        down = min(0.0, _CEILING_DB - max(peaks))
        return tuple(_faded(F.gain(x, RATE, gain + down)) for gain, x in zip(gains, heard, strict=True))


def _faded(x: Tensor) -> Tensor:
    samples = torch.arange(x.shape[-1])
    return x * (torch.minimum(samples, samples.flip(0)) / (_FADE_S * RATE)).clamp(max=1)
