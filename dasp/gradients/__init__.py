"""Gradients through effects that have none: simultaneous perturbation and finite differences of black boxes."""

from __future__ import annotations

from dasp.gradients._probing import EffectError
from dasp.gradients.effects import CommandEffect, Effect, EffectChain, NumpyEffect, lv2_effect
from dasp.gradients.estimation import EstimatedGradient, finite_difference, spsa
from dasp.gradients.plugins import PedalboardEffect, PluginEffect

__all__ = [
    "CommandEffect",
    "Effect",
    "EffectChain",
    "EffectError",
    "EstimatedGradient",
    "NumpyEffect",
    "PedalboardEffect",
    "PluginEffect",
    "finite_difference",
    "lv2_effect",
    "spsa",
]
