"""Impulse responses from what went into a room and what came out: regularised least squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

import dasp.modules as M
from dasp._checks import check_audio, shape_text
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import send_gain

_MOST_ITERATIONS = 40
# What is left of the gradient when the solution is exact to the precision of audio.
_EXACT = 1e-10
# What counts as noise, relative to the energy of what is sent.
_REGULARISATION = 1e-2
# An impulse response has no more values than this share of the samples it is found from.
_SHARE = 0.25
_LONGEST_S, _SHORTEST_S = 3.0, 0.2
# What the response may last beyond the time in which it decays by 60 dB.
_TAIL = 1.25
# Gains of a master beyond this are those of silence.
_MOST_GAIN = 10.0


def deconvolve(
    source: Tensor,
    target: Tensor,
    taps: int,
    decay: float = math.inf,
    regularisation: float = 0.0,
    gain: Tensor | None = None,
    iterations: int = _MOST_ITERATIONS,
) -> Tensor:
    """Finds the impulse responses that make the target out of the source.

    Minimises `|gain (source * h) - target|^2 + regularisation E |h / w|^2` by conjugate gradients with FFTs in float64,
    where E is the energy of the source in as many samples as the target has, and w falls by 60 dB in `decay` samples.

    Args:
        source: What goes in, `(1, past + samples)`; what comes before the target's first sample may be given too.
        target: What comes out, `(channels, samples)`.
        taps: Length of the responses.
        decay: Samples in which responses are expected to decay by 60 dB.
        regularisation: Variance of the noise in the target over that of the first values of h, relative to E.
        gain: Gain `(1 or channels, samples)` behind the convolution, None for 1.
        iterations: Most iterations; fewer if the solution is exact before.

    Returns:
        Impulse responses `(channels, taps)` in the type of the target.

    Raises:
        TypeError: If source or target is not floating-point audio.
        ValueError: If the source is not mono or shorter than the target, taps is less than 1, decay is not above 0,
            regularisation is negative or not finite, or gain does not match.

    Example:
        >>> source = torch.tensor([[1.0, 2.0, 0.0, -1.0]])
        >>> dasp.mixing.deconvolve(source, torch.tensor([[0.0, 0.5, 1.0, 0.0]]), taps=2).round(decimals=6) + 0.0
        tensor([[0.0000, 0.5000]])
    """
    _check(source, target, taps, decay, regularisation, gain)
    samples = target.shape[-1]
    past = source.shape[-1] - samples
    size = 1 << (source.shape[-1] + taps - 2).bit_length()
    spectrum = torch.fft.rfft(source.double(), size)
    level = target.new_ones(1, 1, dtype=torch.float64) if gain is None else gain.double()
    weight = 10 ** (-3 / decay * torch.arange(taps, dtype=torch.float64, device=target.device))
    noise = regularisation * (source.double().square().sum() / source.shape[-1]) * level.square().mean() * samples

    def forward(z: Tensor) -> Tensor:
        y: Tensor = torch.fft.irfft(spectrum * torch.fft.rfft(z * weight, size), size)
        return level * y[..., past : past + samples]

    def adjoint(y: Tensor) -> Tensor:
        back = torch.nn.functional.pad(level * y, (past, 0))
        h: Tensor = torch.fft.irfft(spectrum.conj() * torch.fft.rfft(back, size), size)
        return weight * h[..., :taps]

    z = target.new_zeros(target.shape[0], taps, dtype=torch.float64)
    left = adjoint(target.double())
    direction, power = left.clone(), left.square().sum(-1, keepdim=True)
    end = _EXACT**2 * power
    for _ in range(iterations):
        if bool((power <= end).all()):
            break
        image = adjoint(forward(direction)) + noise * direction
        step = power / (direction * image).sum(-1, keepdim=True).clamp_min(1e-300)
        z = z + step * direction
        left = left - step * image
        before, power = power, left.square().sum(-1, keepdim=True)
        direction = left + power / before.clamp_min(1e-300) * direction
    return (z * weight).to(target.dtype)


def _check(source: Tensor, target: Tensor, taps: int, decay: float, regularisation: float, gain: Tensor | None) -> None:
    check_audio("deconvolve", source, (1,), "source")
    check_audio("deconvolve", target, (), "target")
    if source.ndim != 2 or target.ndim != 2:
        raise ValueError(f"deconvolve: target has shape {shape_text(target.shape)}, expected (channels, samples)")
    if source.shape[-1] < target.shape[-1]:
        have, want = source.shape[-1], target.shape[-1]
        raise ValueError(f"deconvolve: source has {have} samples, expected at least {want}, those of the target")
    if taps < 1:
        raise ValueError(f"deconvolve: taps is {taps}, expected at least 1")
    if not decay > 0:
        raise ValueError(f"deconvolve: decay is {decay}, expected more than 0 samples")
    if not 0 <= regularisation < math.inf:
        raise ValueError(f"deconvolve: regularisation is {regularisation}, expected a finite number from 0 up")
    if gain is not None and tuple(gain.shape) not in ((1, target.shape[-1]), tuple(target.shape)):
        raise ValueError(
            f"deconvolve: gain has shape {shape_text(gain.shape)}, expected {shape_text(target.shape)}, mono or not"
        )


def noise_reverbs(console: DifferentiableMixingConsole) -> list[str]:
    """The buses that are nothing but a noise reverberation."""
    chains = {bus: list(console.sections()[bus].stages().values()) for bus in console.buses}
    return [bus for bus, own in chains.items() if [s.spec.name for s in own] == ["noise_shaped_reverb"]]


def with_impulse_responses(
    console: DifferentiableMixingConsole, responses: Mapping[str, Tensor]
) -> DifferentiableMixingConsole:
    """The console with other buses: what they are sent, in mono, convolved with impulse responses `(2, taps)`."""
    rate = console.sample_rate
    buses, locked = {}, [name for name in console.locked if name.split(".")[0] not in responses]
    for bus in console.buses:
        buses[bus] = console.sections()[bus]
        if bus in responses:
            reverb = M.ConvolutionReverb(rate, impulse_response=responses[bus], mix=1.0)
            buses[bus] = M.Chain(M.StereoWidener(rate, width=0.0), reverb)
            locked += [f"{bus}.stereo_widener.width", f"{bus}.convolution_reverb.mix"]
    groups: Mapping[str, M.Chain] = {group: console.sections()[group] for group in console.groups}
    return DifferentiableMixingConsole(rate, console.strip, buses, console.master, locked, groups, console.pre_fader)


@torch.no_grad()
def bus_response(
    console: DifferentiableMixingConsole,
    controls: Mapping[str, Tensor],
    tracks: Sequence[Tensor],
    reference: Tensor,
    bus: str,
    decay_s: float,
    lead: int = 0,
) -> Tensor:
    """The impulse response of a bus with which the mix comes closest to the reference.

    Args:
        console: A console whose groups have no tracks, without latency.
        controls: Its normalised controls.
        tracks: Tracks `(channels, lead + samples)`.
        reference: The mix `(2, samples)`.
        bus: The bus; what it has now counts for what the master does, and is replaced.
        decay_s: Time in which the response is expected to decay by 60 dB.
        lead: Samples before the reference.

    Returns:
        `(2, taps)`, by which what is sent, in mono, is convolved.
    """
    values, chains = console.denormalize(controls), console.sections()
    strips = console.strips(tracks, values["track"])
    dry, sent = strips.sum(0), {}
    for name in console.buses:
        sent[name] = (send_gain(values["track"]["send"][f"{name}_db"])[:, None, None] * strips).sum(0)
        if name != bus:
            dry = dry + chains[name].process(sent[name], values[name])
    source = sent[bus].mean(0, keepdim=True)
    whole = dry + chains[bus].process(sent[bus], values[bus])
    gain = torch.ones_like(whole[:1])
    for name, stage in console.master.stages().items():

        def process(x: Tensor, apply: Callable[..., Tensor] = stage.process, own: str = name) -> Tensor:
            return apply(x, **values["master"][own])

        after = process(whole)
        if stage.spec.linear:
            dry, source = process(dry), process(source)
        else:
            # What is left is a gain that follows the whole, of which dry and wet are parts.
            power = whole.square().sum(0, keepdim=True)
            now = torch.where(power > 0, (after * whole).sum(0, keepdim=True) / power, 1.0)
            gain = gain * now.clamp(1 / _MOST_GAIN, _MOST_GAIN)
            dry = dry * now.clamp(1 / _MOST_GAIN, _MOST_GAIN)
        whole = after
    samples = reference.shape[-1]
    longest = min(_LONGEST_S, max(_SHORTEST_S, _TAIL * decay_s)) * console.sample_rate
    taps = max(1, min(round(longest), int(_SHARE * samples)))
    target = reference - dry[..., lead:]
    return deconvolve(source, target, taps, decay_s * console.sample_rate, _REGULARISATION, gain[..., lead:])
