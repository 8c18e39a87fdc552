"""Mixing: the console, losses, fitting a console to a reference mix, and synthetic multitracks."""

from __future__ import annotations

from dasp.mixing.console import DifferentiableMixingConsole, Signals
from dasp.mixing.constraints import Constraints
from dasp.mixing.fitting import FitResult, Progress, fit
from dasp.mixing.losses import (
    BandLevelLoss,
    MultiResolutionSTFTLoss,
    StereoSTFTLoss,
    SumAndDifferenceSTFTLoss,
    multi_resolution_stft,
    sum_and_difference,
)
from dasp.mixing.partial import PartialRender
from dasp.mixing.settings import Mix, SettingsError, interpret, render, schema
from dasp.mixing.switches import Switches
from dasp.mixing.synth import Multitrack, multitrack

__all__ = [
    "BandLevelLoss",
    "Constraints",
    "DifferentiableMixingConsole",
    "FitResult",
    "Mix",
    "MultiResolutionSTFTLoss",
    "Multitrack",
    "PartialRender",
    "Progress",
    "SettingsError",
    "Signals",
    "StereoSTFTLoss",
    "SumAndDifferenceSTFTLoss",
    "Switches",
    "fit",
    "interpret",
    "multi_resolution_stft",
    "multitrack",
    "render",
    "schema",
    "sum_and_difference",
]
