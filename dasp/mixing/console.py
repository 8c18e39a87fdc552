"""The differentiable mixing console: strips, sends to effect buses, and a master."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import dasp.modules as M
from dasp._checks import check_audio, check_sample_rate, shape_text
from dasp._spec import Param, State
from dasp.functional.level import amplitude, mixed
from dasp.functional.stereo import centre_gain
from dasp.modules._processor import part_of

Values: TypeAlias = dict[str, dict[str, dict[str, Tensor]]]
"""Physical controls by section, stage and name: `values["track"]["gain"]["gain_db"]`."""

_Process: TypeAlias = Callable[[str, M.Chain, Tensor, Mapping[str, Mapping[str, Tensor]]], Tensor]
"""How audio runs through the chain of a section of this name, with these controls."""

SEND = Param("dB", -60, 12, meaning="Level at which a track is sent to a bus.")
# A send fades out over the lowest part of its range, so that its lowest value is off and not merely quiet.
_SEND_FADE_DB = 10.0

# Tracks of one number of channels share a strip, whose state has this name.
_WIDTHS = {1: "mono", 2: "stereo"}

_KINDS = ("low_shelf", "peaking", "peaking", "high_shelf")


def default_strip(sample_rate: float) -> M.Chain:
    """Four-band equaliser, compressor, fader and panner; the fader does what a makeup gain would."""
    equalizer = M.ParametricEQ(
        sample_rate, kinds=_KINDS, frequency_hz=_at_most((100.0, 500.0, 2500.0, 8000.0), sample_rate)
    )
    return M.Chain(equalizer, M.Compressor(sample_rate, ratio=1.0), M.Gain(sample_rate), M.StereoPanner(sample_rate))


def default_reverb(sample_rate: float) -> M.Chain:
    """A bus of nothing but reverberation."""
    return M.Chain(M.NoiseShapedReverb(sample_rate, mix=1.0))


def default_master(sample_rate: float) -> M.Chain:
    """Equaliser and compressor."""
    return M.Chain(
        M.ParametricEQ(sample_rate, kinds=_KINDS, frequency_hz=_at_most((100.0, 500.0, 2500.0, 8000.0), sample_rate)),
        M.Compressor(sample_rate, ratio=1.0),
    )


def _at_most(frequency_hz: Sequence[float], sample_rate: float) -> list[float]:
    return [min(f, 0.49 * sample_rate) for f in frequency_hz]


DEFAULT_LOCKED = (
    "track.compressor.makeup_gain_db",
    "reverb.noise_shaped_reverb.mix",
    # What a pre-delay changes is below the resolution of a spectral distance.
    "reverb.noise_shaped_reverb.pre_delay_ms",
    "master.compressor.makeup_gain_db",
)


def _send_gain(send_db: Tensor) -> Tensor:
    """The factor of a send level, which fades out towards its lowest value."""
    return amplitude(send_db) * ((send_db - SEND.low) / _SEND_FADE_DB).clamp(0, 1)


class DifferentiableMixingConsole(nn.Module):
    """A mix as a function of tracks and controls.

    Every track runs through `strip`; the sum of the strips, and of the returns of the effect buses that strips are sent
    to, runs through `master`.  The modules describe the processors, their options and the default controls; their own
    parameters are not trained.  Controls are a dict of normalised tensors: "track" `(*batch, tracks, P)`, which ends in
    one send level per bus, and one entry `(*batch, P)` for each bus and for "master".

    A centred track passes the panner of a strip at 0 dB, whatever its law.  A send is off at -60 dB, towards which it
    fades below -50 dB.

    `forward` and `mix` take audio whole; `forward_block` and `mix_block` take it in blocks of any lengths, with a state
    that goes from one to the next, and give the same.

    Args:
        sample_rate: Sample rate in Hz.
        strip: Processors of a track, mono or stereo in and stereo out; by default four-band equaliser, compressor,
            fader and panner.
        buses: Processors of each effect bus by name; by default one "reverb".
        master: Processors of the sum; by default equaliser and compressor.
        locked: Names of controls (`"track.compressor.makeup_gain_db"`) that random draws and fits leave alone.

    Raises:
        ValueError: If a bus has the name of another section, a locked control is unknown, or sample rates differ.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> controls = console.default_controls(tracks=2)
        >>> console(torch.zeros(2, 1, 4410), controls).shape
        torch.Size([2, 4410])
    """

    def __init__(
        self,
        sample_rate: float,
        strip: M.Chain | None = None,
        buses: Mapping[str, M.Chain] | None = None,
        master: M.Chain | None = None,
        locked: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        check_sample_rate("DifferentiableMixingConsole", sample_rate)
        self.sample_rate = sample_rate
        plain = strip is None and buses is None and master is None
        self.strip = strip if strip is not None else default_strip(sample_rate)
        self.buses = nn.ModuleDict(buses if buses is not None else {"reverb": default_reverb(sample_rate)})
        self.master = master if master is not None else default_master(sample_rate)
        for name, chain in self.sections().items():
            if chain.sample_rate != sample_rate:
                raise ValueError(
                    f"DifferentiableMixingConsole: {name} has sample_rate {chain.sample_rate}, expected {sample_rate}"
                )
        reserved = {"track", "master"} & set(self.buses)
        if reserved:
            raise ValueError(
                f"DifferentiableMixingConsole: a bus is named {reserved.pop()!r}, which is another section"
            )
        self.locked = tuple(DEFAULT_LOCKED if locked is None and plain else locked or ())
        known = {name.split("[")[0] for name in self.control_names_flat()}
        for name in self.locked:
            if name.split("[")[0] not in known:
                raise ValueError(f"DifferentiableMixingConsole: locked {name!r} is not a control of this console")
        self.requires_grad_(False)

    def sections(self) -> dict[str, M.Chain]:
        """The chain of each section: "track", every bus, "master"."""
        chains: dict[str, Any] = {"track": self.strip, **dict(self.buses.items()), "master": self.master}
        return chains

    def num_controls(self, section: str) -> int:
        """Values per track or bus of a section's flat vector."""
        return self.sections()[section].num_controls + (len(self.buses) if section == "track" else 0)

    def control_names(self, section: str) -> list[str]:
        """A name for each value of a section's flat vector; sends are `send.reverb_db`."""
        sends = [f"send.{bus}_db" for bus in self.buses] if section == "track" else []
        return self.sections()[section].control_names + sends

    def control_names_flat(self) -> list[str]:
        """Every control with its section in front."""
        return [f"{section}.{name}" for section in self.sections() for name in self.control_names(section)]

    def free(self, section: str) -> Tensor:
        """Which values of a section's flat vector are not locked, `(P,)` bool."""
        locked = set(self.locked)
        names = [f"{section}.{name}" for name in self.control_names(section)]
        return torch.tensor([name not in locked and name.split("[")[0] not in locked for name in names])

    def default_controls(self, tracks: int, batch: Sequence[int] = ()) -> dict[str, Tensor]:
        """Controls that pass the sum of the tracks through: the modules' own values, sends off."""
        controls = {}
        for section, chain in self.sections().items():
            flat = chain.flat().detach()
            if section == "track":
                flat = torch.cat([flat, flat.new_zeros(len(self.buses))])
            controls[section] = flat.expand(*batch, *((tracks,) if section == "track" else ()), -1).clone()
        return controls

    def random_controls(self, tracks: int, generator: torch.Generator, batch: Sequence[int] = ()) -> dict[str, Tensor]:
        """Controls drawn uniformly on the normalised scale; locked ones keep their defaults."""
        controls = self.default_controls(tracks, batch)
        for section, default in controls.items():
            drawn = torch.rand(default.shape, generator=generator, dtype=default.dtype)
            controls[section] = torch.where(self.free(section), drawn, default)
        return controls

    def denormalize(self, controls: Mapping[str, Tensor]) -> Values:
        """Normalised controls to physical values by section, stage and name, differentiable.

        Raises:
            ValueError: If a section is missing or unknown or has another number of values.
        """
        if set(controls) != set(self.sections()):
            raise ValueError(f"controls has sections {sorted(controls)}, expected {sorted(self.sections())}")
        values: Values = {}
        for section, chain in self.sections().items():
            u, total = controls[section], self.num_controls(section)
            if u.ndim < 1 or u.shape[-1] != total:
                raise ValueError(f"controls[{section!r}] has shape {shape_text(u.shape)}, expected {total} values last")
            values[section] = chain.denormalize(u[..., : chain.num_controls])
            if section == "track":
                sends = SEND.denormalize(u[..., chain.num_controls :], self.sample_rate).unbind(-1)
                values[section]["send"] = {f"{bus}_db": send for bus, send in zip(self.buses, sends, strict=True)}
        return values

    def normalize(self, values: Mapping[str, Mapping[str, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
        """Physical values by section, stage and name to normalised controls; the inverse of `denormalize`."""
        controls = {}
        for section, chain in self.sections().items():
            stages = {name: stage for name, stage in values[section].items() if name != "send"}
            flat = chain.normalize(stages)
            if section == "track":
                sends = [SEND.normalize(values[section]["send"][f"{bus}_db"], self.sample_rate) for bus in self.buses]
                flat = torch.cat([flat, *(send.unsqueeze(-1).to(flat.dtype) for send in sends)], -1)
            controls[section] = flat
        return controls

    def forward(
        self, tracks: Tensor | Sequence[Tensor], controls: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Mixes tracks.

        Args:
            tracks: `(*batch, tracks, channels, samples)` with one or two channels, or a sequence of
                `(*batch, channels, samples)` where mono and stereo tracks meet.
            controls: Normalised controls, see the class.
            mask: `(*batch, tracks)` bool, False where a track is absent.

        Returns:
            The mix `(*batch, 2, samples)`.

        Raises:
            TypeError: If tracks is not floating-point audio.
            ValueError: If tracks, controls and mask do not match.
        """
        return self.mix(tracks, self.denormalize(controls), mask)

    def mix(self, tracks: Tensor | Sequence[Tensor], values: Values, mask: Tensor | None = None) -> Tensor:
        """Mixes tracks with controls in physical units, as `denormalize` gives them; see `forward`."""
        return self._mix(tracks, values, mask, _whole)

    def forward_block(
        self,
        tracks: Tensor | Sequence[Tensor],
        state: State,
        controls: Mapping[str, Tensor],
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Mixes a block of tracks as `forward` does, from a state.

        Args:
            tracks: See `forward`; any number of samples.
            state: What the call on the block before returned; `{}` at rest.
            controls: Normalised controls, see the class.
            mask: See `forward`.

        Returns:
            The mix `(*batch, 2, samples)`, equal to that of the whole to rounding, and the next state, a dict of
            tensors: the states of the processors, their names with section and stage in front, such as
            `track.mono.compressor.smoothed_gain`, `reverb.noise_shaped_reverb.input` and `master.parametric_eq.zi`.
            Gradients reach through it to earlier blocks.

        Raises:
            TypeError: If tracks is not floating-point audio, or state is not a dict.
            ValueError: If tracks, controls and mask do not match, or the state is not one of this console for tracks
                of this batch, number and channels.

        Example:
            >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
            >>> controls, state = console.default_controls(tracks=2), {}
            >>> for block in torch.zeros(2, 1, 4410).split(2000, -1):
            ...     mix, state = console.forward_block(block, state, controls)
            >>> mix.shape
            torch.Size([2, 410])
        """
        return self.mix_block(tracks, state, self.denormalize(controls), mask)

    def mix_block(
        self, tracks: Tensor | Sequence[Tensor], state: State, values: Values, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Mixes a block of tracks with controls in physical units, as `denormalize` gives them; see `forward_block`."""
        name = type(self).__name__
        if not isinstance(state, dict):
            raise TypeError(f"{name}: state is a {type(state).__name__}, expected a dict of tensors, {{}} at rest")
        after: State = {}

        def block(section: str, chain: M.Chain, x: Tensor, controls: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
            y, own = chain.process_block(x, part_of(state, section), controls)
            after.update({f"{section}.{key}": value for key, value in own.items()})
            return y

        mix = self._mix(tracks, values, mask, block)
        if state and state.keys() != after.keys():
            odd = min(state.keys() ^ after.keys())
            what = "has" if odd in state else "lacks"
            raise ValueError(f"{name}: state {what} {odd!r}, expected {', '.join(sorted(after))}, or {{}} at rest")
        return mix, after

    def _mix(self, tracks: Tensor | Sequence[Tensor], values: Values, mask: Tensor | None, process: _Process) -> Tensor:
        strips = self._strips(tracks, values["track"], mask, process)
        one = torch.ones(strips.shape[:-2], dtype=strips.dtype, device=strips.device)
        sends = [one * _send_gain(values["track"]["send"][f"{bus}_db"].to(strips.dtype)) for bus in self.buses]
        # The sum, and what is sent to each bus, are one product of a matrix with the strips.
        gains = self._pan_level * torch.stack([one, *sends], -2)
        total, *sent = mixed(strips, gains).unbind(-3)
        chains = self.sections()
        for bus, x in zip(self.buses, sent, strict=True):
            total = total + process(bus, chains[bus], x, values[bus])
        return process("master", self.master, total, values["master"])

    def strips(
        self, tracks: Tensor | Sequence[Tensor], values: Mapping[str, Mapping[str, Tensor]], mask: Tensor | None = None
    ) -> Tensor:
        """The output of every strip, `(*batch, tracks, 2, samples)`.

        Args:
            tracks: See `forward`.
            values: Physical controls of the section "track".
            mask: See `forward`.
        """
        return self._strips(tracks, values, mask, _whole) * self._pan_level

    def _strips(
        self,
        tracks: Tensor | Sequence[Tensor],
        values: Mapping[str, Mapping[str, Tensor]],
        mask: Tensor | None,
        process: _Process,
    ) -> Tensor:
        """Strips whose panners are as loud as their law has it at the centre."""
        groups = _by_channels(tracks)
        if len(groups) == 1:
            strips = process(f"track.{_WIDTHS[groups[0][1].shape[-2]]}", self.strip, groups[0][1], values)
        else:
            outputs: dict[int, Tensor] = {}
            for index, audio in groups:
                part = self._of_tracks(values, index)
                out = process(f"track.{_WIDTHS[audio.shape[-2]]}", self.strip, audio, part)
                outputs.update(zip(index, out.unbind(-3), strict=True))
            strips = torch.stack([outputs[track] for track in sorted(outputs)], -3)
        if mask is None:
            return strips
        if mask.shape != strips.shape[:-2]:
            raise ValueError(f"mask has shape {shape_text(mask.shape)}, expected {shape_text(strips.shape[:-2])}")
        return torch.where(mask[..., None, None], strips, 0.0)

    def _of_tracks(
        self, values: Mapping[str, Mapping[str, Tensor]], index: Sequence[int]
    ) -> dict[str, dict[str, Tensor]]:
        """The controls of some tracks; a control with bands has them after its tracks."""
        picked: dict[str, dict[str, Tensor]] = {}
        for name, stage in self.strip.stages().items():
            picked[name] = {
                control: values[name][control][..., list(index)]
                if size is None
                else values[name][control][..., list(index), :]
                for control, size in stage.spec.layout(stage.options)
            }
        return picked

    @property
    def _pan_level(self) -> float:
        """What brings the centre of the strip's panners to 0 dB."""
        laws = [stage.options["law"] for stage in self.strip.stages().values() if stage.spec.name == "stereo_panner"]
        return 1 / math.prod([centre_gain(law) for law in laws])


def _whole(section: str, chain: M.Chain, x: Tensor, controls: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    return chain.process(x, controls)


def _by_channels(tracks: Tensor | Sequence[Tensor]) -> list[tuple[list[int], Tensor]]:
    """Tracks of one number of channels together, `(*batch, tracks, channels, samples)`, after their positions."""
    name = "DifferentiableMixingConsole"
    if isinstance(tracks, Tensor):
        check_audio(name, tracks, (1, 2), "tracks")
        if tracks.ndim < 3:
            shape = shape_text(tracks.shape)
            raise ValueError(f"{name}: tracks has shape {shape}, expected (*batch, tracks, channels, samples)")
        # All of them, however many: a list of their positions would fix their number in an exported program.
        return [([], tracks)]
    if not tracks:
        raise ValueError(f"{name}: tracks is empty, expected at least one track")
    groups: dict[int, list[int]] = {}
    for position, track in enumerate(tracks):
        check_audio(name, track, (1, 2), f"tracks[{position}]")
        first = tracks[0]
        if (track.shape[:-2], track.shape[-1]) != (first.shape[:-2], first.shape[-1]):
            raise ValueError(
                f"{name}: tracks[{position}] has shape {shape_text(track.shape)}, "
                f"expected batch and samples of tracks[0], {shape_text(first.shape)}"
            )
        groups.setdefault(track.shape[-2], []).append(position)
    return [(index, torch.stack([tracks[i] for i in index], -3)) for index in groups.values()]
