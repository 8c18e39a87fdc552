"""Gradients through effects that have none: estimates from calls of the effect, neural proxies and hybrids."""

from __future__ import annotations

from dasp.gradients._probing import EffectError
from dasp.gradients.effects import CommandEffect, Effect, EffectChain, NumpyEffect, lv2_effect
from dasp.gradients.estimation import EstimatedGradient, finite_difference, spsa
from dasp.gradients.hybrid import Hybrid, hybrid
from dasp.gradients.plugins import PedalboardEffect, PluginEffect
from dasp.gradients.proxy import NeuralProxy
from dasp.gradients.training import TrainingProgress, TrainingResult, spectral_distance, train_proxy

__all__ = [
    "CommandEffect",
    "Effect",
    "EffectChain",
    "EffectError",
    "EstimatedGradient",
    "Hybrid",
    "NeuralProxy",
    "NumpyEffect",
    "PedalboardEffect",
    "PluginEffect",
    "TrainingProgress",
    "TrainingResult",
    "finite_difference",
    "hybrid",
    "lv2_effect",
    "spectral_distance",
    "spsa",
    "train_proxy",
]
