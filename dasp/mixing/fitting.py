"""Finds the controls of a console with which given tracks become a given mix, by gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from dasp._checks import check_audio, check_choice
from dasp._spec import PROCESSORS
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.constraints import Constraints
from dasp.mixing.controls import Values
from dasp.mixing.deconvolution import bus_response, noise_reverbs, with_impulse_responses
from dasp.mixing.excerpts import choose_excerpts
from dasp.mixing.losses import BandLevelLoss, StereoSTFTLoss
from dasp.mixing.refinement import Refinement, Stretch, can_refine
from dasp.mixing.restarts import restart

# Step of gradient descent per kind of control, on the normalised scale: a fraction of a dB, of a semitone or of a
# direction that is just audible, so that all kinds arrive at about the same time.
STEP_SIZES = {
    "gain.gain_db": 0.004,
    "pan": 0.006,
    "send": 0.012,
    "parametric_eq.frequency_hz": 0.006,
    "parametric_eq.gain_db": 0.012,
    "parametric_eq.q": 0.012,
    "threshold_db": 0.01,
    "ratio": 0.02,
    "attack_ms": 0.02,
    "release_ms": 0.02,
    "knee_db": 0.01,
    "band_gain_db": 0.012,
    "decay_s": 0.012,
    "pre_delay_ms": 0.01,
}
_OTHER_STEP_SIZE = 0.01
_BETAS = (0.9, 0.98)
# Share of the step sizes that is left at the end.
_LAST_STEP = 0.1
_SIDE_WEIGHT = 2.0
# Share of the band levels in the distance.
_BAND_SHARE = 0.5
_START_SEND_DB = -20.0
# What equalisation costs, in dB of distance per dB^2 of mean square gain, and how many times that for the gain that all
# bands of an equaliser share.  The latter belongs to the fader, and a band where a track has nothing to hear to nobody:
# this settles both and decides nothing that is audible.
_EQUALIZER_COST = 0.02
_SHARED_COST = 10.0
# If this share of the amplitude of the mix is left after least squares, stems and mix do not align.
_UNEXPLAINED = 0.9
# What an excerpt is processed with in front of it.
_LEAD_S = 0.7
# Spectra of longer references are computed again for each excerpt instead of being kept.
_CACHED_SECONDS = 60
# Enough for one gain per track, whatever the length of the song.
_LEAST_SQUARES_SAMPLES = 1 << 18
# Of longer songs, so many sections of so many seconds are fitted.
_LONGEST_S, _SECTIONS, _SECTION_S = 90.0, 3, 20.0
# What is compared sample by sample: so many excerpts of so many seconds.
_STRETCHES, _STRETCH_S = 2, 2.0
# How long a response is listened to before the section it is found from.
_ROOM_S = 3.0
# torch.quantile sorts at most 2^24 values.
_MOST_STRETCHES = 1 << 24


class _Round(NamedTuple):
    """Steps against the waveform.

    Attributes:
        steps: The most that are made.
        precision: What counts as noise.
        restarts: Whether other equalisers are tried first, track by track.
    """

    steps: int
    precision: float
    restarts: bool = False


# Where an impulse response is found in between, rounds are short; where all can be explained, what is left is looked at
# ever more closely.
_ROUNDS = (_Round(8, 1e-2), _Round(4, 1e-5, True), _Round(4, 1e-5, True), _Round(8, 1e-5))
_NOISY_ROUNDS = (_Round(4, 1e-2),)
_ROOM_ROUNDS = (_Round(3, 1e-2),) * 3


@dataclass(frozen=True)
class Progress:
    """What is known after a step of a fit.

    Attributes:
        step: Steps done.
        steps: Steps planned.
        loss: Loss of this step's excerpt in dB; of the whole after a refinement.
        stage: "descent", or "refinement" against the waveform.

    Example:
        >>> dasp.mixing.Progress(step=10, steps=150, loss=3.2)
        Progress(step=10, steps=150, loss=3.2, stage='descent')
    """

    step: int
    steps: int
    loss: float
    stage: str = "descent"


@dataclass(frozen=True)
class FitResult:
    """What a fit found.

    Attributes:
        console: The console that the controls are of: that which was given, or one with impulse responses in place of
            its noise reverberations.
        controls: Normalised controls.
        losses: Loss of each step's excerpt in dB.
        start_loss: Loss of the whole at the start, with the best faders and pans alone, in dB.
        end_loss: Loss of the whole at the end, in dB.
        interrupted: Whether it was stopped before the last step.
        refined: Whether the waveform of the reference brought the controls closer.

    Example:
        >>> strip = dasp.modules.Chain(dasp.modules.Gain(44100), dasp.modules.StereoPanner(44100))
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100, strip, buses={}, master=None)
        >>> tracks = torch.randn(2, 1, 8192)
        >>> mix = console(tracks, console.default_controls(2))
        >>> result = dasp.mixing.fit(console, list(tracks), mix, steps=1)
        >>> result.interrupted, len(result.losses)
        (False, 1)
    """

    console: DifferentiableMixingConsole
    controls: dict[str, Tensor]
    losses: tuple[float, ...]
    start_loss: float
    end_loss: float
    interrupted: bool
    refined: bool


def fit(
    console: DifferentiableMixingConsole,
    tracks: Tensor | Sequence[Tensor],
    reference: Tensor,
    steps: int = 150,
    excerpt_s: float = 4.5,
    seed: int = 0,
    on_step: Callable[[Progress], None] | None = None,
    constraints: Constraints | None = None,
    reverb: Literal["noise", "impulse"] = "noise",
) -> FitResult:
    """Finds controls with which the console makes the reference out of the tracks.

    Faders and pans start at the least-squares solution.  Then Adam minimises a multi-resolution STFT distance of left,
    right, sum and difference, on a random excerpt at each step.  Excerpts are processed with what comes before them, so
    that compressors and reverberation are in their course.  Last, damped Gauss-Newton steps bring the waveforms
    together, as far as controls explain them, which needs stems that align to the sample; what they find counts only
    if the spectral distance agrees.  Where there is no reverberation and nearly all is explained, equalisers start
    anew from other settings that make nearly the same curve, and the best of them counts.  Of a song of more than 90 s,
    three sections of 20 s are fitted that have most of every track.  A KeyboardInterrupt ends the fit with what is
    found so far.

    Args:
        console: The console; its locked controls keep their defaults.
        tracks: Tracks `(1 or 2, samples)` each, all of one length, or a tensor `(tracks, 1 or 2, samples)`.
        reference: The mix to reproduce, `(2, samples)`.
        steps: Steps of gradient descent.
        excerpt_s: Length of an excerpt in seconds.
        seed: Seed of the choice of excerpts and of other starts.
        on_step: Called after each step.
        constraints: Locks and limits that the controls obey from the start; by default those of the console alone.
        reverb: "impulse" puts in the place of each bus that is nothing but a `NoiseShapedReverb`, and that constraints
            leave alone, the impulse response that regularised least squares find for it; "noise" leaves buses as they
            are.

    Returns:
        The controls, the console they are of, and how the loss came down.  The same arguments give the same result.

    Raises:
        TypeError: If tracks or reference is not floating-point audio.
        ValueError: If their lengths differ, the reference is not stereo or is silent, steps is less than 0, or reverb
            is unknown.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> song = dasp.mixing.multitrack(seed=1, seconds=0.5, num_tracks=2)
        >>> hidden = console.random_controls(2, generator=torch.Generator().manual_seed(0))
        >>> reference = console(song.tracks, hidden).detach()
        >>> result = dasp.mixing.fit(console, list(song.tracks), reference, steps=2)
        >>> result.end_loss < result.start_loss
        True
    """
    # A tensor of tracks, as consoles take them, is a sequence of them.
    tracks = list(tracks)
    _check(tracks, reference, steps)
    check_choice("fit", "reverb", reverb, ("noise", "impulse"))
    samples, late = reference.shape[-1], console.latency
    if late:
        # What comes out late is compared with the reference from where it begins.
        tracks = [functional.pad(track, (0, late)) for track in tracks]
    loss = _Distance(reference, console.sample_rate)
    obey = Constraints(console) if constraints is None else constraints
    sections = _sections(tracks, samples, console.sample_rate, loss.grid)
    heard = [torch.cat([x[..., begin:end] for begin, end in sections], -1) for x in (*tracks, reference)]
    start = obey(console.normalize(starting_point(console, heard[:-1], heard[-1])))
    descent = _Descent(console, start, obey)
    length, lead = (max(round(s * console.sample_rate) // loss.grid, 4) * loss.grid for s in (excerpt_s, _LEAD_S))
    places = [begin for first, last in sections for begin in range(first, max(first, last - length) + 1, loss.grid)]
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    interrupted = False
    whole = _Whole(tracks, sections, loss, lead)
    start_loss = whole(console, start)
    desk, found, refined = console, start, False
    refinements = _planned(console, obey, reverb, len(tracks)) if steps else 0
    try:
        for step in range(1, steps + 1):
            begin = places[int(torch.randint(len(places), (), generator=generator))]
            before = min(lead, begin)
            excerpt = [track[..., begin - before : begin + length + late] for track in tracks]
            values = console.denormalize(descent.controls())
            distance = loss(console.mix(excerpt, values)[..., before + late :], begin)
            descent.step(distance + _EQUALIZER_COST * _equalization(values), step / steps)
            losses.append(float(distance.detach()))
            if on_step is not None:
                on_step(Progress(step, steps + refinements, losses[-1]))
        found = {section: u.detach() for section, u in descent.controls().items()}
        if refinements:
            end_loss = whole(console, found)

            def report(step: int) -> None:
                if on_step is not None:
                    on_step(Progress(steps + step, steps + refinements, end_loss, "refinement"))

            room = noise_reverbs(console) if reverb == "impulse" else []
            room = [bus for bus in room if obey.leaves(bus)]
            other, closer = _refined(console, found, obey, tracks, reference, sections, room, seed, report)
            if whole(other, closer) < end_loss:
                desk, found, refined = other, closer, True
    except KeyboardInterrupt:
        interrupted = True
        if not refined:
            found = {section: u.detach() for section, u in descent.controls().items()}
    return FitResult(desk, found, tuple(losses), start_loss, whole(desk, found), interrupted, refined)


def _sections(tracks: Sequence[Tensor], samples: int, sample_rate: float, grid: int) -> list[tuple[int, int]]:
    """Beginnings and ends of what is fitted: all of a short song, and of a long one what has most of every track."""
    if samples <= _LONGEST_S * sample_rate:
        return [(0, samples)]
    length = round(_SECTION_S * sample_rate)
    return [(begin, begin + length) for begin in choose_excerpts(tracks, length, _SECTIONS, grid)]


def _planned(console: DifferentiableMixingConsole, obey: Constraints, reverb: str, tracks: int) -> int:
    """Steps against the waveform; a track whose equaliser is tried again is one of them."""
    if not can_refine(console):
        return 0
    rooms = reverb == "impulse" and any(obey.leaves(bus) for bus in noise_reverbs(console))
    return sum(each.steps + each.restarts * tracks for each in _rounds(console, rooms))


def _rounds(console: DifferentiableMixingConsole, rooms: bool) -> tuple[_Round, ...]:
    if rooms:
        return _ROOM_ROUNDS
    return _NOISY_ROUNDS if noise_reverbs(console) else _ROUNDS


@torch.no_grad()
def _refined(
    console: DifferentiableMixingConsole,
    controls: dict[str, Tensor],
    obey: Constraints,
    tracks: Sequence[Tensor],
    reference: Tensor,
    sections: Sequence[tuple[int, int]],
    rooms: Sequence[str],
    seed: int,
    report: Callable[[int], None],
) -> tuple[DifferentiableMixingConsole, dict[str, Tensor]]:
    """Controls that bring the waveforms closer, and the console with the impulse responses of its rooms."""
    rate = console.sample_rate
    length, lead = round(_STRETCH_S * rate), round(_LEAD_S * rate)
    stretches = []
    for first, last in sections:
        begins = choose_excerpts([track[..., first:last] for track in tracks], length, _STRETCHES)
        stretches += [Stretch(tracks, reference, first + begin, length, lead) for begin in begins]
    values = console.denormalize(controls)
    decays = {bus: float(values[bus]["noise_shaped_reverb"]["decay_s"].median()) for bus in rooms}
    first, last = sections[0]
    before = min(first, round(_ROOM_S * rate))
    section = [track[..., first - before : last] for track in tracks]
    desk, done, scales = console, 0, _scales(console)
    generator = torch.Generator().manual_seed(seed)

    def advance() -> None:
        nonlocal done
        done += 1
        report(done)

    def listen() -> None:
        nonlocal desk, controls
        for bus in rooms:
            response = bus_response(desk, controls, section, reference[..., first:last], bus, decays[bus], before)
            desk = with_impulse_responses(desk, {bus: response})
            controls = {**controls, bus: desk.default_controls(1)[bus]}

    for each in _rounds(console, bool(rooms)):
        listen()
        refinement = Refinement(desk, stretches, controls, obey, scales, each.precision)
        if each.restarts:
            restart(refinement, desk, scales["track"], generator, advance)
        for step in range(each.steps):
            more = refinement.step()
            advance()
            if not more:
                done += each.steps - step - 1
                report(done)
                break
        controls = refinement.controls
    listen()
    return desk, controls


def starting_point(console: DifferentiableMixingConsole, tracks: Sequence[Tensor], reference: Tensor) -> Values:
    """Controls to start from: gentle compression at each track's own level, and the best faders and pans.

    Only what the console has is set; the rest keeps its default.
    """
    values = console.denormalize(console.default_controls(len(tracks)))
    strip = values["track"]
    if "compressor" in strip:
        loud = torch.stack([loud_level_db(track, console.sample_rate) for track in tracks])
        strip["compressor"]["threshold_db"] = _within("compressor", "threshold_db", loud - 10)
        strip["compressor"]["ratio"] = torch.full_like(loud, 2.0)
        strip["compressor"]["release_ms"] = torch.full_like(loud, 150.0)
    if "compressor" in values["master"]:
        values["master"]["compressor"]["ratio"] = torch.tensor(1.2)
    for send in strip["send"].values():
        send.fill_(_START_SEND_DB)
    if "gain" in strip:
        _set_faders(console, strip, tracks, reference)
    return values


def _set_faders(
    console: DifferentiableMixingConsole,
    strip: dict[str, dict[str, Tensor]],
    tracks: Sequence[Tensor],
    reference: Tensor,
) -> None:
    """Sets gains and, where there is a panner, pans to the non-negative least-squares solution of each channel."""
    stride = max(1, reference.shape[-1] // _LEAST_SQUARES_SAMPLES)
    with torch.no_grad():
        late = console.strip.latency
        strips = console.strips(tracks, strip)[..., late : late + reference.shape[-1] : stride].double()
    mix = reference[..., : strips.shape[-1] * stride : stride].double()
    weights, left_over = _non_negative(strips, mix)
    if left_over > _UNEXPLAINED * float(mix.norm()):
        # Stems that do not align to the sample still have their levels.
        cells, wanted = (_cells(x, console.sample_rate / stride) for x in (strips, mix))
        weights = _non_negative(cells, wanted)[0].sqrt()
    left, right = weights.clamp_min(1e-9)
    if "stereo_panner" in strip:
        # A strip in the centre passes at 0 dB: of the power of a panned one, each side of the centre has half.
        level = torch.sqrt((left.square() + right.square()) / 2)
        strip["stereo_panner"]["pan"] = (torch.atan2(right, left) * (4 / math.pi) - 1).float()
    else:
        level = (left + right) / 2
    strip["gain"]["gain_db"] = _within("gain", "gain_db", strip["gain"]["gain_db"] + 20 * torch.log10(level).float())


def _non_negative(parts: Tensor, whole: Tensor) -> tuple[Tensor, float]:
    """Weights `(2, parts)` of parts `(parts, 2, values)` whose sums come closest to the whole, and the distance."""
    found = [scipy.optimize.nnls(parts[:, ch].T.numpy(), whole[ch].numpy()) for ch in (0, 1)]
    return torch.from_numpy(np.stack([weights for weights, _ in found])), math.hypot(*(rest for _, rest in found))


def _cells(x: Tensor, sample_rate: float) -> Tensor:
    """Power of bins of frames of about 50 ms, `(..., cells)`."""
    size = max(2, min(round(0.05 * sample_rate), x.shape[-1]))
    power: Tensor = torch.fft.rfft(x.unfold(-1, size, size)).abs().square()
    return power.flatten(-2)


def loud_level_db(track: Tensor, sample_rate: float) -> Tensor:
    """Level of the peaks of a track: that which its loudest twentieth of 20 ms stretches exceeds."""
    size = max(1, min(round(sample_rate / 50), track.shape[-1]))
    peaks = track.abs().amax(0)[: track.shape[-1] // size * size].reshape(-1, size).amax(-1)
    return 20 * torch.log10(torch.quantile(peaks[:_MOST_STRETCHES], 0.95).clamp_min(1e-6))


def _within(processor: str, control: str, value: Tensor) -> Tensor:
    """A value brought a little inside the usual range of a control, where it can still move both ways."""
    param = PROCESSORS[processor].controls[control]
    margin = 0.02 * (param.high - param.low)
    return value.clamp(param.low + margin, param.high - margin)


def _equalization(values: Values) -> Tensor:
    """Mean square gain of the equalisers in dB^2, the part that all bands share counted `1 + _SHARED_COST` times."""
    gains = [stages["parametric_eq"]["gain_db"] for stages in values.values() if "parametric_eq" in stages]
    costs = [gain.square().mean() + _SHARED_COST * gain.mean(-1).square().mean() for gain in gains]
    return torch.stack(costs).mean() if costs else torch.zeros(())


def _check(tracks: Sequence[Tensor], reference: Tensor, steps: int) -> None:
    check_audio("fit", reference, (2,), "reference")
    if not tracks:
        raise ValueError("fit: tracks is empty, expected at least one track")
    for position, track in enumerate(tracks):
        check_audio("fit", track, (1, 2), f"tracks[{position}]")
        if track.shape[-1] != reference.shape[-1]:
            have, want = track.shape[-1], reference.shape[-1]
            raise ValueError(f"fit: tracks[{position}] has {have} samples, expected {want} like the reference")
    if not bool(reference.any()):
        raise ValueError("fit: reference is silent")
    if steps < 0:
        raise ValueError(f"fit: steps is {steps}, expected at least 0")


class _Whole:
    """The distance of the whole, or of the sections of a long song."""

    def __init__(
        self, tracks: Sequence[Tensor], sections: Sequence[tuple[int, int]], loss: _Distance, lead: int
    ) -> None:
        self._tracks, self._sections, self._loss, self._lead = tracks, sections, loss, lead

    @torch.no_grad()
    def __call__(self, console: DifferentiableMixingConsole, controls: dict[str, Tensor]) -> float:
        total, late = 0.0, console.latency
        for begin, end in self._sections:
            before = min(self._lead, begin)
            tracks = [track[..., begin - before : end + late] for track in self._tracks]
            total += float(self._loss(console(tracks, controls)[..., before + late :], begin))
        return total / len(self._sections)


class _Distance:
    """Mean of the bin by bin and the band by band distance of a mix from the reference, in dB."""

    def __init__(self, reference: Tensor, sample_rate: float) -> None:
        self._stft = StereoSTFTLoss(side=_SIDE_WEIGHT)
        self._target = self._stft.reference(reference, cache=reference.shape[-1] <= _CACHED_SECONDS * sample_rate)
        self._bands = BandLevelLoss(reference, sample_rate)
        self.grid = math.lcm(self._stft.grid, self._bands.grid)

    def __call__(self, mix: Tensor, start: int = 0) -> Tensor:
        distance: Tensor = self._stft(mix, self._target, start)
        if mix.shape[-1] < self._bands.size:
            return distance
        bands: Tensor = self._bands(mix, start)
        return (1 - _BAND_SHARE) * distance + _BAND_SHARE * bands


class _Descent:
    """Adam on normalised controls, with a step size for each, where they obey constraints."""

    def __init__(self, console: DifferentiableMixingConsole, start: dict[str, Tensor], obey: Constraints) -> None:
        self._rates = {section: _step_sizes(console, section) for section in start}
        # Adam moves every variable by about its learning rate: variables in units of their step size share one.
        self._scaled = {
            section: (u.detach().float() / self._rates[section]).requires_grad_() for section, u in start.items()
        }
        self._obey = obey
        self._adam = torch.optim.Adam(self._scaled.values(), lr=1.0, betas=_BETAS)

    def controls(self) -> dict[str, Tensor]:
        """The controls, differentiable; locked ones have their values and no gradient."""
        return self._obey({section: self._scaled[section] * rate for section, rate in self._rates.items()})

    def step(self, loss: Tensor, done: float) -> None:
        """One step along the gradient of the loss, smaller towards the end."""
        self._adam.param_groups[0]["lr"] = _LAST_STEP + (1 - _LAST_STEP) * 0.5 * (1 + math.cos(math.pi * done))
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        with torch.no_grad():
            for section, u in self.controls().items():
                self._scaled[section].copy_(u / self._rates[section])


def _scales(console: DifferentiableMixingConsole) -> dict[str, Tensor]:
    return {section: _step_sizes(console, section) for section in ("track", "master")}


def _step_sizes(console: DifferentiableMixingConsole, section: str) -> Tensor:
    """The step size of each control of a section's flat vector."""
    names = console.control_names(section)
    return torch.tensor(
        [next((size for kind, size in STEP_SIZES.items() if kind in name), _OTHER_STEP_SIZE) for name in names]
    )
