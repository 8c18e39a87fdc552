"""The global random generators, seeded for some calls and put back after them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_globals(seed: int, x: Tensor) -> None:
    """Seeds the global generators of Python, numpy and torch, the latter on the CPU and on the device of x."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # effects draw from the global generator
    torch.default_generator.manual_seed(seed)
    if x.get_device() >= 0:
        module = torch.get_device_module(x.device)
        with module.device(x.get_device()):
            module.manual_seed(seed)


def _states(x: Tensor) -> list[Any]:
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    states = [random.getstate(), name, np.asarray(keys).tobytes(), position, torch.get_rng_state().numpy().tobytes()]
    if x.get_device() >= 0:
        states.append(torch.get_device_module(x.device).get_rng_state(x.device).numpy().tobytes())
    return states


@contextmanager
def seeded(seed: int, x: Tensor) -> Iterator[Callable[[], bool]]:
    """Seeds the global generators and puts them back at the end, whatever happened.

    Args:
        seed: The seed.
        x: A tensor on the device whose generator is meant besides that of the CPU.

    Yields:
        A function that says whether any of them has been drawn from.
    """
    ours, theirs = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [x.get_device()] if x.get_device() >= 0 else []
    with torch.random.fork_rng(devices=devices, device_type=x.device.type):
        try:
            seed_globals(seed, x)
            start = _states(x)
            yield lambda: _states(x) != start
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)  # noqa: NPY002
