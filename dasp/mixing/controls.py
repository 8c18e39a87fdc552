"""The controls of a console: normalised, as one flat vector per section, and in physical units."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

import dasp.modules as M
from dasp._checks import shape_text
from dasp._spec import Param
from dasp.functional.level import amplitude
from dasp.mixing._names import matching

Values: TypeAlias = dict[str, dict[str, dict[str, Tensor]]]
"""Physical controls by section, stage and name: `values["track"]["gain"]["gain_db"]`."""

SEND = Param("dB", -60, 12, meaning="Level at which a track is sent to a bus.")
# A send fades out over the lowest part of its range, so that its lowest value is off and not merely quiet.
_SEND_FADE_DB = 10.0


def send_gain(send_db: Tensor) -> Tensor:
    """The factor of a send level, which fades out towards its lowest value."""
    return amplitude(send_db) * ((send_db - SEND.low) / _SEND_FADE_DB).clamp(0, 1)


class Controlled(nn.Module):
    """What has sections with controls: "track", with a row of them per track, groups, buses and "master"."""

    sample_rate: float
    groups: nn.ModuleDict
    buses: nn.ModuleDict
    _free: dict[str, list[bool]]

    def sections(self) -> dict[str, M.Chain]:
        """The chain of each section."""
        raise NotImplementedError

    def _unlocked(self, what: str, locked: Iterable[str]) -> dict[str, list[bool]]:
        """By section, which values of the flat vector no name in `locked` means."""
        places = {section: {section: self.control_names(section)} for section in self.sections()}
        free = {section: [True] * self.num_controls(section) for section in places}
        for pattern in locked:
            for section, _, position in matching(what, pattern, places):
                free[section][position] = False
        return free

    def sends(self, section: str) -> list[str]:
        """Names of the send levels of a section, `reverb_db`; tracks and groups are sent to every bus."""
        return [f"{bus}_db" for bus in self.buses] if section == "track" or section in self.groups else []

    def num_controls(self, section: str) -> int:
        """Values per track or bus of a section's flat vector."""
        return self.sections()[section].num_controls + len(self.sends(section))

    def control_names(self, section: str) -> list[str]:
        """A name for each value of a section's flat vector; sends are `send.reverb_db`."""
        return [*self.sections()[section].control_names, *(f"send.{name}" for name in self.sends(section))]

    def control_names_flat(self) -> list[str]:
        """Every control with its section in front."""
        return [f"{section}.{name}" for section in self.sections() for name in self.control_names(section)]

    def free(self, section: str) -> Tensor:
        """Which values of a section's flat vector are not locked, `(P,)` bool."""
        return torch.tensor(self._free[section], dtype=torch.bool)

    def complete(self, free: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Controls of the values that are not locked, which a network may put out alone.

        Args:
            free: For each section the values that are not locked, `(*batch, tracks, free)` or `(*batch, free)`.

        Returns:
            Controls, the locked ones at their defaults.

        Raises:
            ValueError: If a section is missing or has another number of free values.

        Example:
            >>> console = dasp.mixing.DifferentiableMixingConsole.preset("diff_mst", 44100)
            >>> sizes = {section: int(console.free(section).sum()) for section in console.sections()}
            >>> sizes
            {'track': 27, 'reverb': 25, 'master': 26}
            >>> console.complete({section: torch.rand(size) for section, size in sizes.items()})["reverb"].shape
            torch.Size([26])
        """
        _check_sections("free", free, self.sections())
        controls = {}
        for section, default in self.default_controls(1, dtype=torch.float64).items():
            u, chosen = free[section], self._free[section]
            locked = [position for position, is_free in enumerate(chosen) if not is_free]
            order = [position for position, is_free in enumerate(chosen) if is_free] + locked
            if u.ndim < 1 or u.shape[-1] != sum(chosen):
                raise ValueError(
                    f"free[{section!r}] has shape {shape_text(u.shape)}, expected {sum(chosen)} values last"
                )
            rest = default.reshape(-1)[locked].to(u).expand(*u.shape[:-1], -1)
            controls[section] = torch.cat([u, rest], -1)[..., [order.index(p) for p in range(len(order))]]
        return controls

    def default_controls(
        self, tracks: int, batch: Sequence[int] = (), dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Controls that pass the sum of the tracks through: the modules' own values, sends off.

        Args:
            tracks: Number of tracks.
            batch: Batch dimensions.
            dtype: Type of the controls; that of the modules' parameters if None.
        """
        controls = {}
        for section, chain in self.sections().items():
            flat = chain.flat().detach()
            if dtype is not None:
                flat = chain.exact().to(flat.device, dtype)
            flat = torch.cat([flat, flat.new_zeros(len(self.sends(section)))])
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
        _check_sections("controls", controls, self.sections())
        values: Values = {}
        for section, chain in self.sections().items():
            u, total = controls[section], self.num_controls(section)
            if u.ndim < 1 or u.shape[-1] != total:
                raise ValueError(f"controls[{section!r}] has shape {shape_text(u.shape)}, expected {total} values last")
            values[section] = chain.denormalize(u[..., : chain.num_controls])
            if section == "track" or self.sends(section):
                levels = SEND.denormalize(u[..., chain.num_controls :], self.sample_rate).unbind(-1)
                values[section]["send"] = dict(zip(self.sends(section), levels, strict=True))
        return values

    def normalize(self, values: Mapping[str, Mapping[str, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
        """Physical values by section, stage and name to normalised controls; the inverse of `denormalize`."""
        controls = {}
        for section, chain in self.sections().items():
            stages = {name: stage for name, stage in values[section].items() if name != "send"}
            flat = chain.normalize(stages)
            sends = [SEND.normalize(values[section]["send"][name], self.sample_rate) for name in self.sends(section)]
            if sends:
                flat = torch.cat([flat, *(send.unsqueeze(-1).to(flat.dtype) for send in sends)], -1)
            controls[section] = flat
        return controls


def _check_sections(name: str, controls: Mapping[str, Tensor], sections: Collection[str]) -> None:
    if set(controls) != set(sections):
        raise ValueError(f"{name} has sections {sorted(controls)}, expected {sorted(sections)}")
