"""Layers whose parameters come from a seed: torch would draw them from its global generator."""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils import skip_init

_Module = TypeVar("_Module", bound=nn.Module)


def empty(kind: type[_Module], *sizes: int, **options: Any) -> _Module:
    """A module whose parameters nobody has drawn yet."""
    return cast(_Module, skip_init(kind, *sizes, device=torch.get_default_device(), **options))


@torch.no_grad()
def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Draws the parameters of linear and convolutional layers as torch does, but from a generator."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)) and module.weight.numel():
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters():
                drawn = torch.empty(parameter.shape, device=generator.device)
                parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))
