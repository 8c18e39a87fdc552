"""One registration for an operator: dispatch, fake kernel, autograd, double backward, forward mode, vmap and compile.

Measured on torch 2.13: an operator that has only `register_autograd` returns silent zeros under `torch.func.jvp`, and
an `autograd.Function` with a `jvp` is refused by `torch.compile(fullgraph=True)`.  So eager calls go through a Function
and compiled calls through the operator.  Forward mode inside a compiled function still gives zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]

_LIBRARY = torch.library.Library("dasp", "DEF")


@dataclass(frozen=True)
class Operator:
    """What an operator brings.  All tensors have rows (or a divisor of their number) in front.

    An operator with settings gets them as the first arguments of each of its functions.

    Attributes:
        name: Its name in `torch.ops.dasp`.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        forward: The outputs, on the CPU.
        fake: Outputs of the right shape and type, with nothing in them.
        backward: `(inputs, outputs, grads, needs)` to gradients of the inputs, on the CPU, not differentiable; zeros
            where not needed.
        vjp: `(inputs, outputs, grads)` to the same as a composition of differentiable operators: what double backward
            differentiates.
        jvp: `(inputs, outputs, tangents)` to tangents of the outputs, as a composition of differentiable operators.
        settings: Static arguments that follow the inputs in a call, as a schema names them: "int seed, float rate".
        keeps_outputs: Whether the backward pass needs the outputs; without, backward and vjp get none, and whoever else
            needs an output decides how long it lives.
        any_device: Whether forward and backward consist of torch's own operators, which run on every device.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    forward: Callable[..., Tensors]
    fake: Callable[..., Tensors]
    backward: Callable[..., Tensors]
    vjp: Callable[..., Tensors]
    jvp: Callable[..., Tensors]
    settings: str = ""
    keeps_outputs: bool = True
    any_device: bool = False


def _on_cpu(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    """The CPU kernel for tensors of another device."""

    def call(*arguments: Any) -> Tensors:
        device = next(a.device for a in arguments if isinstance(a, Tensor))
        moved = [a.cpu() if isinstance(a, Tensor) else a for a in arguments]
        return tuple(out.to(device) for out in function(*moved))

    return call


def _fold_rows(info: Any, in_dims: Sequence[int | None], arguments: Sequence[Any]) -> list[Any]:
    """Moves the dimension that vmap adds into the rows."""
    folded: list[Any] = []
    for argument, dim in zip(arguments, in_dims, strict=True):
        if not isinstance(argument, Tensor):
            folded.append(argument)
            continue
        if dim is None:
            argument = argument.unsqueeze(0).expand(info.batch_size, *argument.shape)
        else:
            argument = argument.movedim(dim, 0)
        folded.append(argument.reshape(argument.shape[0] * argument.shape[1], *argument.shape[2:]))
    return folded


def _unfold_rows(info: Any, outputs: Tensors) -> tuple[Tensors, tuple[int, ...]]:
    unfolded = tuple(out.reshape(info.batch_size, out.shape[0] // info.batch_size, *out.shape[1:]) for out in outputs)
    return unfolded, (0,) * len(unfolded)


def _packed(function: Callable[..., Tensors]) -> Callable[..., Tensor | Tensors]:
    """In the form of torch, where an operator with one result returns it by itself."""

    def call(*arguments: Any) -> Tensor | Tensors:
        outputs = function(*arguments)
        return outputs[0] if len(outputs) == 1 else outputs

    return call


def _unpacked(outputs: Tensor | Sequence[Tensor]) -> Tensors:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _define(
    name: str, schema: str, kernel: Callable[..., Tensors], fake: Callable[..., Tensors], any_device: bool
) -> Any:
    """Registers one operator for devices, for fake tensors and under vmap; returns it."""
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    if any_device:
        _LIBRARY.impl(name, _packed(kernel), "CompositeExplicitAutograd")
    else:
        _LIBRARY.impl(name, _packed(kernel), "CPU")
        _LIBRARY.impl(name, _packed(_on_cpu(kernel)), "CUDA")
    torch.library.register_fake(f"dasp::{name}", _packed(fake), lib=_LIBRARY)
    operator = getattr(torch.ops.dasp, name)

    def vmap(
        info: Any, in_dims: Sequence[int | None], *arguments: Any
    ) -> tuple[Tensor | Tensors, int | tuple[int, ...]]:
        outputs, dims = _unfold_rows(info, _unpacked(operator(*_fold_rows(info, in_dims, arguments))))
        return (outputs, dims) if len(outputs) > 1 else (outputs[0], 0)

    torch.library.register_vmap(f"dasp::{name}", vmap, lib=_LIBRARY)
    return operator


def in_double(function: Callable[..., Tensors], like: int) -> Callable[..., Tensors]:
    """Computes a composition in float64; its results have the types of argument number `like`.

    Elementary steps on float32 audio would round between them, which the kernels do not.
    """

    def call(*arguments: Tensors) -> Tensors:
        results = function(*(tuple(tensor.double() for tensor in tensors) for tensors in arguments))
        return tuple(result.to(tensor.dtype) for result, tensor in zip(results, arguments[like], strict=True))

    return call


def define_source(name: str, schema: str, kernel: Callable[..., Tensor], fake: Callable[..., Tensor]) -> Any:
    """Registers an operator without tensor arguments, for every device; returns it."""
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"dasp::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.dasp, name)


def register(operator: Operator) -> Callable[..., Tensors]:
    """Registers `operator` as `dasp::<name>` and returns the function to call."""
    num_inputs, num_outputs = len(operator.inputs), len(operator.outputs)
    kept = operator.outputs if operator.keeps_outputs else ()
    split = num_inputs + len(kept)
    end = split + num_outputs

    def arguments(names: Sequence[str], *others: str) -> str:
        return ", ".join([*(f"Tensor {name}" for name in names), *filter(None, others)])

    def tensors(count: int) -> str:
        return "(" + ", ".join(["Tensor"] * count) + ")"

    def forward_kernel(*values: Any) -> Tensors:
        return operator.forward(*values[num_inputs:], *values[:num_inputs])

    def forward_fake(*values: Any) -> Tensors:
        return operator.fake(*values[num_inputs:], *values[:num_inputs])

    def backward_kernel(*values: Any) -> Tensors:
        inputs, outputs, grads = values[:num_inputs], values[num_inputs:split], values[split:end]
        return operator.backward(*values[end:-1], inputs, outputs, grads, values[-1])

    def backward_fake(*values: Any) -> Tensors:
        return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in values[:num_inputs])

    forward_op = _define(
        operator.name,
        f"({arguments(operator.inputs, operator.settings)}) -> {tensors(num_outputs)}",
        forward_kernel,
        forward_fake,
        operator.any_device,
    )
    backward_names = [*operator.inputs, *kept, *(f"grad_{name}" for name in operator.outputs)]
    backward_op = _define(
        f"{operator.name}_backward",
        f"({arguments(backward_names, operator.settings, 'bool[] needs')}) -> {tensors(num_inputs)}",
        backward_kernel,
        backward_fake,
        operator.any_device,
    )

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor | Tensors) -> None:
        ctx.settings = inputs[num_inputs:]
        ctx.save_for_backward(*inputs[:num_inputs], *(_unpacked(output) if operator.keeps_outputs else ()))

    def setup_both(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:num_inputs], *output)

    def compiled_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[:num_inputs])
        results = backward_op(*ctx.saved_tensors, *grads, *ctx.settings, needs)
        return (*_unpacked(results), *(None for _ in ctx.settings))

    torch.library.register_autograd(
        f"dasp::{operator.name}", compiled_backward, setup_context=setup_context, lib=_LIBRARY
    )

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(*values: Any) -> Tensors:
            return _unpacked(forward_op(*values))

        setup_context = staticmethod(setup_both)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            # Grad mode is on in a backward pass only with create_graph, and always under torch.func.
            if not torch.is_grad_enabled():
                return compiled_backward(ctx, *grads)
            saved = ctx.saved_tensors
            vjp = in_double(partial(operator.vjp, *ctx.settings), like=0)
            return (
                *vjp(tuple(saved[:num_inputs]), tuple(saved[num_inputs:]), grads),
                *(None for _ in ctx.settings),
            )

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Tensors:
            saved = ctx.saved_tensors
            pairs = zip(saved[:num_inputs], tangents[:num_inputs], strict=True)
            filled = tuple(torch.zeros_like(s) if t is None else t for s, t in pairs)
            jvp = in_double(partial(operator.jvp, *ctx.settings), like=1)
            return jvp(tuple(saved[:num_inputs]), tuple(saved[num_inputs:]), filled)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *values: Any) -> tuple[Tensors, tuple[int, ...]]:
            return _unfold_rows(info, call(*_fold_rows(info, in_dims, values)))

    Eager.__name__ = Eager.__qualname__ = operator.name

    def call(*values: Any) -> Tensors:
        if torch.compiler.is_compiling():
            return _unpacked(forward_op(*values))
        return tuple(Eager.apply(*values))  # type: ignore[no-untyped-call]  # torch does not annotate it

    return call
