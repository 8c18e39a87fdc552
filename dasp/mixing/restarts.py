"""Leads equalisers out of local minima of a refinement, by other starts that do nearly the same.

Four bands can make nearly one curve in several ways, with their frequencies elsewhere.  A descent ends in the nearest
of these, and level, compressor and the other tracks make up for what is missing.  Curves alone are cheap to compare:
from many starts at once, bands are fitted to what a track's filter ought to be, and the few results that do as well as
the present ones in another way are refined against the waveform.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.refinement import Refinement
from dasp.mixing.responses import equalizer_response

# Other starts of each equaliser, steps of each, and where they are drawn: deviations from the defaults, normalised.
_STARTS, _STEPS = 32, 24
_DEVIATIONS = {"frequency_hz": 0.12, "gain_db": 0.08, "q": 0.08}
# Bands in which curves are compared, and a factor for a band that is not believed.
_BANDS, _MOST_CHANGE = 100, 0.3
_LOWEST_HZ = 20.0
# A start is another if one of its controls is as many steps away.  As many are refined, by as many steps at most, if
# their curve costs no more than this many times that of the present one.
_APART, _TRIED, _TRIED_STEPS, _WORSE = 5.0, 2, 5, 4.0
# What is tried is given up if it costs this many times what is held against it after two steps, and taken if less.
_HOPELESS, _BETTER = 2.0, 0.98
# If more of the power than this is unexplained it is no local minimum; if less than that, nothing is left to find.
_MOST_UNEXPLAINED, _LEAST_UNEXPLAINED = 1e-2, 1e-8
_DIFFERENCE = 1e-4


@torch.no_grad()
def restart(
    refinement: Refinement,
    console: DifferentiableMixingConsole,
    scales: Tensor,
    generator: torch.Generator,
    on_track: Callable[[], None],
) -> None:
    """Goes through the tracks of a refinement and takes for each what comes closer from another start.

    Args:
        refinement: Its controls change.
        console: Its console.
        scales: Size of a step of each control of a track.
        generator: Draws the starts.
        on_track: Called after each track.
    """
    stage = next((name for name, module in console.strip.stages().items() if module.spec.name == "parametric_eq"), None)
    possible = stage is not None and _LEAST_UNEXPLAINED < refinement.unexplained() < _MOST_UNEXPLAINED
    for track in range(len(refinement.controls["track"])):
        if possible and stage is not None:
            _restart_track(refinement, console, stage, track, scales, generator)
        on_track()


def _restart_track(
    refinement: Refinement,
    console: DifferentiableMixingConsole,
    stage: str,
    track: int,
    scales: Tensor,
    generator: torch.Generator,
) -> None:
    alone = refinement.alone(track)
    names = console.control_names("track")
    columns = torch.tensor([position for position, name in enumerate(names) if name.startswith(f"{stage}.")])
    fader = names.index("gain.gain_db") if "gain.gain_db" in names else None
    free = alone.free[columns]
    present = alone.controls["track"][0]
    if not bool(free.any()):
        return
    best, kept = alone.cost(), alone.controls
    for other, gain_db in _others(alone, console, stage, columns, free, scales, generator):
        u = present.clone()
        u[columns] = other.to(u)
        if fader is not None and bool(alone.free[fader]):
            param = console.strip.stages()["gain"].spec.controls["gain_db"]
            level_db = param.denormalize(u[fader], console.sample_rate) + gain_db
            u[fader] = param.normalize(level_db, console.sample_rate).clamp(0, 1)
        trial = alone.begun_at(u)
        for step in range(_TRIED_STEPS):
            if not trial.step() or (step == 1 and trial.cost() > _HOPELESS * best):
                break
        reached = trial.cost()
        if reached < _BETTER * best:
            best, kept = reached, trial.controls
    refinement.controls["track"] = refinement.controls["track"].clone()
    refinement.controls["track"][track] = kept["track"][0]


def _others(
    alone: Refinement,
    console: DifferentiableMixingConsole,
    stage: str,
    columns: Tensor,
    free: Tensor,
    scales: Tensor,
    generator: torch.Generator,
) -> list[tuple[Tensor, float]]:
    """Other settings of an equaliser that make nearly the curve that is wanted, and a gain in dB with each."""
    rate, module = console.sample_rate, console.strip.stages()[stage]
    edges = torch.logspace(math.log10(_LOWEST_HZ), math.log10(rate / 2), _BANDS + 1, dtype=torch.float64)
    factor, power = alone.wanted(edges)
    # Where other tracks are louder, what is left is theirs.
    factor = torch.where((factor[0] - 1).abs() > _MOST_CHANGE, 1.0, factor[0])
    weight, centre = power[0].sqrt(), (edges[1:] * edges[:-1]).sqrt()
    present = alone.controls["track"][0, columns].double()
    usual = console.default_controls(1)["track"][0, columns].double()
    prior = torch.cat([alone.prior[columns], torch.zeros(1, dtype=torch.float64)])
    usual = torch.cat([usual, torch.zeros(1, dtype=torch.float64)])

    def curve(u: Tensor) -> Tensor:
        return equalizer_response(module.options["kinds"], module.denormalize(u), rate, centre)

    target = factor * curve(present)

    def residual(x: Tensor) -> Tensor:
        # The last is a gain, in tens of dB.
        found = curve(x[..., :-1]) * 10 ** (x[..., -1:] / 2)
        return torch.view_as_real((found / target - 1) * weight).flatten(-2)

    def cost(x: Tensor, rows: Tensor) -> Tensor:
        return rows.square().sum(-1) + (prior * (x - usual).square()).sum(-1)

    names = [console.control_names("track")[position].removeprefix(f"{stage}.").split("[")[0] for position in columns]
    deviation = torch.tensor([_DEVIATIONS[name] for name in names], dtype=torch.float64)
    drawn = usual[:-1] + deviation * torch.randn(_STARTS, len(columns), generator=generator, dtype=torch.float64)
    x = torch.cat([present[None], torch.where(free, drawn.clamp(0.01, 0.99), present)])
    x = torch.cat([x, torch.zeros(len(x), 1, dtype=torch.float64)], -1)
    size = torch.cat([scales[columns].double() * free, torch.tensor([0.01], dtype=torch.float64)])
    rows = residual(x)
    reached, damping = cost(x, rows), torch.full((len(x), 1, 1), 1e-2, dtype=torch.float64)
    for _ in range(_STEPS):
        # Inwards, as in the refinement.
        moved = torch.where(x > 0.5, -_DIFFERENCE, _DIFFERENCE)
        slopes = (residual(x[:, None] + torch.diag_embed(moved)) - rows[:, None]) / moved[..., None]
        slopes, to_usual = slopes * size[:, None], prior * (x - usual) * size
        normal = slopes @ slopes.mT + torch.diag(prior * size.square())
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        ridge = torch.diag_embed(diagonal + 1e-4 * diagonal.mean(-1, keepdim=True) + 1e-12)
        slope = (slopes @ rows[..., None])[..., 0] + to_usual
        after = x - size * torch.linalg.solve(normal + damping * ridge, slope)
        after = torch.cat([after[:, :-1].clamp(0, 1), after[:, -1:]], -1)
        rows_after = residual(after)
        better = cost(after, rows_after) < reached
        x, rows = (torch.where(better[:, None], new, old) for new, old in ((after, x), (rows_after, rows)))
        reached = cost(x, rows)
        damping = (damping * torch.where(better, 0.3, 5.0)[:, None, None]).clamp(1e-8, 1e8)
    chosen: list[Tensor] = []
    for index in reached[1:].argsort() + 1:
        taken = [present, *(other[:-1] for other in chosen)]
        apart = all(((x[index, :-1] - other).abs() > _APART * scales[columns]).any() for other in taken)
        if apart and reached[index] < _WORSE * reached[0] and len(chosen) < _TRIED:
            chosen.append(x[index])
    return [(other[:-1], 10 * float(other[-1])) for other in chosen]
