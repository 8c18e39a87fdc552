"""The differentiable mixing console: strips, groups, sends to effect buses, and a master."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

import dasp.modules as M
from dasp._checks import check_audio, check_sample_rate, shape_text
from dasp._spec import State
from dasp.functional.level import mixed
from dasp.functional.stereo import centre_gain
from dasp.mixing._names import check_known
from dasp.mixing._runs import BlockRun, GainRun, Run
from dasp.mixing.controls import Controlled, Values, send_gain
from dasp.mixing.presets import DEFAULT_LOCKED, PRESETS, default_master, default_reverb, default_strip
from dasp.mixing.switches import Switches, audible, check_flags, check_switches

Tracks: TypeAlias = Tensor | Sequence[Tensor]
"""`(*batch, tracks, channels, samples)`, or a sequence of `(*batch, channels, samples)` where mono and stereo meet."""

# Tracks of one number of channels share a strip, whose state has this name.
_WIDTHS = {1: "mono", 2: "stereo"}
# Names that mean something else in controls, descriptions and constraints.
_RESERVED = ("track", "tracks", "master")


class Signals(NamedTuple):
    """What is heard along the way to a mix.

    `sum` is that of the strips that go to no group, the groups and the buses, each later where others are.

    Attributes:
        mix: The mix `(*batch, 2, samples)`.
        strips: The output of every strip, `(*batch, tracks, 2, samples)`; 0 where a track is absent or muted.
        groups: The output of each group, `(*batch, 2, samples)`.
        buses: The return of each bus, `(*batch, 2, samples)`.
        sum: What goes into the master, `(*batch, 2, samples)`.
        gain_db: The gain of every compressor and expander without its makeup gain, by section and stage such as
            `track.compressor`: `(*batch, tracks, 1 or 2, samples)`, without tracks for other sections; 0 where a track
            bypasses it.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> signals = console.signals(torch.randn(2, 1, 4410), console.default_controls(2))
        >>> signals.strips.shape, list(signals.buses), signals.gain_db["track.compressor"].shape
        (torch.Size([2, 2, 4410]), ['reverb'], torch.Size([2, 1, 4410]))
    """

    mix: Tensor
    strips: Tensor
    groups: dict[str, Tensor]
    buses: dict[str, Tensor]
    sum: Tensor
    gain_db: dict[str, Tensor]


class DifferentiableMixingConsole(Controlled):
    """A mix as a function of tracks and controls.

    Every track runs through `strip`.  Strips go to the master, or to the group that `Switches` say, whose processors
    their sum runs through, and are sent to effect buses from behind their fader or, for buses in `pre_fader`, from
    before it; groups are sent from behind their processors.  The sum of strips, groups and returns of buses runs
    through `master`.  The modules describe the processors, their options and the default controls; their own
    parameters are not trained.

    Controls are a dict of normalised tensors: "track" `(*batch, tracks, P)`, and one entry `(*batch, P)` for each
    group, each bus and "master"; those of tracks and groups end in one send level per bus.

    A centred track passes the panner of a strip at 0 dB, whatever its law.  The fader is the last `Gain` of the strip.
    A send is off at -60 dB, towards which it fades below -50 dB.  Processors that declare a `latency` are waited for:
    parallel paths line up, and the mix is late by `latency`.

    `forward` and `mix` take audio whole; `forward_block` and `mix_block` take it in blocks of any lengths, with a state
    that goes from one to the next, and give the same.

    Args:
        sample_rate: Sample rate in Hz.
        strip: Processors of a track, mono or stereo in and stereo out; by default four-band equaliser, compressor,
            fader and panner.
        buses: Processors of each effect bus by name; by default one "reverb".
        master: Processors of the sum; by default equaliser and compressor.
        locked: Names of controls (`"track.compressor.makeup_gain_db"`, with `*` for any part) that random draws and
            fits leave alone.
        groups: Processors of each group by name; by default there is none.
        pre_fader: Names of the buses that strips are sent to from before their fader.

    Raises:
        ValueError: If two sections share a name, a locked control or a bus in pre_fader is unknown, there is no fader
            to be before, or sample rates differ.

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
        groups: Mapping[str, M.Chain] | None = None,
        pre_fader: Iterable[str] = (),
    ) -> None:
        super().__init__()
        name = "DifferentiableMixingConsole"
        check_sample_rate(name, sample_rate)
        self.sample_rate = sample_rate
        plain = strip is None and buses is None and master is None
        self.strip = strip if strip is not None else default_strip(sample_rate)
        self.groups = nn.ModuleDict(groups or {})
        self.buses = nn.ModuleDict(buses if buses is not None else {"reverb": default_reverb(sample_rate)})
        self.master = master if master is not None else default_master(sample_rate)
        for section, chain in self.sections().items():
            if chain.sample_rate != sample_rate:
                raise ValueError(f"{name}: {section} has sample_rate {chain.sample_rate}, expected {sample_rate}")
        for kind, sections, others in (("bus", self.buses, self.groups), ("group", self.groups, ())):
            taken = [section for section in sections if section in (*_RESERVED, *others)]
            if taken:
                raise ValueError(f"{name}: a {kind} is named {taken[0]!r}, which is another section")
        self.pre_fader = tuple(pre_fader)
        for bus in self.pre_fader:
            check_known(f"{name}: pre_fader", bus, list(self.buses))
        faders = [stage for stage, module in self.strip.stages().items() if module.spec.name == "gain"]
        self._fader = faders[-1] if faders else None
        if self.pre_fader and self._fader is None:
            raise ValueError(f"{name}: the strip has no Gain, so {self.pre_fader[0]!r} cannot be fed from before it")
        self.locked = tuple(DEFAULT_LOCKED if locked is None and plain else locked or ())
        self._free = self._unlocked(f"{name}: locked", self.locked)
        self.requires_grad_(False)

    @classmethod
    def preset(cls, name: str, sample_rate: float) -> DifferentiableMixingConsole:
        """A console of published processors; `free` and `complete` tell their controls from what ours have beside.

        Args:
            name: "steinmetz2021", strips of 26 free controls: gain 1, polarity 1, equaliser 13 (Q of the shelves is
                locked), compressor 5 (the knee is locked), reverberation 4, fader 1, pan 1.  "diff_mst", 27 per track:
                fader 1, equaliser 18, compressor 6, pan 1, send 1; effect bus 25: levels and decays of 12 bands, mix
                (the pre-delay is locked); master 26: fader 1, equaliser 18, compressor 6, fader 1.
            sample_rate: Sample rate in Hz.

        Raises:
            ValueError: If the name is unknown.
        """
        check_known("DifferentiableMixingConsole: preset", name, list(PRESETS))
        return cls(sample_rate, **PRESETS[name](sample_rate))

    def sections(self) -> dict[str, M.Chain]:
        """The chain of each section: "track", every group, every bus, "master"."""
        chains: dict[str, Any] = {
            "track": self.strip,
            **dict(self.groups.items()),
            **dict(self.buses.items()),
            "master": self.master,
        }
        return chains

    @property
    def fader(self) -> str | None:
        """The stage of the strip before which buses in `pre_fader` are fed: its last `Gain`."""
        return self._fader

    @property
    def latency(self) -> int:
        """Samples by which the mix is late."""
        return max(self._arrivals()[1].values()) + self.master.latency

    def _tap_latency(self, bus: str) -> int:
        """Samples by which strips are late where they are sent to a bus."""
        stages = self._before_fader() if bus in self.pre_fader else self.strip.stages()
        return sum(stage.latency for stage in stages.values())

    def _arrivals(self) -> tuple[dict[str, int], dict[str, int]]:
        """Samples by which what each bus is given is late, and strips ("track"), groups and buses where they meet."""
        chains, strip = self.sections(), self.strip.latency
        late = {"track": strip, **{group: strip + chains[group].latency for group in self.groups}}
        groups = [late[group] for group in self.groups]
        given = {bus: max(self._tap_latency(bus), *groups, 0) for bus in self.buses}
        return given, late | {bus: given[bus] + chains[bus].latency for bus in self.buses}

    def switches(
        self,
        names: Sequence[str],
        mute: Iterable[str] = (),
        solo: Iterable[str] = (),
        bypass: Mapping[str, Iterable[str]] | None = None,
        group: Mapping[str, str] | None = None,
    ) -> Switches:
        """Switches by the names of tracks.

        Args:
            names: The name of each track.
            mute: Tracks that are muted.
            solo: Tracks that are soloed.
            bypass: Stages that tracks bypass: `{"voice": ["compressor"]}`.
            group: Groups that tracks go to: `{"kick": "drums"}`; the others go to the master.

        Raises:
            ValueError: If a track, stage or group is unknown.

        Example:
            >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
            >>> console.switches(["kick", "voice"], mute=["kick"]).mute
            tensor([ True, False])
        """
        name, order = "switches", list(names)

        def flags(what: str, chosen: Iterable[str]) -> Tensor | None:
            picked = [check_known(f"{name}: {what}", track, order) for track in chosen]
            return torch.tensor([track in picked for track in order]) if picked else None

        bypassed: dict[str, list[str]] = {}
        for track, stages in (bypass or {}).items():
            for stage in stages:
                bypassed.setdefault(check_known(f"{name}: bypass", stage, list(self.strip.stages())), []).append(track)
        by_stage = {stage: flags("bypass", tracks) for stage, tracks in bypassed.items()}
        assigned = None
        if group:
            known = list(self.groups)
            for track, to in group.items():
                check_known(f"{name}: group", track, order)
                check_known(f"{name}: group", to, known)
            assigned = torch.tensor([known.index(group[track]) if track in group else -1 for track in order])
        return Switches(
            flags("mute", mute),
            flags("solo", solo),
            {s: f for s, f in by_stage.items() if f is not None} or None,
            assigned,
        )

    def forward(
        self,
        tracks: Tracks,
        controls: Mapping[str, Tensor],
        mask: Tensor | None = None,
        switches: Switches | None = None,
    ) -> Tensor:
        """Mixes tracks.

        Args:
            tracks: `(*batch, tracks, channels, samples)` with one or two channels, or a sequence of
                `(*batch, channels, samples)` where mono and stereo tracks meet.
            controls: Normalised controls, see the class.
            mask: `(*batch, tracks)` or `(tracks,)` bool, False where a track is absent.
            switches: Mute, solo, bypass and groups of tracks.  An absent or muted track contributes nothing, whatever
                stands in its samples.

        Returns:
            The mix `(*batch, 2, samples)`.

        Raises:
            TypeError: If tracks is not floating-point audio, or a mask or switch has the wrong type.
            ValueError: If tracks, controls, mask and switches do not match.
        """
        return self.mix(tracks, self.denormalize(controls), mask, switches)

    def mix(
        self, tracks: Tracks, values: Values, mask: Tensor | None = None, switches: Switches | None = None
    ) -> Tensor:
        """Mixes tracks with controls in physical units, as `denormalize` gives them; see `forward`."""
        return self._mix(tracks, values, mask, switches, Run()).mix

    def forward_block(
        self,
        tracks: Tracks,
        state: State,
        controls: Mapping[str, Tensor],
        mask: Tensor | None = None,
        switches: Switches | None = None,
    ) -> tuple[Tensor, State]:
        """Mixes a block of tracks as `forward` does, from a state.

        Args:
            tracks: See `forward`; any number of samples.
            state: What the call on the block before returned; `{}` at rest.
            controls: Normalised controls, see the class.
            mask: See `forward`.
            switches: See `forward`.  The processors of a track that is absent or muted hear silence.

        Returns:
            The mix `(*batch, 2, samples)`, equal to that of the whole to rounding, and the next state, a dict of
            tensors: the states of the processors, their names with section and stage in front, such as
            `track.mono.compressor.smoothed_gain`, `reverb.noise_shaped_reverb.input` and `master.parametric_eq.zi`.
            Gradients reach through it to earlier blocks.

        Raises:
            TypeError: If tracks is not floating-point audio, or state is not a dict.
            ValueError: If tracks, controls, mask and switches do not match, or the state is not one of this console for
                tracks of this batch, number and channels.

        Example:
            >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
            >>> controls, state = console.default_controls(tracks=2), {}
            >>> for block in torch.zeros(2, 1, 4410).split(2000, -1):
            ...     mix, state = console.forward_block(block, state, controls)
            >>> mix.shape
            torch.Size([2, 410])
        """
        return self.mix_block(tracks, state, self.denormalize(controls), mask, switches)

    def mix_block(
        self,
        tracks: Tracks,
        state: State,
        values: Values,
        mask: Tensor | None = None,
        switches: Switches | None = None,
    ) -> tuple[Tensor, State]:
        """Mixes a block of tracks with controls in physical units, as `denormalize` gives them; see `forward_block`."""
        name = type(self).__name__
        if not isinstance(state, dict):
            raise TypeError(f"{name}: state is a {type(state).__name__}, expected a dict of tensors, {{}} at rest")
        run = BlockRun(state)
        mix, after = self._mix(tracks, values, mask, switches, run).mix, run.after
        if state and state.keys() != after.keys():
            odd = min(state.keys() ^ after.keys())
            what = "has" if odd in state else "lacks"
            raise ValueError(f"{name}: state {what} {odd!r}, expected {', '.join(sorted(after))}, or {{}} at rest")
        return mix, after

    def signals(
        self,
        tracks: Tracks,
        controls: Mapping[str, Tensor],
        mask: Tensor | None = None,
        switches: Switches | None = None,
    ) -> Signals:
        """Mixes tracks as `forward` does, and gives what is heard along the way: stems, groups, returns, gains.

        Example:
            >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
            >>> signals = console.signals(torch.ones(2, 1, 4410), console.default_controls(2))
            >>> signals.strips.shape, signals.gain_db["master.compressor"].shape
            (torch.Size([2, 2, 4410]), torch.Size([1, 4410]))
        """
        run, values = GainRun(), self.denormalize(controls)
        signals = self._mix(tracks, values, mask, switches, run)
        strips = signals.strips * self._of_items(
            self._pan_level(self.strip.stages(), switches or Switches(), signals.strips)
        )
        return signals._replace(strips=strips, gain_db=self._gains(run.gains, tracks, strips, switches or Switches()))

    def describe(
        self, controls: Mapping[str, Tensor], names: Sequence[str], switches: Switches | None = None
    ) -> dict[str, Any]:
        """Describes this console and a mix in physical units, as a dict that is ready for JSON.

        Args:
            controls: Normalised controls of one mix, without batch dimensions.
            names: A name for each track.
            switches: Switches `(tracks,)`.

        Returns:
            A dict of numbers, lists and strings, of which `dasp.mixing.render` makes to the bit the audio that
            `forward` makes of these controls and switches.

        Raises:
            ValueError: If controls are a batch, or names are not as many as tracks, or not different.

        Example:
            >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
            >>> settings = console.describe(console.default_controls(1), ["voice"])
            >>> settings["tracks"]["voice"]["stereo_panner"]
            {'pan': 0.0}
        """
        # Descriptions know consoles, which they build; not the other way round but here.
        from dasp.mixing import settings

        return settings.describe(self, controls, names, switches)

    def controls_from(self, description: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Normalised controls of a description of this console.

        Args:
            description: What `describe` gave, or the same read from JSON, perhaps edited.
            dtype: Type of the controls.

        Returns:
            Controls.  In the type of the controls that were described they give the described values, and so the same
            audio, to the bit.

        Raises:
            SettingsError: If it is no description, or one of another console.
        """
        from dasp.mixing import settings

        return settings.controls_from(self, dict(description), dtype)

    def capabilities(self) -> dict[str, Any]:
        """What this console can do, for programs and language models that drive it.

        Returns:
            A dict that is ready for JSON: sections, stages, controls with units, ranges, scales and defaults, sends
            and their taps, groups, switches, what is locked, latency, and the calls there are.

        Example:
            >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
            >>> console.capabilities()["sections"]["track"]["stages"][2]["controls"][0]["unit"]
            'dB'
        """
        from dasp.mixing.capabilities import capabilities

        return capabilities(self)

    def _gains(
        self, gains: Mapping[str, Tensor], tracks: Tracks, strips: Tensor, switches: Switches
    ) -> dict[str, Tensor]:
        """Gains by section and stage, those of mono and stereo tracks in the order of the tracks."""
        found: dict[str, Tensor] = {}
        widths = _by_channels(tracks)
        for stage in self.strip.stages():
            parts = [(index, gains.get(f"track.{_WIDTHS[audio.shape[-2]]}.{stage}")) for index, audio in widths]
            have = [(index, gain) for index, gain in parts if gain is not None]
            if not have:
                continue
            channels = max(gain.shape[-2] for _, gain in have)
            wide = [(i, g.expand(*g.shape[:-2], channels, g.shape[-1])) for i, g in have]
            gain = wide[0][1] if len(wide) == 1 else _in_order(wide)
            bypassed = (switches.bypass or {}).get(stage)
            found[f"track.{stage}"] = gain if bypassed is None else torch.where(bypassed[..., None, None], 0.0, gain)
        return found | {place: gain for place, gain in gains.items() if not place.startswith("track.")}

    def _mix(self, tracks: Tracks, values: Values, mask: Tensor | None, switches: Switches | None, run: Run) -> Signals:
        """The mix and what is heard on the way, but for the level of panners in the strips, and gains."""
        switches = switches or Switches()
        widths = _by_channels(tracks)
        heard = self._heard(widths, mask, switches)
        strips, taps = self._strips(widths, values["track"], heard, switches, run)
        one = torch.ones(strips.shape[:-2], dtype=strips.dtype, device=strips.device)
        sends = {bus: one * send_gain(values["track"]["send"][f"{bus}_db"].to(strips.dtype)) for bus in self.buses}
        if heard is not None:
            # What a muted track is sent at may be no number either.
            sends = {bus: torch.where(heard, send, 0.0) for bus, send in sends.items()}
        after = [bus for bus in self.buses if bus not in self.pre_fader]
        direct, members = one, []
        if switches.group is not None:
            direct = one * (switches.group < 0)
            members = [one * (switches.group == position) for position in range(len(self.groups))]
        # The sum, and what goes to each group and bus, are one product of a matrix with the strips.
        matrix = torch.stack([direct, *members, *(sends[bus] for bus in after)], -2)
        total, *parts = mixed(
            strips, self._of_rows(self._pan_level(self.strip.stages(), switches, strips)) * matrix
        ).unbind(-3)
        grouped = parts[: len(members)] if members else [torch.zeros_like(total) for _ in self.groups]
        sent = dict(zip(after, parts[len(members) :], strict=True))
        if taps is not None:
            level = self._of_rows(self._pan_level(self._before_fader(), switches, taps))
            early = mixed(taps, level * torch.stack([sends[bus] for bus in self.pre_fader], -2))
            sent |= dict(zip(self.pre_fader, early.unbind(-3), strict=True))
        chains, (given, late) = self.sections(), self._arrivals()
        sent = {bus: run.late(f"{bus}.sent", sent[bus], given[bus] - self._tap_latency(bus)) for bus in self.buses}
        end = max(late.values())
        total = run.late("track", total, end - late["track"])
        groups, buses = {}, {}
        for group, x in zip(self.groups, grouped, strict=True):
            y = run.chain(group, chains[group], x, values[group])
            for bus in self.buses:
                level = send_gain(values[group]["send"][f"{bus}_db"].to(y.dtype))[..., None, None]
                sent[bus] = sent[bus] + level * run.late(f"{bus}.sent.{group}", y, given[bus] - late[group])
            groups[group] = run.late(group, y, end - late[group])
            total = total + groups[group]
        for bus in self.buses:
            y = run.chain(bus, chains[bus], sent[bus], values[bus])
            buses[bus] = run.late(bus, y, end - late[bus])
            total = total + buses[bus]
        mix = run.chain("master", self.master, total, values["master"])
        return Signals(mix, strips, groups, buses, total, {})

    def strips(self, tracks: Tracks, values: Mapping[str, Mapping[str, Tensor]], mask: Tensor | None = None) -> Tensor:
        """The output of every strip, `(*batch, tracks, 2, samples)`.

        Args:
            tracks: See `forward`.
            values: Physical controls of the section "track".
            mask: See `forward`.
        """
        widths, switches = _by_channels(tracks), Switches()
        strips, _ = self._strips(widths, values, self._heard(widths, mask, switches), switches, Run())
        return strips * self._of_items(self._pan_level(self.strip.stages(), switches, strips))

    def _heard(self, widths: _Widths, mask: Tensor | None, switches: Switches) -> Tensor | None:
        """Which tracks contribute; None if all do."""
        first = widths[0][1]
        lead = first.shape[:-2] if len(widths) == 1 else (*first.shape[:-3], sum(len(index) for index, _ in widths))
        if mask is not None:
            check_flags("mask", mask, lead)
        check_switches(switches, lead, list(self.strip.stages()), len(self.groups))
        return audible(mask, switches)

    def _strips(
        self,
        widths: _Widths,
        values: Mapping[str, Mapping[str, Tensor]],
        heard: Tensor | None,
        switches: Switches,
        run: Run,
    ) -> tuple[Tensor, Tensor | None]:
        """Strips and, for buses before the fader, what goes into it, panners as loud as their law has the centre."""
        if len(widths) == 1:
            strips, taps = self._strip(widths[0][1], values, heard, switches.bypass or {}, run)
        else:
            outputs = []
            for index, audio in widths:
                bypass = {stage: flags[..., index] for stage, flags in (switches.bypass or {}).items()}
                there = None if heard is None else heard[..., index]
                outputs.append((index, *self._strip(audio, self._of_tracks(values, index), there, bypass, run)))
            strips = _in_order([(index, out) for index, out, _ in outputs])
            early = [(index, tap) for index, _, tap in outputs if tap is not None]
            taps = _in_order(early) if early else None
        if heard is None:
            return strips, taps
        there = heard[..., None, None]
        return torch.where(there, strips, 0.0), None if taps is None else torch.where(there, taps, 0.0)

    def _strip(
        self,
        x: Tensor,
        values: Mapping[str, Mapping[str, Tensor]],
        heard: Tensor | None,
        bypass: Mapping[str, Tensor],
        run: Run,
    ) -> tuple[Tensor, Tensor | None]:
        """Strips of tracks of one number of channels."""
        place, tap = f"track.{_WIDTHS[x.shape[-2]]}", None
        if heard is not None:
            # Gradients of a track that is not heard are those of silence, also where its samples are no numbers.
            x = torch.where(heard[..., None, None], x, 0.0)
        for name, stage in self.strip.stages().items():
            if name == self._fader and self.pre_fader:
                tap = x.expand(*x.shape[:-2], 2, x.shape[-1])
            y = run.stage(f"{place}.{name}", stage, x, values.get(name, {}))
            if name in bypass or stage.latency:
                # Also where no track bypasses the stage, so that one may from some block on.
                x = run.late(f"{place}.bypass.{name}", x, stage.latency)
            x = run.bypass(f"{place}.{name}", bypass.get(name), x, y)
        return x, tap

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

    def _before_fader(self) -> dict[str, M.Processor]:
        stages = self.strip.stages()
        return {name: stages[name] for name in list(stages)[: list(stages).index(str(self._fader))]}

    def _pan_level(self, stages: Mapping[str, M.Processor], switches: Switches, like: Tensor) -> float | Tensor:
        """What brings the centre of the panners that a track passes to 0 dB, `(*batch, tracks)` if they differ."""
        level: float | Tensor = 1.0
        for name, stage in stages.items():
            if stage.spec.name == "stereo_panner":
                own = 1 / centre_gain(stage.options["law"])
                bypassed = (switches.bypass or {}).get(name)
                level = level * (own if bypassed is None else torch.where(bypassed, like.new_ones(()), own))
        return level

    @staticmethod
    def _of_rows(level: float | Tensor) -> float | Tensor:
        """A level of tracks for each row of a matrix of gains."""
        return level.unsqueeze(-2) if isinstance(level, Tensor) else level

    @staticmethod
    def _of_items(level: float | Tensor) -> float | Tensor:
        """A level of tracks for their audio."""
        return level[..., None, None] if isinstance(level, Tensor) else level


_Widths: TypeAlias = list[tuple[list[int], Tensor]]


def _in_order(parts: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Tracks of several numbers of channels in one order again."""
    outputs: dict[int, Tensor] = {}
    for index, audio in parts:
        outputs.update(zip(index, audio.unbind(-3), strict=True))
    return torch.stack([outputs[track] for track in sorted(outputs)], -3)


def _by_channels(tracks: Tracks) -> _Widths:
    """Tracks of one number of channels together, `(*batch, tracks, channels, samples)`, after their positions."""
    name = "DifferentiableMixingConsole"
    if isinstance(tracks, Tensor):
        check_audio(name, tracks, (1, 2), "tracks")
        if tracks.ndim < 3:
            shape = shape_text(tracks.shape)
            raise ValueError(f"{name}: tracks has shape {shape}, expected (*batch, tracks, channels, samples)")
        if tracks.shape[-3] == 0:
            raise ValueError(f"{name}: tracks has shape {shape_text(tracks.shape)}, expected at least one track")
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
