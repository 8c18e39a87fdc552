"""Checks of arguments with uniform messages, and the broadcasting of controls against audio.

Shapes and types are always checked.  Values of tensors are checked inside `debug()` only: reading one would
synchronise the device and break a compiled graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dasp._spec import PROCESSORS, Control, State
from dasp.kernels import numbers

_debugging = False


@contextmanager
def debug() -> Iterator[None]:
    """Checks values too: audio must be finite and controls inside their domain, else `ValueError`.

    Example:
        >>> with dasp.debug():
        ...     y = F.gain(torch.zeros(1, 8), 44100, 6.0)
    """
    global _debugging
    before, _debugging = _debugging, True
    try:
        yield
    finally:
        _debugging = before


def shape_text(shape: Sequence[int]) -> str:
    """A shape as it is printed in messages."""
    return str(tuple(shape))


def check_sample_rate(name: str, sample_rate: float) -> None:
    """Raises unless the sample rate is a positive, finite number."""
    if isinstance(sample_rate, (bool, Tensor)) or not isinstance(sample_rate, (int, float)):
        raise TypeError(f"{name}: sample_rate is a {type(sample_rate).__name__}, expected a number in Hz")
    if not 0 < sample_rate < math.inf:
        raise ValueError(f"{name}: sample_rate is {sample_rate}, expected a finite number above 0")


def check_audio(name: str, x: Tensor, channels: Sequence[int] = (), argument: str = "x") -> None:
    """Raises unless x is floating-point audio `(*batch, channels, samples)`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: {argument} is a {type(x).__name__}, expected a torch.Tensor")
    if not x.is_floating_point():
        raise TypeError(
            f"{name}: {argument} has type {x.dtype}, expected a floating-point type: convert it with {argument}.float()"
        )
    if x.ndim < 2:
        raise ValueError(
            f"{name}: {argument} has shape {shape_text(x.shape)}, expected (*batch, channels, samples): "
            f"add a channel dimension with {argument}[None]"
        )
    if x.shape[-2] == 0:
        raise ValueError(f"{name}: {argument} has shape {shape_text(x.shape)}, expected at least one channel")
    if channels and x.shape[-2] not in channels:
        wanted = " or ".join(str(count) for count in channels)
        raise ValueError(f"{name}: {argument} has shape {shape_text(x.shape)}, expected {wanted} channel(s)")
    if _debugging and not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: {argument} has NaN or infinite samples")


def broadcasts(shape: Sequence[int], onto: Sequence[int]) -> bool:
    """Whether each dimension of a shape is 1 or that of another shape with as many dimensions."""
    # Two comparisons: torch 2.13 traces `in (1, size)` wrongly where the size is symbolic and has become known.
    return all(have == 1 or have == want for have, want in zip(shape, onto, strict=True))


def check_choice(name: str, argument: str, value: str, choices: Sequence[str]) -> None:
    """Raises unless a static option has one of its values."""
    if value not in choices:
        raise ValueError(f"{name}: {argument} is {value!r}, expected one of {', '.join(map(repr, choices))}")


def working(x: Tensor) -> Tensor:
    """Audio in the type that processors compute in: half types in float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_call(name: str, x: Tensor, sample_rate: float) -> Tensor:
    """Checks audio and sample rate of a declared processor; returns the audio in its working type."""
    check_audio(name, x, PROCESSORS[name].channels)
    check_sample_rate(name, sample_rate)
    return working(x)


def control(
    name: str,
    argument: str,
    value: Control,
    x: Tensor,
    size: int | None = None,
    dtype: torch.dtype | None = None,
    frames: bool = False,
) -> Tensor:
    """Brings a control of a declared processor to the dimensions of x.

    With n batch dimensions of x, a value of up to n dimensions is one setting per item, with n + 1 its last dimension
    is channels, with n + 2 its last two are channels and samples, or frames of which each holds for equally many
    samples.  Values per band come last, after these.

    Args:
        name: The processor, for messages and the declaration.
        argument: The control.
        value: A number or tensor.
        x: Audio in its working type.
        size: Number of bands of a control that has them.
        dtype: Type of the result; that of x if None.
        frames: Whether frames stay as they are, and are not repeated for each of their samples.

    Returns:
        `(*batch, channels, samples or frames)` with 1 where it does not vary, and bands last if it has them.

    Raises:
        TypeError: If the value is complex or no number.
        ValueError: If its shape does not match x, or it varies with time in a processor that does not take automation.
    """
    tensor, full = _checked(name, argument, value, x, size)
    samples = x.shape[-1]
    tensor = tensor.to(dtype or x.dtype).reshape(*full, *tensor.shape[tensor.ndim - (size is not None) :])
    if frames or broadcasts(full[-1:], (samples,)):
        return tensor
    return tensor.repeat_interleave(samples // full[-1], len(full) - 1)


def settings(name: str, controls: Mapping[str, Control], x: Tensor, size: int | None = None) -> list[Tensor]:
    """Brings controls that do not change with time to rows, of which each belongs to as many consecutive rows of x.

    What has this form already is not touched: every operation on a control costs its microseconds twice, forward and
    backward.

    Args:
        name: The processor.
        controls: Its controls as they came.
        x: Audio in its working type, `(*batch, channels, samples)`.
        size: Number of bands, None for controls without.

    Returns:
        `(filters, size or 1)` each, in its own type, with 1, the number of items or that of all channels as filters.

    Raises:
        TypeError: As `control`.
        ValueError: As `control`.
    """
    pairs = [_checked(name, argument, value, x, size) for argument, value in controls.items()]
    leads = [(1,) * (x.ndim - len(full)) + full[:-1] for _, full in pairs]
    if all(length == 1 for lead in leads for length in lead):
        target: tuple[int, ...] = (1,) * (x.ndim - 1)
    else:
        target = (*x.shape[:-2], max(lead[-1] for lead in leads))
    shape = (math.prod(target), 1 if size is None else size)
    rows = []
    for (tensor, _), lead in zip(pairs, leads, strict=True):
        if tuple(tensor.shape) != shape:
            if lead != target:
                tensor = tensor.reshape(*lead, shape[1]).expand(*target, shape[1])
            tensor = tensor.reshape(shape)
        rows.append(tensor)
    return rows


def _checked(name: str, argument: str, value: Control, x: Tensor, size: int | None) -> tuple[Tensor, tuple[int, ...]]:
    """A control as a tensor, with bands last if it has them, and its dimensions before these up to that of time."""
    spec = PROCESSORS[name]
    tensor = _as_tensor(name, argument, value, x)
    if not tensor.is_floating_point():
        if tensor.is_complex():
            raise TypeError(f"{name}: {argument} has type {tensor.dtype}, expected real numbers")
        tensor = tensor.to(torch.float64)
    if _debugging:
        _check_domain(name, argument, tensor)
    if size is not None and tensor.ndim == 0:
        tensor = tensor.expand(size)
    bands = () if size is None else (size,)
    shape = tuple(tensor.shape[: tensor.ndim - len(bands)])
    if tensor.shape[len(shape) :] != bands:
        raise ValueError(_mismatch(name, argument, tensor, x, size))
    extra = len(shape) - (x.ndim - 2)
    if extra > 2 or (extra == 2 and not spec.automation):
        raise ValueError(_mismatch(name, argument, tensor, x, size))
    full = (*shape, 1, 1) if extra <= 0 else (*shape, 1) if extra == 1 else shape
    if not broadcasts(full[:-1], x.shape[x.ndim - len(full) : -1]) or not is_cut_into(x.shape[-1], full[-1]):
        raise ValueError(_mismatch(name, argument, tensor, x, size))
    return tensor, full


def _as_tensor(name: str, argument: str, value: Control, x: Tensor) -> Tensor:
    try:
        return value if isinstance(value, Tensor) else numbers(value, x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: {argument} is {value!r}, expected a number or a tensor") from error


def as_tensors(name: str, controls: Mapping[str, Control], x: Tensor) -> dict[str, float | Tensor]:
    """Controls with arrays and lists as tensors, so that their dimensions show; numbers are left alone.

    Raises:
        TypeError: As `control`.
    """
    return {n: v if isinstance(v, (int, float)) else _as_tensor(name, n, v, x) for n, v in controls.items()}


def is_automation(value: float | Tensor, x: Tensor, bands: bool = False) -> bool:
    """Whether a control has a dimension of time, of whatever size."""
    return isinstance(value, Tensor) and value.ndim - bands == x.ndim


def is_cut_into(samples: int, frames: int) -> bool:
    """Whether so many frames, of equally many samples, are all the samples."""
    return broadcasts((frames,), (samples,)) or (frames > 0 and samples % frames == 0)


def in_common_frames(controls: Sequence[Tensor], samples: int, dim: int) -> list[Tensor]:
    """Repeats frames until controls that vary with time have equally many in dimension `dim`."""
    counts = [value.shape[dim] for value in controls]
    if samples == 0:
        return list(controls)
    common = max(counts)
    if any(common % count for count in counts):
        common = samples
    return [
        v if n in (1, common) else v.repeat_interleave(common // n, dim) for v, n in zip(controls, counts, strict=True)
    ]


def plain_control(value: Control, shape: Sequence[int]) -> float | Tensor | None:
    """A control that needs no check and no more than one operation: a number, or one value or one for each of `shape`.

    On short audio, autograd takes longer for the operations of `control` than the processor for its work.

    Returns:
        The number, a tensor of one dimension, or None for any other control, and in `debug()`.
    """
    if _debugging:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if value.ndim == 0:
        return value.expand(math.prod(shape))
    if tuple(value.shape) != tuple(shape):
        return None
    return value if value.ndim == 1 else value.reshape(math.prod(shape))


def check_state(name: str, state: State, entry: str) -> None:
    """Raises unless a state is a dict of tensors with no other entry than the one that a processor has."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TypeError(f"{name}: state is a {type(state).__name__}, expected a dict of tensors, {{}} at rest")
    for key in state:
        if key != entry:
            raise ValueError(f"{name}: state has {key!r}, expected {entry!r} alone, or {{}} at rest")


def recalled(name: str, state: State, entry: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """What a processor goes on from, in float64: the entry of its state, or zeros at rest.

    Raises:
        TypeError: If the state is not a dict of tensors.
        ValueError: If it has another entry or shape.
    """
    check_state(name, state, entry)
    if not state:
        return torch.zeros(tuple(shape), dtype=torch.float64, device=like.device)
    if tuple(state[entry].shape) != tuple(shape):
        have = shape_text(state[entry].shape)
        raise ValueError(f"{name}: state {entry!r} has shape {have}, expected {shape_text(shape)}")
    return state[entry].to(torch.float64)


def _mismatch(name: str, argument: str, tensor: Tensor, x: Tensor, size: int | None) -> str:
    batch, bands = tuple(x.shape[:-2]), () if size is None else (size,)
    shapes = [bands, (*batch, *bands), (*batch, x.shape[-2], *bands)]
    automated = tensor.ndim - len(bands) == x.ndim
    if PROCESSORS[name].automation:
        shapes.append((*x.shape, *bands))
    elif automated:
        return (
            f"{name}: {argument} has shape {shape_text(tensor.shape)}; "
            f"a value for every sample (automation) is not supported by this processor"
        )
    unique = list(dict.fromkeys(shape_text(shape) for shape in shapes))
    frames = f" or a number of frames that divides {x.shape[-1]}," if automated else ""
    return (
        f"{name}: {argument} has shape {shape_text(tensor.shape)}, expected {' or '.join(unique)}{frames} "
        f"to match x of shape {shape_text(x.shape)}"
    )


def _check_domain(name: str, argument: str, tensor: Tensor) -> None:
    low, high = PROCESSORS[name].controls[argument].domain
    if not bool(((tensor >= low) & (tensor <= high)).all()):
        raise ValueError(f"{name}: {argument} has values outside [{low:g}, {high:g}] or NaN")
