"""Which settings to try around one, and how the changes they make become a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, NamedTuple, Protocol

import scipy
import torch
from torch import Tensor

from dasp.gradients._probing import Label

Draw = Literal["rademacher", "segmented_uniform", "hadamard"]


class Probes(NamedTuple):
    """Settings to try, and the weights with which the changes they make become the gradient.

    Attributes:
        u: `(probes, *batch, P)`.
        weights: As u, in float64: the gradient is the sum over probes of weight times change.
        label: What a probe is called in errors.
    """

    u: Tensor
    weights: Tensor
    label: Label


class Plan(Protocol):
    """Chooses probes."""

    def check(self, size: int) -> None:
        """Raises unless it suits so many controls."""

    def __call__(self, u: Tensor, generator: torch.Generator) -> Probes:
        """Probes around the settings u, `(*batch, P)`."""
        ...


Groups = tuple[int, ...] | tuple[tuple[int, ...], ...]


def checked_groups(groups: Sequence[int] | Sequence[Sequence[int]] | None) -> Groups | None:
    """Sizes of groups, or the indices in each, as tuples."""
    if groups is None:
        return None
    try:
        whole = [tuple(map(index, group)) if isinstance(group, Iterable) else index(group) for group in groups]
    except TypeError:
        whole = [0]
    sizes = tuple(group for group in whole if isinstance(group, int) and group > 0)
    members = tuple(group for group in whole if isinstance(group, tuple))
    if len(whole) not in (len(sizes), len(members)):
        raise TypeError(f"spsa: groups is {groups!r}, expected sizes of groups above 0 or the indices in each group")
    return sizes or members


@dataclass(frozen=True)
class Perturbation:
    """Probes of SPSA: all controls of a group at once, up and down."""

    epsilon: float
    num_draws: int
    groups: Groups | None
    draw: Draw

    def __call__(self, u: Tensor, generator: torch.Generator) -> Probes:
        masks = self._masks(u)
        batch = u.shape[:-1]
        draws = DRAWS[self.draw](self.num_draws, batch, u.shape[-1], generator).to(u)
        deltas = self.epsilon * draws * masks.reshape(len(masks), *(1 for _ in draws.shape[:-1]), -1)
        plus, minus = (u + deltas).clamp(0, 1), (u - deltas).clamp(0, 1)
        steps = (plus - minus).double()
        weights = torch.where(steps == 0, 0.0, 1 / (self.num_draws * steps))
        return Probes(
            torch.stack([plus, minus], 2).flatten(0, 2),
            torch.stack([weights, -weights], 2).flatten(0, 2),
            self._label,
        )

    def _label(self, probe: int) -> str:
        group, draw = divmod(probe // 2, self.num_draws)
        return draw_label(probe, draw, self.num_draws, "" if self.groups is None else f" of group {group}")

    def check(self, size: int) -> None:
        if sorted(control for group in self._members(size) for control in group) != list(range(size)):
            raise ValueError(f"spsa: groups is {self.groups}, expected each of the {size} controls in one group")

    def _masks(self, u: Tensor) -> Tensor:
        """Which controls move in each group, `(groups, P)`."""
        size = u.shape[-1]
        groups = self._members(size)
        masks = u.new_zeros(len(groups), size)
        for mask, group in zip(masks, groups, strict=True):
            mask[list(group)] = 1
        return masks

    def _members(self, size: int) -> list[Sequence[int]]:
        if self.groups is None:
            return [range(size)]
        groups: list[Sequence[int]] = []
        start = 0
        for group in self.groups:
            groups.append(range(start, start + group) if isinstance(group, int) else group)
            start += group if isinstance(group, int) else 0
        return groups


@dataclass(frozen=True)
class Stencil:
    """Probes of finite differences: each control by itself, at `order` points around its value."""

    epsilon: float
    order: int

    def check(self, size: int) -> None:
        """Suits any number."""

    def __call__(self, u: Tensor, generator: torch.Generator) -> Probes:
        # Half of the points below and half above, as far as there is room in [0, 1].
        lower, upper = self.order // 2, self.order - self.order // 2
        below = torch.floor(u / self.epsilon).clamp(max=lower)
        above = torch.floor((1 - u) / self.epsilon)
        below = torch.where(above < upper, self.order - above, below)
        multiples = torch.arange(self.order).to(u).reshape(-1, *(1 for _ in u.shape)) - below
        points = (u + self.epsilon * (multiples + (multiples >= 0))).clamp(0, 1)
        weights = _derivative_weights((points - u).double())
        # (control that moves, point, *batch, P)
        size = u.shape[-1]
        moves = torch.eye(size, dtype=torch.bool, device=u.device).reshape(size, 1, *(1 for _ in u.shape[:-1]), size)
        return Probes(
            torch.where(moves, points, u).flatten(0, 1), torch.where(moves, weights, 0.0).flatten(0, 1), self._label
        )

    def _label(self, probe: int) -> str:
        control, point = divmod(probe, self.order)
        return f"point {point + 1} of {self.order} around control {control}"


def draw_label(probe: int, draw: int, num_draws: int, of: str) -> str:
    """What one of the two probes of a draw is called."""
    return f"draw {draw + 1} of {num_draws}{of}, {'minus' if probe % 2 else 'plus'}"


def _derivative_weights(offsets: Tensor) -> Tensor:
    """Weights of the values at offsets t_j of the polynomial through them and 0, for its derivative at 0.

    That of the Lagrange polynomial t / t_j prod_m (t - t_m) / (t_j - t_m) is 1 / t_j prod_m t_m / (t_m - t_j).
    """
    weights = []
    for j, own in enumerate(offsets):
        others = torch.cat([offsets[:j], offsets[j + 1 :]])
        weights.append((others / (others - own)).prod(0) / own)
    return torch.stack(weights)


def signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """1 or -1, with equal probability."""
    return torch.randint(0, 2, tuple(shape), generator=generator, dtype=torch.float64) * 2 - 1


def _rademacher(num_draws: int, batch: Sequence[int], size: int, generator: torch.Generator) -> Tensor:
    return signs((num_draws, *batch, size), generator)


def _segmented_uniform(num_draws: int, batch: Sequence[int], size: int, generator: torch.Generator) -> Tensor:
    drawn = _rademacher(num_draws, batch, size, generator)
    return drawn * (0.5 + torch.rand(drawn.shape, generator=generator, dtype=torch.float64))


def _hadamard(num_draws: int, batch: Sequence[int], size: int, generator: torch.Generator) -> Tensor:
    """Signs whose products of two controls cancel over the draws; each control has a random sign of its own besides."""
    order = 1 << (num_draws - 1).bit_length()
    matrix = torch.from_numpy(scipy.linalg.hadamard(order)).double()
    rows = torch.randperm(order, generator=generator)[:num_draws]
    columns = torch.randperm(order, generator=generator).repeat(math.ceil(size / order))[:size]
    chosen = matrix[rows][:, columns].reshape(num_draws, *(1 for _ in batch), size)
    return chosen * signs((*batch, size), generator)


DRAWS: dict[str, Callable[[int, Sequence[int], int, torch.Generator], Tensor]] = {
    "rademacher": _rademacher,
    "segmented_uniform": _segmented_uniform,
    "hadamard": _hadamard,
}
