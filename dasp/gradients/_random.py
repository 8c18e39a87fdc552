"""The global random generators, seeded for some calls and put back after them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What an effect may be given as a seed for numpy has 32 bits; items have consecutive ones.
_SEEDS = 2**31
# Who seeds the global generators has them alone.  The threads of a pool work for one that has.
_lock = threading.RLock()
_pooled = threading.local()


def join_pool() -> None:
    """Says that this thread works for one that has seeded the global generators."""
    _pooled.member = True


def generator_of(name: str, generator: torch.Generator | int) -> torch.Generator:
    """A generator, or a new one with a seed."""
    if isinstance(generator, torch.Generator):
        return generator
    if isinstance(generator, bool) or not isinstance(generator, int):
        raise TypeError(f"{name}: generator is a {type(generator).__name__}, expected a torch.Generator or a seed")
    return torch.Generator().manual_seed(generator)


def draw_seed(generator: torch.Generator) -> int:
    """A seed for the calls of an effect."""
    return int(torch.randint(_SEEDS, (), generator=generator, device=generator.device))


def seed_globals(seed: int, x: Tensor) -> None:
    """Seeds the global generators of Python, numpy and torch, the latter on the CPU and on the device of x."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # effects draw from the global generator
    torch.default_generator.manual_seed(seed)
    if x.get_device() >= 0:
        module = torch.get_device_module(x.device)
        with module.device(x.get_device()):
            module.manual_seed(seed)


def _states(x: Tensor) -> tuple[list[Any], list[Tensor]]:
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    tensors = [torch.get_rng_state()]
    if x.get_device() >= 0:
        tensors.append(torch.get_device_module(x.device).get_rng_state(x.device))
    return [random.getstate(), name, np.asarray(keys).tobytes(), position], tensors


def _differ(x: Tensor, before: tuple[list[Any], list[Tensor]]) -> bool:
    values, tensors = _states(x)
    return values != before[0] or not all(map(torch.equal, tensors, before[1]))


@contextmanager
def seeded(seed: int, x: Tensor) -> Iterator[Callable[[], bool]]:
    """Seeds the global generators and puts them back at the end, whatever happened.

    Args:
        seed: The seed.
        x: A tensor on the device whose generator is meant besides that of the CPU.

    Yields:
        A function that says whether any of them has been drawn from.
    """
    devices = [x.get_device()] if x.get_device() >= 0 else []
    lock = nullcontext() if hasattr(_pooled, "member") else _lock
    with lock, torch.random.fork_rng(devices=devices, device_type=x.device.type):
        ours, theirs = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            seed_globals(seed, x)
            start = _states(x)
            yield lambda: _differ(x, start)
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)  # noqa: NPY002
