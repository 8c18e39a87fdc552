"""Distance of controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dasp._checks import check_choice, shape_text
from dasp.mixing.console import DifferentiableMixingConsole


class ParameterLoss(nn.Module):
    """Weighted distance of a console's normalised controls from known ones.

    The mean over the controls of all sections, tracks and buses, but for those of absent tracks and those that are
    locked: they have no part in it and no gradient, whatever they are. Different controls may make the same mix (two
    bands of an equaliser that change places, a gain before or after a linear stage), so that a distance here need not
    be one in the audio.

    Args:
        console: The console whose controls these are.
        weights: Weight by name of a control, stage or section, such as "track.compressor.ratio", "track.compressor" or
            "master"; the longest name that a control begins with counts, and 1 where there is none.
        distance: "absolute" or "squared".
        reduction: "mean" over the items of the batch, or "none" for one loss per item.

    Raises:
        ValueError: If a weight is negative or belongs to no control, no control has a weight, or distance or reduction
            is another.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> controls = console.random_controls(4, torch.Generator().manual_seed(0), (2,))
        >>> loss = dasp.mixing.ParameterLoss(console, {"reverb": 0.0, "track.compressor": 0.5})
        >>> loss(controls, controls)
        tensor(0.)
    """

    def __init__(
        self,
        console: DifferentiableMixingConsole,
        weights: Mapping[str, float] | None = None,
        distance: Literal["absolute", "squared"] = "absolute",
        reduction: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_choice(name, "distance", distance, ("absolute", "squared"))
        check_choice(name, "reduction", reduction, ("mean", "none"))
        given = dict(weights or {})
        for key, weight in given.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}: weights[{key!r}] is {weight}, expected a number >= 0")
            if not any(_begins_with(control, key) for control in console.control_names_flat()):
                raise ValueError(f"{name}: weights has {key!r}, which no control of the console begins with")
        self.distance = distance
        self.reduction = reduction
        self.sections = tuple(console.sections())
        for section in self.sections:
            names = [f"{section}.{control}" for control in console.control_names(section)]
            of_each = torch.tensor([_weight(control, given) for control in names])
            self.register_buffer(f"weight_{section}", of_each * console.free(section), persistent=False)
        if not any(bool(self._weight(section).any()) for section in self.sections):
            raise ValueError(f"{name}: no control has a weight; all are locked or given 0")

    def _weight(self, section: str) -> Tensor:
        return self.get_buffer(f"weight_{section}")

    def forward(
        self, controls: Mapping[str, Tensor], reference: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Distance of controls from known ones.

        Args:
            controls: Normalised controls by section, "track" `(*batch, tracks, P)` and the others `(*batch, P)`.
            reference: Controls of the same shapes.
            mask: `(*batch, tracks)` bool, False where a track is absent.

        Returns:
            Scalar, or `(*batch,)` with reduction "none": 0 where controls agree, up to 1 where they lie at opposite
            ends.

        Raises:
            ValueError: If a section is missing or unknown, or shapes do not match.
        """
        self._check(controls, reference, mask)
        total: Tensor | float = 0.0
        count: Tensor | float = 0.0
        for section in self.sections:
            have, want = controls[section], reference[section]
            weight = self._weight(section).to(have.dtype)
            if section == "track":
                present = torch.ones_like(have[..., 0], dtype=torch.bool) if mask is None else mask
                weight = weight * present.unsqueeze(-1)
            # Without weight a control has no gradient either, even where it is NaN.
            gap = torch.where(weight > 0, have - want, 0.0)
            each = weight * (gap.abs() if self.distance == "absolute" else gap.square())
            dims = (-2, -1) if section == "track" else (-1,)
            total, count = total + each.sum(dims), count + weight.sum(dims)
        loss = total / torch.as_tensor(count).clamp_min(1e-12)
        return loss.mean() if self.reduction == "mean" else loss

    def _check(self, controls: Mapping[str, Tensor], reference: Mapping[str, Tensor], mask: Tensor | None) -> None:
        name = type(self).__name__
        for argument, given in (("controls", controls), ("reference", reference)):
            if set(given) != set(self.sections):
                raise ValueError(f"{name}: {argument} has sections {sorted(given)}, expected {sorted(self.sections)}")
        batch = controls["track"].shape[:-2]
        for section in self.sections:
            have, values = controls[section].shape, self._weight(section).shape[0]
            lead = (*batch, *controls["track"].shape[-2:-1]) if section == "track" else tuple(batch)
            if tuple(have) != (*lead, values):
                expected = shape_text((*lead, values))
                raise ValueError(f"{name}: controls[{section!r}] has shape {shape_text(have)}, expected {expected}")
            if reference[section].shape != have:
                shape = shape_text(reference[section].shape)
                raise ValueError(f"{name}: reference[{section!r}] has shape {shape}, expected {shape_text(have)}")
        tracks = controls["track"].shape[:-1]
        if mask is not None and mask.shape != tracks:
            raise ValueError(f"{name}: mask has shape {shape_text(mask.shape)}, expected {shape_text(tracks)}")


def _begins_with(control: str, key: str) -> bool:
    return control == key or control.startswith((f"{key}.", f"{key}["))


def _weight(control: str, weights: Mapping[str, float]) -> float:
    keys = [key for key in weights if _begins_with(control, key)]
    return weights[max(keys, key=len)] if keys else 1.0
