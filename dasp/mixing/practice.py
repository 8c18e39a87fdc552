"""Console settings that a person might choose: by instrument, and at random around others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import dasp.modules as M
from dasp._checks import check_audio
from dasp._spec import Param
from dasp.mixing.console import SEND, DifferentiableMixingConsole, Values
from dasp.mixing.fitting import loud_level_db
from dasp.mixing.instruments import FAMILIES

__all__ = ["controls_around", "plausible_controls"]

_Band = tuple[float, float]


class _Practice(NamedTuple):
    """What is usually done to an instrument.

    Attributes:
        level_db: Level of its peaks in the mix, before headroom.
        pan: Where the first of the kind stands; the second stands opposite, and so on in turn.
        low, bells, high: Frequency in Hz and gain in dB of a low shelf, of bells from low to high, and of a high shelf.
        depth_db: How far the threshold lies below its peaks.
        ratio, attack_ms, release_ms: Of its compressor.
        reverb_db: Its send.
    """

    level_db: float
    pan: float
    low: _Band
    bells: tuple[_Band, ...]
    high: _Band
    depth_db: float
    ratio: float
    attack_ms: float
    release_ms: float
    reverb_db: float


_PRACTICES: dict[str, _Practice] = {
    "kick": _Practice(-11, 0.0, (70, 3), ((350, -4), (3500, 3)), (9000, 0), 8, 4.0, 20, 90, -60),
    "snare": _Practice(-12, 0.0, (100, -3), ((220, 2), (4000, 3)), (9000, 2), 8, 3.5, 12, 110, -20),
    "hihat": _Practice(-24, 0.35, (250, -9), ((500, -2), (3000, 0)), (10000, 2), 4, 2.0, 10, 80, -32),
    "tom": _Practice(-16, -0.3, (90, 2), ((400, -5), (3500, 3)), (9000, 0), 8, 3.5, 15, 150, -20),
    "overheads": _Practice(-22, 0.0, (200, -6), ((500, -2), (3000, 0)), (10000, 2), 6, 2.0, 15, 200, -26),
    "percussion": _Practice(-23, -0.5, (180, -5), ((500, -1), (3500, 1)), (10000, 2), 6, 2.5, 10, 100, -22),
    "drums": _Practice(-9, 0.0, (70, 2), ((400, -3), (3500, 1)), (9000, 2), 6, 2.5, 20, 120, -24),
    "bass": _Practice(-13, 0.0, (80, 2), ((250, -2), (900, 2)), (6000, -2), 10, 4.0, 25, 180, -60),
    "guitar": _Practice(-19, -0.65, (110, -5), ((400, -2), (2500, 2)), (9000, 0), 6, 2.5, 20, 150, -22),
    "keys": _Practice(-20, 0.4, (110, -4), ((350, -2), (2500, 1)), (8000, 1), 6, 2.5, 20, 200, -20),
    "organ": _Practice(-22, -0.35, (120, -4), ((400, -2), (2000, 1)), (8000, 0), 5, 2.0, 25, 250, -22),
    "pad": _Practice(-25, 0.15, (150, -6), ((500, -2), (2500, -1)), (8000, 2), 4, 1.5, 40, 400, -16),
    "strings": _Practice(-22, 0.3, (130, -4), ((500, -1), (2500, 1)), (9000, 2), 4, 1.8, 40, 350, -15),
    "brass": _Practice(-19, 0.45, (130, -4), ((400, -1), (3000, 1)), (9000, 0), 7, 3.0, 15, 150, -19),
    "lead": _Practice(-16, 0.1, (130, -4), ((400, -1), (3000, 2)), (9000, 1), 7, 3.0, 12, 140, -18),
    "wind": _Practice(-18, 0.25, (150, -4), ((400, -1), (3000, 1)), (9000, 2), 6, 2.5, 15, 180, -17),
    "voice": _Practice(-11, 0.0, (120, -5), ((300, -2), (3500, 3)), (10000, 3), 10, 3.5, 6, 120, -17),
    "backing voice": _Practice(-19, -0.55, (160, -6), ((350, -2), (3500, 2)), (10000, 3), 9, 3.0, 8, 150, -14),
    "other": _Practice(-19, 0.0, (100, -2), ((400, -1), (2500, 0)), (8000, 0), 5, 2.0, 20, 150, -22),
}
# Eight tracks at these levels peak some 3 dB above full scale after equalisation, which leaves as much below it.
_HEADROOM_DB = 6.0
# Of the power that more tracks add, half is taken off every one.
_USUAL_TRACKS = 8
# A track whose peak is below this is silent, and left alone.
_SILENT = 1e-4


def plausible_controls(
    console: DifferentiableMixingConsole,
    tracks: Tensor | Sequence[Tensor],
    instruments: Sequence[str],
    generator: torch.Generator,
    variation: float = 1.0,
) -> dict[str, Tensor]:
    """Mixes tracks as is usual for their instruments, with a person's variation.

    Faders bring the peaks of a track, as they are measured after its equaliser, to the level that its instrument has in
    a mix; compressors work on what exceeds a threshold a few dB below these peaks.  Equalisers, panners and sends to
    reverberation follow the instrument; a second track of an instrument stands opposite the first.  Controls that the
    console locks, and processors other than `gain`, `parametric_eq`, `compressor`, `stereo_panner` and
    `noise_shaped_reverb`, keep their defaults.

    Args:
        console: The console.
        tracks: Audio (tracks, channels, samples), or a sequence of (channels, samples).
        instruments: Instrument of each track, of `dasp.mixing.instruments.FAMILIES`.
        generator: Draws the variation.
        variation: How much settings vary: 1 by about 2 dB, a tenth of the way to a side and a third of an octave; 0 not
            at all.

    Returns:
        Normalised controls, on the CPU, whose mix is `console(tracks, controls)`.

    Raises:
        TypeError: If tracks is not floating-point audio.
        ValueError: If instruments has another length than tracks or one that is unknown, a track has more than two
            channels, or variation is negative.

    Example:
        >>> song = dasp.mixing.multitrack(seed=1, seconds=5.0)
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> draw = torch.Generator().manual_seed(1)
        >>> controls = dasp.mixing.plausible_controls(console, song.tracks, song.instruments, draw)
        >>> console(song.tracks, controls).shape
        torch.Size([2, 220500])
    """
    _check(tracks, instruments, variation)
    draw, count = _Draw(generator, variation), len(instruments)
    wanted = [_PRACTICES[instrument] for instrument in instruments]
    neutral = console.default_controls(count)
    values = _copied(console.denormalize({name: u.double() for name, u in neutral.items()}))
    level_db = _column([p.level_db for p in wanted]) + 2.0 * draw(count)
    level_db = level_db - _HEADROOM_DB - 5.0 * math.log10(max(count, _USUAL_TRACKS / 2) / _USUAL_TRACKS)
    stages = console.strip.stages()
    for name, stage in stages.items():
        if stage.spec.name == "parametric_eq":
            _equalize(values["track"][name], stage.options["kinds"], wanted, draw)
        elif stage.spec.name == "stereo_panner":
            values["track"][name]["pan"] = _places(tracks, instruments) + 0.08 * draw(count)
    # Compressor and fader work on what comes out of the processors before them.
    after_db = _peaks_before(console, ("compressor", "gain", "stereo_panner"), tracks, values["track"])
    for name, stage in stages.items():
        if stage.spec.name == "compressor":
            after_db = _compress(values["track"][name], wanted, after_db, draw)
    for name in [name for name, stage in stages.items() if stage.spec.name == "gain"][:1]:
        values["track"][name]["gain_db"] = level_db - after_db
    for bus in console.buses:
        for name, stage in console.sections()[bus].stages().items():
            if stage.spec.name == "noise_shaped_reverb":
                values["track"]["send"][f"{bus}_db"] = _sends(wanted, draw)
                _place_room(values[bus][name], draw)
    _finish(console.master, values["master"], float(10 * torch.log10((10 ** (level_db / 10)).sum())), draw)
    controls = _settled(console, neutral, values)
    # A silent track says nothing of what it needs.
    heard = torch.stack([track.abs().amax() > _SILENT for track in tracks]).cpu()
    controls["track"] = torch.where(heard[:, None], controls["track"], neutral["track"])
    return controls


# Deviations in the unit of the control, or in octaves where its scale is logarithmic, by stage and control.
_DEVIATIONS = {
    "gain.gain_db": 6.0,
    "parametric_eq.gain_db": 4.0,
    "parametric_eq.frequency_hz": 0.5,
    "parametric_eq.q": 0.5,
    "compressor.threshold_db": 6.0,
    "compressor.ratio": 1.0,
    "compressor.attack_ms": 1.0,
    "compressor.release_ms": 0.8,
    "compressor.knee_db": 3.0,
    "stereo_panner.pan": 0.35,
    "noise_shaped_reverb.band_gain_db": 3.0,
    "noise_shaped_reverb.decay_s": 0.5,
}
_SEND_DEVIATION_DB = 6.0
# Where sends stand that are off in what is drawn around.
_SEND_DB = -24.0


def controls_around(
    console: DifferentiableMixingConsole,
    tracks: int,
    generator: torch.Generator,
    spread: float = 1.0,
    batch: Sequence[int] = (),
    around: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Draws console settings around neutral, or around others, in the range in which people mix.

    Every control is drawn from a normal distribution, truncated at two deviations, on its own scale: faders deviate by
    6 dB, equalisers by 4 dB and half an octave, thresholds by 6 dB, ratios by an octave, panners by 0.35, decays by
    half an octave; a control without such a figure by a tenth of its range.  What leaves the range of a control is
    reflected at its end, so that a neutral ratio of 1 grows.  Sends that are off are drawn about -24 dB.  Locked
    controls keep their values.

    Args:
        console: The console.
        tracks: Number of tracks.
        generator: Draws the settings.
        spread: Factor of all deviations; at 0 the settings are those that are drawn around.
        batch: Batch dimensions.
        around: Normalised controls to draw around, by default the console's neutral ones.

    Returns:
        Normalised controls: "track" (*batch, tracks, P), others (*batch, P).

    Raises:
        ValueError: If spread is negative or not finite.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> controls = dasp.mixing.controls_around(console, 4, torch.Generator().manual_seed(1), spread=0.5)
        >>> console.denormalize(controls)["track"]["gain"]["gain_db"].shape
        torch.Size([4])
    """
    if not 0 <= spread < math.inf:
        raise ValueError(f"controls_around: spread is {spread}, expected a finite number from 0 up")
    neutral = console.default_controls(tracks, batch)
    controls = {}
    for section, centre in (neutral if around is None else around).items():
        centre = centre.expand_as(neutral[section])
        deviation = _deviations(console, section).to(centre)
        # Uniform between the probabilities of two deviations, and back through the error function.
        uniform = torch.rand(centre.shape, generator=generator, dtype=torch.float64) * 2 - 1
        normal = (math.sqrt(2) * torch.erfinv(math.erf(math.sqrt(2)) * uniform)).to(centre)
        if section == "track" and console.buses:
            low, high = SEND.low, SEND.high
            sends = centre[..., -len(console.buses) :]
            usual = sends + min(spread, 1.0) * ((_SEND_DB - low) / (high - low) - sends)
            centre = torch.cat([centre[..., : -len(console.buses)], torch.where(sends <= 0, usual, sends)], -1)
        drawn = (centre + spread * deviation * normal).abs()
        drawn = torch.where(drawn > 1, 2 - drawn, drawn).clamp(0, 1)
        controls[section] = torch.where(console.free(section), drawn, neutral[section] if around is None else centre)
    return controls


def _deviations(console: DifferentiableMixingConsole, section: str) -> Tensor:
    """The deviation of each value of a section's flat vector, on the normalised scale."""
    deviations: list[float] = []
    for stage in console.sections()[section].stages().values():
        for name, size in stage.spec.layout(stage.options):
            deviation = _DEVIATIONS.get(f"{stage.spec.name}.{name}")
            param = stage.spec.controls[name]
            deviations += [_normalised(param, deviation, console.sample_rate)] * (size or 1)
    if section == "track":
        deviations += [_normalised(SEND, _SEND_DEVIATION_DB, console.sample_rate)] * len(console.buses)
    return torch.tensor(deviations)


def _normalised(param: Param, deviation: float | None, sample_rate: float) -> float:
    low, high = param.bounds(sample_rate)
    if deviation is None:
        return 0.1
    return deviation / (math.log2(high / low) if param.scale == "log" else high - low)


class _Draw:
    """Normal deviates, within two deviations."""

    def __init__(self, generator: torch.Generator, variation: float) -> None:
        self._generator, self._variation = generator, variation

    def __call__(self, *shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return self._variation * drawn.clamp(-2, 2)


def _check(tracks: Tensor | Sequence[Tensor], instruments: Sequence[str], variation: float) -> None:
    name = "plausible_controls"
    for position, track in enumerate(tracks):
        check_audio(name, track, (1, 2), f"tracks[{position}]")
        if track.ndim != 2:
            raise ValueError(f"{name}: tracks[{position}] has {track.ndim} dimensions, expected (channels, samples)")
    if len(instruments) != len(tracks) or not instruments:
        raise ValueError(f"{name}: instruments has length {len(instruments)}, expected {len(tracks)}, one per track")
    unknown = [instrument for instrument in instruments if instrument not in FAMILIES]
    if unknown:
        raise ValueError(f"{name}: instruments has {unknown[0]!r}, expected one of {', '.join(FAMILIES)}")
    if not 0 <= variation < math.inf:
        raise ValueError(f"{name}: variation is {variation}, expected a finite number from 0 up")


def _column(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _copied(values: Values) -> Values:
    return {section: {name: dict(stage) for name, stage in stages.items()} for section, stages in values.items()}


def _peaks_before(
    console: DifferentiableMixingConsole,
    ends: Sequence[str],
    tracks: Tensor | Sequence[Tensor],
    values: Mapping[str, Mapping[str, Tensor]],
) -> Tensor:
    """Level of the peaks of each track when it has run through the strip as far as the first of some processors."""
    levels = []
    with torch.no_grad():
        for position, track in enumerate(tracks):
            x = track.detach().cpu()
            for name, stage in console.strip.stages().items():
                if stage.spec.name in ends:
                    break
                x = stage.process(x, **{control: value[position] for control, value in values[name].items()})
            levels.append(loud_level_db(x, console.sample_rate))
    return torch.stack(levels).double()


def _equalize(controls: dict[str, Tensor], kinds: Sequence[str], wanted: Sequence[_Practice], draw: _Draw) -> None:
    """Sets shelves as practice has them, and its bells in order of frequency as far as there are bands for them."""
    bells = 0
    for band, kind in enumerate(kinds):
        if kind == "peaking":
            moves = [practice.bells[bells] for practice in wanted if bells < len(practice.bells)]
            bells += 1
        elif kind in ("low_shelf", "high_shelf"):
            moves = [practice.low if kind == "low_shelf" else practice.high for practice in wanted]
        else:
            continue
        if moves:
            frequency_hz, gain_db = _column([f for f, _ in moves]), _column([g for _, g in moves])
            spread = draw(3, len(moves))
            controls["frequency_hz"][..., band] = frequency_hz * 2 ** (0.3 * spread[0])
            controls["gain_db"][..., band] = gain_db * (1 + 0.2 * spread[1]) + 0.5 * spread[1]
            controls["q"][..., band] = (1.0 if kind == "peaking" else math.sqrt(0.5)) * 2 ** (0.3 * spread[2])


def _compress(controls: dict[str, Tensor], wanted: Sequence[_Practice], peaks_db: Tensor, draw: _Draw) -> Tensor:
    """Sets compressors to what tracks peak at; returns what they peak at then."""
    depth_db = _column([p.depth_db for p in wanted]) + 1.5 * draw(len(wanted))
    ratio = (_column([p.ratio for p in wanted]) * 2 ** (0.25 * draw(len(wanted)))).clamp_min(1)
    controls["threshold_db"] = peaks_db - depth_db
    controls["ratio"] = ratio
    controls["attack_ms"] = _column([p.attack_ms for p in wanted]) * 2 ** (0.4 * draw(len(wanted)))
    controls["release_ms"] = _column([p.release_ms for p in wanted]) * 2 ** (0.3 * draw(len(wanted)))
    # A threshold ends at the lowest of its range.
    depth_db = peaks_db - controls["threshold_db"].clamp_min(-60.0)
    return peaks_db - depth_db.clamp_min(0) * (1 - 1 / ratio)


def _places(tracks: Tensor | Sequence[Tensor], instruments: Sequence[str]) -> Tensor:
    """Positions: players of one instrument stand on both sides in turn, stereo tracks nearer to the centre."""
    seen: Counter[str] = Counter()
    places = []
    for track, instrument in zip(tracks, instruments, strict=True):
        wide = track.shape[-2] == 2 and not torch.equal(track[0], track[1])
        side = -1.0 if seen[instrument] % 2 else 1.0
        # A voice that is doubled leaves the centre as well.
        usual = _PRACTICES[instrument].pan or (0.4 if seen[instrument] else 0.0)
        places.append(side * usual * (0.3 if wide else 1.0))
        seen[instrument] += 1
    return _column(places)


def _sends(wanted: Sequence[_Practice], draw: _Draw) -> Tensor:
    sends = _column([p.reverb_db for p in wanted])
    return torch.where(sends <= SEND.low, sends, sends + 2.0 * draw(len(wanted)))


def _place_room(controls: dict[str, Tensor], draw: _Draw) -> None:
    """A hall whose treble decays faster, with few lows."""
    bands = controls["decay_s"].shape[-1]
    ramp = torch.linspace(0, 1, bands, dtype=torch.float64)
    controls["decay_s"] = (1.5 - 0.9 * ramp) * 2 ** (0.3 * draw(1))
    controls["band_gain_db"] = -6.0 * (1 - 2 * ramp).clamp_min(0) - 3.0 * ramp + 0.7 * draw(bands)


def _finish(master: M.Chain, values: dict[str, dict[str, Tensor]], level_db: float, draw: _Draw) -> None:
    """A little equalisation and the gentle compressor of a master, above its threshold by a few dB."""
    for name, stage in master.stages().items():
        controls = values[name]
        if stage.spec.name == "parametric_eq":
            tilt = {"low_shelf": 1.0, "high_shelf": 1.5}
            usual = _column([tilt.get(kind, 0.0) for kind in stage.options["kinds"]])
            controls["gain_db"] = usual + 0.7 * draw(len(usual))
        elif stage.spec.name == "compressor":
            spread = draw(4)
            controls["threshold_db"] = level_db - 5.0 + spread[0]
            controls["ratio"] = 1.6 * 2 ** (0.15 * spread[1])
            controls["attack_ms"] = 25.0 * 2 ** (0.3 * spread[2])
            controls["release_ms"] = 180.0 * 2 ** (0.3 * spread[3])


def _settled(console: DifferentiableMixingConsole, neutral: Mapping[str, Tensor], values: Values) -> dict[str, Tensor]:
    """Physical values as normalised controls within their ranges; what is locked is neutral."""
    controls = console.normalize(values)
    return {
        section: torch.where(console.free(section), controls[section].clamp(0, 1).to(default), default)
        for section, default in neutral.items()
    }
