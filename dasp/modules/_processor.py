"""The module form of a processor, derived from its declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from dasp._checks import check_sample_rate
from dasp._spec import PROCESSORS, Control, Spec, State


class _TracedProject(torch.autograd.Function):
    """Clamps to [0, 1]; where the clamp is active, gradients that point back inside pass, and no others."""

    @staticmethod
    def forward(u: Tensor) -> Tensor:
        return u.clamp(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        outward = ((u <= 0) & (grad > 0)) | ((u >= 1) & (grad < 0))
        return torch.where(outward, 0.0, grad)


class _Project(_TracedProject):
    """The same with forward mode and vmap, which torch.compile(fullgraph=True) refuses."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        outward = ((u <= 0) & (tangent < 0)) | ((u >= 1) & (tangent > 0))
        return torch.where(outward, 0.0, tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], u: Tensor) -> tuple[Tensor, int | None]:
        return project(u), in_dims[0]


def project(u: Tensor) -> Tensor:
    """Clamps normalised controls to [0, 1] so that gradient descent can reach a bound and leave it again.

    Args:
        u: Normalised controls, any shape.

    Returns:
        u clamped to [0, 1].  Where that changes or bounds a value, gradients pass that lead back inside, and no others.

    Example:
        >>> u = torch.tensor([-0.5, 0.25, 1.5], requires_grad=True)
        >>> dasp.modules.project(u).detach()
        tensor([0.0000, 0.2500, 1.0000])
    """
    function = _TracedProject if torch.compiler.is_compiling() else _Project
    projected: Tensor = function.apply(u)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return projected


class Processor(nn.Module):
    """A processor with a sample rate, options and learnable controls.

    Controls are parameters on the normalised scale, named `<control>_normalized`, one setting for all items;
    `controls()` gives them in physical units.  All that a class knows comes from its function's declaration.

    Args:
        sample_rate: Sample rate in Hz.
        **arguments: Initial values of controls in physical units, within their usual ranges; values of options; and
            the signals that the processor needs, which become buffers.

    Raises:
        TypeError: If an argument is unknown or a signal is missing.
        ValueError: If a value is outside its usual range or has the wrong number of bands.

    Example:
        >>> compressor = dasp.modules.Compressor(44100, threshold_db=-30.0)
        >>> compressor(torch.randn(4, 2, 4410)).square().mean().backward()
        >>> compressor.threshold_db_normalized.grad.shape, round(compressor.controls()["threshold_db"].item())
        (torch.Size([]), -30)
        >>> compressor.process_normalized(torch.randn(4, 2, 4410), torch.rand(4, compressor.num_controls)).shape
        torch.Size([4, 2, 4410])
    """

    function: ClassVar[Callable[..., Tensor]]
    spec: ClassVar[Spec]

    latency: int = 0
    """Samples by which the output comes late.  A class or a module of a processor that delays says how many."""

    def __init_subclass__(cls, function: Callable[..., Tensor], **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.function = staticmethod(function)
        cls.spec = PROCESSORS[function.__name__]
        cls.__doc__ = f"Module form of :func:`dasp.functional.{cls.spec.name}`, with its controls learnable."
        keyword = inspect.Parameter.KEYWORD_ONLY
        names = [*cls.spec.signals, *cls.spec.controls, *cls.spec.options]
        defaults = {**cls.spec.defaults, **cls.spec.options}
        positional = inspect.Parameter("sample_rate", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by inspect and Sphinx
            [
                positional,
                *(inspect.Parameter(n, keyword, default=defaults.get(n, inspect.Parameter.empty)) for n in names),
            ]
        )

    def __init__(self, sample_rate: float, **arguments: Any) -> None:
        super().__init__()
        name = type(self).__name__
        check_sample_rate(name, sample_rate)
        known = {*self.spec.signals, *self.spec.controls, *self.spec.options}
        for argument in arguments:
            if argument not in known:
                raise TypeError(f"{name}: unknown argument {argument}, expected one of {', '.join(sorted(known))}")
        self.sample_rate = sample_rate
        self.options = {n: arguments.get(n, default) for n, default in self.spec.options.items()}
        for signal in self.spec.signals:
            if signal not in arguments:
                raise TypeError(f"{name}: {signal} is missing")
            self.register_buffer(signal, arguments[signal])
        # As they were given; parameters are rounded to their type.
        self._initial: dict[str, Tensor] = {}
        for control, size in self.spec.layout(self.options):
            self._initial[control] = self._normalized(control, size, arguments.get(control))
            initial = self._initial[control].to(torch.get_default_dtype()).clone()
            self.register_parameter(f"{control}_normalized", nn.Parameter(initial))

    def _normalized(self, control: str, size: int | None, value: Control | None) -> Tensor:
        param = self.spec.controls[control]
        if value is None:
            physical = self.spec.default(control, self.sample_rate, self.options)
        else:
            physical = torch.as_tensor(value).detach().to(torch.float64)
            shape = () if size is None else (size,)
            if physical.shape not in ((), shape):
                raise ValueError(
                    f"{type(self).__name__}: {control} has shape {tuple(physical.shape)}, expected () or {shape}"
                )
            physical = physical.expand(shape)
            low, high = param.bounds(self.sample_rate)
            if not bool(((physical >= low) & (physical <= high)).all()):
                raise ValueError(
                    f"{type(self).__name__}: {control} is {value}, expected {low:g} to {high:g} {param.unit}".rstrip()
                )
        return param.normalize(physical, self.sample_rate)

    @property
    def num_controls(self) -> int:
        """Length of the flat normalised vector of `process_normalized`."""
        return self.spec.num_controls(self.options)

    @property
    def control_names(self) -> list[str]:
        """A name for each value of the flat normalised vector."""
        return self.spec.names(self.options)

    def controls(self) -> dict[str, Tensor]:
        """The learnable controls in physical units, differentiable."""
        return self.denormalize(project(self.flat()))

    def flat(self) -> Tensor:
        """The learnable controls as one normalised vector, as they are, in float32 at least."""
        controls = [getattr(self, f"{control}_normalized").reshape(-1) for control in self.spec.controls]
        flat = torch.cat(controls) if controls else torch.zeros(0)
        return flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat

    def exact(self) -> Tensor:
        """What `flat` gives in float64, without the rounding of parameters that are as they were made."""
        exact = [torch.zeros(0, dtype=torch.float64)]
        for control, initial in self._initial.items():
            value = getattr(self, f"{control}_normalized").detach()
            made = initial.to(value)
            exact.append(torch.where(value == made, initial.to(value.device), value.double()).reshape(-1))
        return torch.cat(exact)

    def normalize(self, controls: Mapping[str, Control]) -> Tensor:
        """Physical values by name to a flat normalised vector; see `Spec.normalize`."""
        return self.spec.normalize(controls, self.sample_rate, self.options)

    def denormalize(self, u: Tensor) -> dict[str, Tensor]:
        """A flat normalised vector to physical values by name; see `Spec.denormalize`."""
        return self.spec.denormalize(u, self.sample_rate, self.options)

    def process(self, x: Tensor, **controls: Control) -> Tensor:
        """Processes audio with controls in physical units, defaults where none is given."""
        y: Tensor = self._call(x, controls)
        return y

    def process_block(self, x: Tensor, state: State, **controls: Control) -> tuple[Tensor, State]:
        """Processes a block of audio as `process` does, from a state.

        Args:
            x: Audio `(*batch, channels, samples)`.
            state: What the call on the block before returned; `{}` at rest.
            **controls: Controls in physical units, defaults where none is given.

        Returns:
            Audio as the processor gives it, and the next state; `{}` of a processor without memory.
        """
        if not self.spec.stateful:
            return self._call(x, controls), {}
        pair: tuple[Tensor, State] = self._call(x, controls, state=state)
        return pair

    def _call(self, x: Tensor, controls: Mapping[str, Control], **state: State) -> Any:
        signals = {name: getattr(self, name) for name in self.spec.signals}
        return type(self).function(x, self.sample_rate, **signals, **controls, **self.options, **state)

    def process_normalized(self, x: Tensor, u: Tensor) -> Tensor:
        """Processes audio with controls from a network.

        Args:
            x: Audio `(*batch, channels, samples)`.
            u: Normalised controls `(*batch, num_controls)` in [0, 1].

        Returns:
            Audio as the processor gives it.

        Raises:
            ValueError: If u does not have `num_controls` values in its last dimension, or does not match x.
        """
        return self.process(x, **self.denormalize(u))

    def forward(self, x: Tensor) -> Tensor:
        """Processes audio with the module's own controls."""
        return self.process(x, **self.controls())

    def extra_repr(self) -> str:
        """The controls in physical units."""
        parts = [f"sample_rate={self.sample_rate:g}"]
        with torch.no_grad():
            for name, value in self.controls().items():
                numbers = [f"{v:.4g}" for v in value.reshape(-1).tolist()]
                parts.append(f"{name}={numbers[0] if value.ndim == 0 else '[' + ', '.join(numbers) + ']'}")
        parts += [f"{name}={value!r}" for name, value in self.options.items()]
        return ", ".join(parts)


class Chain(nn.Sequential):
    """Processors in series, with one flat normalised control vector.

    Args:
        *processors: Processors of the same sample rate, first to last.

    Raises:
        TypeError: If a stage is not a `Processor`.
        ValueError: If there is none, or their sample rates differ.

    Example:
        >>> chain = dasp.modules.Chain(dasp.modules.Gain(44100), dasp.modules.StereoPanner(44100))
        >>> chain.process_normalized(torch.zeros(3, 1, 64), torch.rand(3, chain.num_controls)).shape
        torch.Size([3, 2, 64])
    """

    def __init__(self, *processors: Processor) -> None:
        if not processors:
            raise ValueError("Chain: expected at least one processor, got none")
        for stage in processors:
            if not isinstance(stage, Processor):
                raise TypeError(f"Chain: a stage is a {type(stage).__name__}, expected a Processor")
        rates = {stage.sample_rate for stage in processors}
        if len(rates) > 1:
            raise ValueError(f"Chain: sample_rate differs between stages: {sorted(rates)}")
        super().__init__(*processors)

    def __getitem__(self, index: slice | int) -> Any:
        """A stage, or a chain of some of the stages, which are shared."""
        return Chain(*list(self.stages().values())[index]) if isinstance(index, slice) else super().__getitem__(index)

    @property
    def sample_rate(self) -> float:
        """Sample rate in Hz."""
        return next(iter(self.stages().values())).sample_rate

    @property
    def latency(self) -> int:
        """Samples by which the output comes late: those of all stages."""
        return sum(stage.latency for stage in self.stages().values())

    def stages(self) -> dict[str, Processor]:
        """The stages by name, that of the function, numbered where it occurs again: `peaking`, `peaking_2`."""
        stages: dict[str, Processor] = {}
        for module in self:
            stage = cast(Processor, module)
            name = stage.spec.name
            earlier = sum(other.spec is stage.spec for other in stages.values())
            stages[name if earlier == 0 else f"{name}_{earlier + 1}"] = stage
        return stages

    @property
    def num_controls(self) -> int:
        """Length of the flat normalised vector, that of all stages in a row."""
        return sum(stage.num_controls for stage in self.stages().values())

    @property
    def control_names(self) -> list[str]:
        """A name for each value of the flat vector, such as `compressor.threshold_db`."""
        return [f"{name}.{control}" for name, stage in self.stages().items() for control in stage.control_names]

    def split(self, u: Tensor) -> dict[str, Tensor]:
        """The flat vector's part for each stage.

        Raises:
            ValueError: If the last dimension of u is not `num_controls`.
        """
        sizes = [stage.num_controls for stage in self.stages().values()]
        if u.ndim < 1 or u.shape[-1] != sum(sizes):
            raise ValueError(f"Chain: u has shape {tuple(u.shape)}, expected {sum(sizes)} values in its last dimension")
        return dict(zip(self.stages(), u.split(sizes, -1), strict=True))

    def flat(self) -> Tensor:
        """The learnable controls of all stages as one normalised vector."""
        return torch.cat([stage.flat() for stage in self.stages().values()])

    def exact(self) -> Tensor:
        """What `flat` gives in float64, without the rounding of parameters that are as they were made."""
        return torch.cat([stage.exact() for stage in self.stages().values()])

    def normalize(self, controls: Mapping[str, Mapping[str, Control]]) -> Tensor:
        """Physical values by stage and name to a flat normalised vector; what is missing takes its default.

        Raises:
            ValueError: If a stage or a control is unknown, or a value has the wrong number of bands.
        """
        stages = self.stages()
        for name in controls:
            if name not in stages:
                raise ValueError(f"Chain: {name} is not a stage, expected one of {', '.join(stages)}")
        parts = [stage.normalize(controls.get(name, {})) for name, stage in stages.items()]
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*batch, -1) for part in parts], -1)

    def denormalize(self, u: Tensor) -> dict[str, dict[str, Tensor]]:
        """A flat normalised vector to physical values by stage and name."""
        stages = self.stages()
        return {name: stages[name].denormalize(part) for name, part in self.split(u).items()}

    def process(self, x: Tensor, controls: Mapping[str, Mapping[str, Control]]) -> Tensor:
        """Processes audio with controls in physical units by stage and name, defaults where none is given."""
        for name, stage in self.stages().items():
            x = stage.process(x, **controls.get(name, {}))
        return x

    def process_block(
        self, x: Tensor, state: State, controls: Mapping[str, Mapping[str, Control]]
    ) -> tuple[Tensor, State]:
        """Processes a block of audio as `process` does, from a state.

        Args:
            x: Audio `(*batch, channels, samples)`.
            state: What the call on the block before returned; `{}` at rest.
            controls: Controls in physical units by stage and name, defaults where none is given.

        Returns:
            Audio as the last processor gives it, and the next state, its names with that of the stage in front:
            `compressor.smoothed_gain`.
        """
        after: State = {}
        for name, stage in self.stages().items():
            x, own = stage.process_block(x, part_of(state, name), **controls.get(name, {}))
            after |= {f"{name}.{key}": value for key, value in own.items()}
        return x, after

    def process_normalized(self, x: Tensor, u: Tensor) -> Tensor:
        """Processes audio with controls from a network.

        Args:
            x: Audio `(*batch, channels, samples)`.
            u: Normalised controls `(*batch, num_controls)` in [0, 1].

        Returns:
            Audio as the last processor gives it.

        Raises:
            ValueError: If u does not have `num_controls` values in its last dimension, or does not match x.
        """
        return self.process(x, self.denormalize(u))


def part_of(state: State, name: str) -> State:
    """The part of a state whose names begin with `name` and a full stop, without these."""
    front = f"{name}."
    return {key.removeprefix(front): value for key, value in state.items() if key.startswith(front)}


class Stream(nn.Module):
    """Processes audio in blocks of any lengths: a processor or a chain with its memory.

    Blocks one after the other give what one call on the whole gives.  The memory is neither a parameter nor in the
    state_dict; gradients reach through it to earlier blocks until `detach` is called.

    Args:
        module: The processor or chain, whose own controls are used.

    Attributes:
        module: That module.
        state: What it remembers; `{}` at rest.

    Raises:
        TypeError: If the module is neither a `Processor` nor a `Chain`.

    Example:
        >>> stream = dasp.modules.Stream(dasp.modules.Compressor(44100, threshold_db=-30.0))
        >>> [stream(block).shape[-1] for block in torch.zeros(2, 1000).split(400, -1)]
        [400, 400, 200]
    """

    def __init__(self, module: Processor | Chain) -> None:
        super().__init__()
        if not isinstance(module, (Processor, Chain)):
            raise TypeError(f"Stream: module is a {type(module).__name__}, expected a Processor or a Chain")
        self.module = module
        self.state: State = {}

    def forward(self, x: Tensor) -> Tensor:
        """Processes the next block, `(*batch, channels, samples)`.

        Raises:
            ValueError: If it has another batch or other channels than the blocks since the last `reset`.
        """
        if isinstance(self.module, Chain):
            stages = {name: stage.controls() for name, stage in self.module.stages().items()}
            y, self.state = self.module.process_block(x, self.state, stages)
        else:
            y, self.state = self.module.process_block(x, self.state, **self.module.controls())
        return y

    def reset(self) -> None:
        """Forgets what came before."""
        self.state = {}

    def detach(self) -> None:
        """Ends gradients here: what came before is a constant for the blocks that follow."""
        self.state = {name: value.detach() for name, value in self.state.items()}
