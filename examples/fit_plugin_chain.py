"""Finds the settings of plug-ins that turn one recording into another, though the plug-ins have no gradients.

    pip install 'dasp[plugins]'
    python examples/fit_plugin_chain.py
    python examples/fit_plugin_chain.py --input dry.wav --target wet.wav

A compressor and an equaliser of pedalboard, with ten controls, are fitted by SPSA: each step runs them nine times,
whatever the number of controls.  Without files, a synthetic song takes the place of the recording, and hidden settings
of the same plug-ins make the target, so that what was found can be held against what was hidden.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

import dasp.io
from dasp.gradients import Effect, EffectChain, PedalboardEffect, spsa
from dasp.mixing import MultiResolutionSTFTLoss, multitrack
from dasp.modules import project


def plugins(sample_rate: int) -> EffectChain:
    """The plug-ins in their order: replace them by your own, those of files by `PluginEffect`."""
    return EffectChain(
        PedalboardEffect("Compressor", sample_rate),
        PedalboardEffect("PeakFilter", sample_rate),
        PedalboardEffect("HighShelfFilter", sample_rate),
    )


def hidden_settings(effect: Effect, seed: int) -> Tensor:
    """Settings away from the ends of the ranges, `(1, P)`."""
    generator = torch.Generator().manual_seed(seed)
    return 0.15 + 0.7 * torch.rand(1, effect.num_controls, generator=generator)


def song(seed: int, seconds: float = 4.0, sample_rate: int = 44100) -> Tensor:
    """A mono recording that peaks near full scale, `(1, samples)`."""
    mix = multitrack(seed, seconds, sample_rate).tracks.sum(0)
    return 0.9 * mix / mix.abs().amax()


def fit(
    effect: Effect, x: Tensor, target: Tensor, steps: int = 400, learning_rate: float = 0.03, seed: int = 0
) -> tuple[Tensor, list[float]]:
    """Descends by SPSA from the middle of all ranges.

    Args:
        effect: The effect.
        x: The recording, `(channels, samples)`.
        target: What it shall become.
        steps: Steps of the descent, of nine calls each.
        learning_rate: The first step on the scale of the controls; it falls to 0.
        seed: Seed of the perturbations.

    Returns:
        Normalised controls `(P,)`, and the distance in dB before the first step and after each.
    """
    loss = MultiResolutionSTFTLoss()
    reference = loss.reference(target[None])
    u = torch.full((1, effect.num_controls), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([u], lr=learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    distances = []
    with spsa(effect, num_draws=4, generator=seed, workers=2) as trainable:
        for step in range(steps + 1):
            distance = loss(trainable(x[None], project(u)), reference)
            distances.append(distance.item())
            if step % 50 == 0:
                print(f"step {step:4d}: {distances[-1]:6.2f} dB", flush=True)
            if step < steps:
                optimizer.zero_grad()
                distance.backward()
                optimizer.step()
                schedule.step()
    return u.detach().clamp(0, 1)[0], distances


def table(effect: Effect, found: Tensor, true: Tensor | None) -> str:
    """The settings in physical units, beside the hidden ones if they are known."""
    values = effect.denormalize(found)
    wanted = {} if true is None else effect.denormalize(true)
    lines = [f"{'control':<38}{'found':>12}" + (f"{'true':>12}" if wanted else "")]
    for name, param in effect.controls.items():
        columns = [values[name], wanted[name]] if wanted else [values[name]]
        lines.append(f"{name:<38}" + "".join(f"{value:12.4g}" for value in columns) + f" {param.unit}")
    return "\n".join(lines)


def main() -> int:
    """Fits and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", metavar="FILE", help="the recording; a synthetic song if there is none")
    parser.add_argument(
        "--target", metavar="FILE", help="what it shall become, aligned with it; else a hidden setting's"
    )
    parser.add_argument("--output", metavar="FILE", help="write there what the plug-ins make of the recording")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.target and not options.input:
        parser.error("--target needs --input, the recording that it was made of")
    try:
        x, sample_rate = dasp.io.load(options.input) if options.input else (song(options.seed), 44100)
        effect = plugins(sample_rate)
        true = None
        if options.target:
            target, target_rate = dasp.io.load(options.target)
            if target_rate != sample_rate:
                target = dasp.io.resample(target, target_rate, sample_rate)
            if target.shape != x.shape:
                raise ValueError(f"{options.target}: has shape {tuple(target.shape)}, the recording {tuple(x.shape)}")
        else:
            true = hidden_settings(effect, options.seed)[0]
            target = effect(x, true)
        found, distances = fit(effect, x, target, options.steps, seed=options.seed)
        if options.output:
            dasp.io.save(options.output, effect(x, found), sample_rate)
    except (ImportError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(
        f"distance {distances[0]:.2f} -> {distances[-1]:.2f} dB, {100 * (1 - distances[-1] / distances[0]):.0f} % less"
    )
    print(table(effect, found, true))
    return 0


if __name__ == "__main__":
    sys.exit(main())
