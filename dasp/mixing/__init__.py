"""Mixing: the console, losses, features, fitting to a reference mix, and songs and settings to train controllers on."""

from __future__ import annotations

from dasp.mixing.console import DifferentiableMixingConsole, Signals
from dasp.mixing.constraints import Constraints
from dasp.mixing.controllers import Controller, DeepSetController, TransformerController
from dasp.mixing.dataset import MixDataset, SynthSongs
from dasp.mixing.deconvolution import deconvolve
from dasp.mixing.encoders import LogMelEncoder, SpectrogramEncoder, WaveformEncoder
from dasp.mixing.features import bark_spectrum_db, crest_factor_db, rms_db, stereo_imbalance, stereo_width
from dasp.mixing.fitting import FitResult, Progress, fit
from dasp.mixing.folders import Excerpt, MultitrackFolder, Song, Track
from dasp.mixing.losses import (
    AudioFeatureLoss,
    BandLevelLoss,
    DynamicsLoss,
    MultiResolutionSTFTLoss,
    ParameterLoss,
    StereoSTFTLoss,
    SumAndDifferenceSTFTLoss,
    multi_resolution_stft,
    sum_and_difference,
)
from dasp.mixing.partial import PartialRender
from dasp.mixing.practice import controls_around, plausible_controls
from dasp.mixing.recipe import Recipe, RecipeError
from dasp.mixing.reporting import report
from dasp.mixing.settings import Mix, SettingsError, interpret, render, schema
from dasp.mixing.switches import Switches
from dasp.mixing.synth import Multitrack, multitrack
from dasp.mixing.training import ControllerLoss, RecipeItems, train

__all__ = [
    "AudioFeatureLoss",
    "BandLevelLoss",
    "Constraints",
    "Controller",
    "ControllerLoss",
    "DeepSetController",
    "DifferentiableMixingConsole",
    "DynamicsLoss",
    "Excerpt",
    "FitResult",
    "LogMelEncoder",
    "Mix",
    "MixDataset",
    "MultiResolutionSTFTLoss",
    "Multitrack",
    "MultitrackFolder",
    "ParameterLoss",
    "PartialRender",
    "Progress",
    "Recipe",
    "RecipeError",
    "RecipeItems",
    "SettingsError",
    "Signals",
    "Song",
    "SpectrogramEncoder",
    "StereoSTFTLoss",
    "SumAndDifferenceSTFTLoss",
    "Switches",
    "SynthSongs",
    "Track",
    "TransformerController",
    "WaveformEncoder",
    "bark_spectrum_db",
    "controls_around",
    "crest_factor_db",
    "deconvolve",
    "fit",
    "interpret",
    "multi_resolution_stft",
    "multitrack",
    "plausible_controls",
    "render",
    "report",
    "rms_db",
    "schema",
    "stereo_imbalance",
    "stereo_width",
    "sum_and_difference",
    "train",
]
