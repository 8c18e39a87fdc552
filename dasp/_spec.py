"""The one declaration of a processor: its own signature, read once.

A processor is a pure function `f(x, sample_rate, *controls, *options)`.  A control is an argument annotated with a
`Param`; an argument annotated with a `Signal` is further audio that the processor needs; a last, keyword-only argument
`state` is what a processor with memory remembers; every other argument after `sample_rate` is an option, a static
setting.  Whatever needs to know about controls asks the `Spec` in `PROCESSORS`.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

Control: TypeAlias = float | Tensor | Sequence[float]
"""The value of a control: a number, a tensor, or one number per band."""

State: TypeAlias = dict[str, Tensor]
"""What a processor remembers from one block of audio to the next, by name; `{}` is at rest."""

# A biquad designed above this share of the sample rate is no longer the filter its controls describe.
_HIGHEST_FREQUENCY = 0.49


@dataclass(frozen=True)
class Param:
    """The declaration of one control.

    Attributes:
        unit: Unit as printed, "" for a bare number.
        low: Lower end of the usual range, for modules, normalised control and random draws.
        high: Upper end.  In Hz it is lowered to 0.49 times the sample rate where that is less.
        scale: "linear", or "log" for quantities that are heard in ratios.
        meaning: One line for the documentation.
        size: Values per item: an int, or the name of the option whose length it is; None for a single value.
        domain: The values the function is defined on; what it does outside is in its docstring.
    """

    unit: str
    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    meaning: str = ""
    size: int | str | None = None
    domain: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Param: low is {self.low}, expected less than high, which is {self.high}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"Param: low is {self.low}, expected more than 0 for a logarithmic scale")

    def bounds(self, sample_rate: float) -> tuple[float, float]:
        """The usual range at a sample rate."""
        high = min(self.high, _HIGHEST_FREQUENCY * sample_rate) if self.unit == "Hz" else self.high
        if high <= self.low:
            raise ValueError(
                f"sample_rate is {sample_rate}, which leaves nothing of the range from {self.low} {self.unit}"
            )
        return self.low, high

    def denormalize(self, u: Tensor, sample_rate: float) -> Tensor:
        """[0, 1] to the usual range: exact at both ends, with the derivative of the map there too."""
        low, high = self.bounds(sample_rate)
        if self.scale == "linear":
            return low * (1 - u) + high * u
        value = torch.exp(math.log(low) * (1 - u) + math.log(high) * u)
        exact = torch.where(u == 0, low, torch.where(u == 1, high, value.detach()))
        return value + (exact - value).detach()

    def normalize(self, value: Tensor, sample_rate: float) -> Tensor:
        """The usual range to [0, 1]: the inverse of `denormalize`."""
        low, high = self.bounds(sample_rate)
        if self.scale == "linear":
            return (value - low) / (high - low)
        top = torch.log(torch.full((), high / low, dtype=value.dtype, device=value.device))
        return torch.where(value == high, torch.ones_like(value), torch.log(value / low) / top)


@dataclass(frozen=True)
class Signal:
    """The declaration of further audio that a processor needs, such as an impulse response.

    Attributes:
        meaning: One line for the documentation, with the shape.

    Example:
        >>> dasp.PROCESSORS["convolution_reverb"].signals["impulse_response"].meaning
        'Impulse response `(*batch, channels, taps)`; either channels or x may be mono.'
    """

    meaning: str


@dataclass(frozen=True)
class Spec:
    """What a processor's signature declares.

    Attributes:
        name: The function's name.
        function: The function itself.
        controls: Its controls, in the order of its signature.
        defaults: The default of each control.
        signals: Further audio it needs.
        options: Static settings with their defaults.
        channels: Numbers of input channels it takes; empty for any.
        channels_out: Number of output channels; None for that of the input.
        tracks: Whether the last batch dimension holds tracks that the processor sums.
        automation: Whether controls may change with every sample.
        linear: Whether it is linear in x.
        fft: Whether it computes through an FFT, so that results are equal to rounding and not to the bit.

    Example:
        >>> spec = dasp.PROCESSORS["stereo_panner"]
        >>> spec.channels, spec.channels_out, spec.defaults["pan"], spec.controls["pan"].high
        ((1, 2), 2, 0.0, 1)
    """

    name: str
    function: Callable[..., Tensor]
    controls: dict[str, Param]
    defaults: dict[str, float | tuple[float, ...]]
    signals: dict[str, Signal]
    options: dict[str, Any]
    channels: tuple[int, ...] = ()
    channels_out: int | None = None
    tracks: bool = False
    automation: bool = False
    linear: bool = False
    fft: bool = False

    @property
    def stateful(self) -> bool:
        """Whether it takes a state, and then returns the next one beside the audio."""
        return "state" in inspect.signature(self.function).parameters

    def size(self, name: str, options: Mapping[str, Any] | None = None) -> int | None:
        """Values per item of one control, None for a control without a band dimension."""
        size = self.controls[name].size
        return len({**self.options, **(options or {})}[size]) if isinstance(size, str) else size

    def layout(self, options: Mapping[str, Any] | None = None) -> list[tuple[str, int | None]]:
        """Name and size of each control, in the order of the flat normalised vector."""
        return [(name, self.size(name, options)) for name in self.controls]

    def num_controls(self, options: Mapping[str, Any] | None = None) -> int:
        """Length of the flat normalised vector."""
        return sum(size or 1 for _, size in self.layout(options))

    def names(self, options: Mapping[str, Any] | None = None) -> list[str]:
        """A name for each value of the flat normalised vector: `threshold_db`, `gain_db[3]`."""
        return [
            name if size is None else f"{name}[{band}]"
            for name, size in self.layout(options)
            for band in range(size or 1)
        ]

    def default(self, name: str, sample_rate: float, options: Mapping[str, Any] | None = None) -> Tensor:
        """The default of a control within its range at a sample rate, () or (size,), in float64."""
        size, (low, high) = self.size(name, options), self.controls[name].bounds(sample_rate)
        value = torch.as_tensor(self.defaults[name], dtype=torch.float64)
        if size is not None and value.ndim and value.shape[0] != size:
            # Defaults per band are those of the default options; any other number of bands is spread evenly.
            value = (
                self.controls[name].denormalize(torch.linspace(0, 1, size + 2, dtype=torch.float64)[1:-1], sample_rate)
                if len(set(value.tolist())) > 1
                else value[0]
            )
        return value.clamp(low, high) if size is None else value.clamp(low, high).expand(size)

    def normalize(
        self, controls: Mapping[str, Control], sample_rate: float, options: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Physical values to the flat normalised vector.

        Args:
            controls: Values by name, each `(*batch)`, or `(*batch, size)` for a control with bands; a control that
                is missing takes its default.
            sample_rate: Sample rate in Hz.
            options: Options that decide sizes.

        Returns:
            `(*batch, num_controls)`, in [0, 1] for values within their usual ranges.

        Raises:
            ValueError: If a name is unknown or a value has the wrong number of bands.
        """
        for name in controls:
            if name not in self.controls:
                raise ValueError(f"{self.name}: {name} is not a control, expected one of {', '.join(self.controls)}")
        columns = []
        for name, size in self.layout(options):
            value = controls.get(name, self.default(name, sample_rate, options))
            tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
            tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            if size is None:
                tensor = tensor.unsqueeze(-1)
            elif tensor.ndim == 0:
                tensor = tensor.expand(size)
            elif tensor.shape[-1] != size:
                raise ValueError(
                    f"{self.name}: {name} has shape {tuple(tensor.shape)}, expected {size} values in its last dimension"
                )
            columns.append(self.controls[name].normalize(tensor, sample_rate))
        if not columns:
            return torch.zeros(0)
        batch = torch.broadcast_shapes(*(column.shape[:-1] for column in columns))
        given = [c.dtype for c, name in zip(columns, self.controls, strict=True) if name in controls]
        dtype = given[0] if given else torch.get_default_dtype()
        for other in given[1:]:
            dtype = torch.promote_types(dtype, other)
        return torch.cat([column.to(dtype).expand(*batch, -1) for column in columns], -1)

    def denormalize(self, u: Tensor, sample_rate: float, options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The flat normalised vector to physical values.

        Args:
            u: `(*batch, num_controls)` in [0, 1].
            sample_rate: Sample rate in Hz.
            options: Options that decide sizes.

        Returns:
            Values by name, `(*batch)` or `(*batch, size)`.

        Raises:
            ValueError: If the last dimension of u is not `num_controls`.
        """
        total = self.num_controls(options)
        if u.ndim < 1 or u.shape[-1] != total:
            raise ValueError(
                f"{self.name}: u has shape {tuple(u.shape)}, expected {total} values in its last dimension"
            )
        values, start = {}, 0
        for name, size in self.layout(options):
            column = u[..., start] if size is None else u[..., start : start + size]
            values[name] = self.controls[name].denormalize(column, sample_rate)
            start += size or 1
        return values

    def random(
        self,
        batch: Sequence[int],
        sample_rate: float,
        generator: torch.Generator,
        options: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, Tensor]:
        """Controls drawn uniformly on the normalised scale, `(*batch)` or `(*batch, size)` each."""
        u = torch.rand(*batch, self.num_controls(options), generator=generator, dtype=dtype, device=generator.device)
        return self.denormalize(u, sample_rate, options)


PROCESSORS: dict[str, Spec] = {}
"""Every declared processor by name."""

_F = TypeVar("_F", bound=Callable[..., Tensor])
_P = ParamSpec("_P")


class StatefulProcessor(Protocol[_P]):
    """How type checkers see a processor with memory: a pair when a state is given, else audio alone."""

    @typing.overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts, and it asks for a state
        self, x: Tensor, sample_rate: float, *args: object, state: State, **kwargs: object
    ) -> tuple[Tensor, State]: ...

    @typing.overload
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> Tensor: ...


class _Decorator(Protocol):
    @typing.overload
    def __call__(self, function: _F) -> _F: ...  # type: ignore[overload-overlap]  # the first that fits counts

    @typing.overload
    def __call__(self, function: Callable[_P, Tensor | tuple[Tensor, State]]) -> StatefulProcessor[_P]: ...


@typing.overload
def processor(function: _F) -> _F: ...  # type: ignore[overload-overlap]  # the first that fits counts


@typing.overload
def processor(function: Callable[_P, Tensor | tuple[Tensor, State]]) -> StatefulProcessor[_P]: ...


@typing.overload
def processor(
    *,
    channels: tuple[int, ...] = (),
    channels_out: int | None = None,
    tracks: bool = False,
    automation: bool = False,
    linear: bool = False,
    fft: bool = False,
) -> _Decorator: ...


def processor(function: Callable[..., Any] | None = None, **flags: Any) -> Any:
    """Registers a function as a processor and returns that same function.

    Its signature is the declaration; the docstring gets a line for each control.  The flags are those of `Spec`.
    With `*, state: State | None = None` at the end, a processor with memory returns audio alone for None, and for a
    state the pair of audio and next state.

    Raises:
        TypeError: If the signature does not begin with x and sample_rate, a control has no default, or a state is not
            keyword-only with the default None.

    Example:
        >>> from typing import Annotated
        >>> @dasp.processor(automation=True)
        ... def offset(
        ...     x: torch.Tensor,
        ...     sample_rate: float,
        ...     amount: Annotated[float | torch.Tensor, dasp.Param("", -1, 1, meaning="What is added.")] = 0.0,
        ... ) -> torch.Tensor:
        ...     return x + amount
        >>> dasp.PROCESSORS.pop("offset").controls["amount"].meaning
        'What is added.'
    """
    if function is None:
        return lambda f: processor(f, **flags)
    spec = _read(function, flags)
    PROCESSORS[spec.name] = spec
    if function.__doc__:
        function.__doc__ = _with_control_lines(function.__doc__, spec)
    return function


def _read(function: Callable[..., Tensor], flags: Mapping[str, Any]) -> Spec:
    name = function.__name__
    arguments = list(inspect.signature(function).parameters.values())
    hints = typing.get_type_hints(function, include_extras=True)
    if [a.name for a in arguments[:2]] != ["x", "sample_rate"]:
        raise TypeError(f"{name}: a processor's first arguments are x and sample_rate")
    controls: dict[str, Param] = {}
    defaults: dict[str, float | tuple[float, ...]] = {}
    signals: dict[str, Signal] = {}
    options: dict[str, Any] = {}
    for argument in arguments[2:]:
        if argument.name == "state":
            if argument.kind is not argument.KEYWORD_ONLY or argument.default is not None:
                raise TypeError(f"{name}: state must be keyword-only with the default None")
            continue
        marks = getattr(hints[argument.name], "__metadata__", ())
        param = next((mark for mark in marks if isinstance(mark, Param)), None)
        signal = next((mark for mark in marks if isinstance(mark, Signal)), None)
        if signal is not None:
            signals[argument.name] = signal
        elif argument.default is inspect.Parameter.empty:
            raise TypeError(f"{name}: {argument.name} has no default")
        elif param is not None:
            controls[argument.name], defaults[argument.name] = param, argument.default
        else:
            options[argument.name] = argument.default
    return Spec(name, function, controls, defaults, signals, options, **flags)


def control_line(name: str, param: Param, default: float | tuple[float, ...]) -> str:
    """What the documentation says of a control: meaning, unit, usual range, scale, default."""
    unit = f" {param.unit}" if param.unit else ""
    numbers = [f"{v:g}" for v in (default if isinstance(default, tuple) else (default,))]
    value = numbers[0] if len(set(numbers)) == 1 else "(" + ", ".join(numbers) + ")"
    bands = "" if param.size is None else "; one value per band"
    scale = ", logarithmic" if param.scale == "log" else ""
    return f"{name}: {param.meaning} Usually {param.low:g} to {param.high:g}{unit}{scale}; default {value}{bands}."


def _with_control_lines(text: str, spec: Spec) -> str:
    lines = [control_line(name, param, spec.defaults[name]) for name, param in spec.controls.items()]
    lines = [f"{name}: {signal.meaning}" for name, signal in spec.signals.items()] + lines
    match = re.search(r"^( +)sample_rate:.*\n", text, flags=re.MULTILINE)
    if match is None or not lines:
        return text
    indent = match.group(1)
    return text[: match.end()] + "".join(f"{indent}{line}\n" for line in lines) + text[match.end() :]
