"""Mixing: the console, losses, fitting to a reference mix, and songs and settings to train controllers on."""

from __future__ import annotations

from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.dataset import MixDataset, SynthSongs
from dasp.mixing.fitting import FitResult, Progress, fit
from dasp.mixing.folders import Excerpt, MultitrackFolder, Song, Track
from dasp.mixing.losses import (
    BandLevelLoss,
    MultiResolutionSTFTLoss,
    StereoSTFTLoss,
    SumAndDifferenceSTFTLoss,
    multi_resolution_stft,
    sum_and_difference,
)
from dasp.mixing.practice import controls_around, plausible_controls
from dasp.mixing.settings import SettingsError, describe, interpret
from dasp.mixing.synth import Multitrack, multitrack

__all__ = [
    "BandLevelLoss",
    "DifferentiableMixingConsole",
    "Excerpt",
    "FitResult",
    "MixDataset",
    "MultiResolutionSTFTLoss",
    "Multitrack",
    "MultitrackFolder",
    "Progress",
    "SettingsError",
    "Song",
    "StereoSTFTLoss",
    "SumAndDifferenceSTFTLoss",
    "SynthSongs",
    "Track",
    "controls_around",
    "describe",
    "fit",
    "interpret",
    "multi_resolution_stft",
    "multitrack",
    "plausible_controls",
    "sum_and_difference",
]
