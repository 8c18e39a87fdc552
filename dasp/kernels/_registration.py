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

from dasp.kernels import cuda

Tensors = tuple[Tensor, ...]

_LIBRARY = torch.library.Library("dasp", "DEF")


@dataclass(frozen=True)
class Operator:
    """What an operator brings.  All tensors have rows (or a divisor of their number) in front.

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
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    forward: Callable[..., Tensors]
    fake: Callable[..., Tensors]
    backward: Callable[[Tensors, Tensors, Tensors, Sequence[bool]], Tensors]
    vjp: Callable[[Tensors, Tensors, Tensors], Tensors]
    jvp: Callable[[Tensors, Tensors, Tensors], Tensors]


def _on_cpu(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    """The CPU kernel for tensors of another device."""

    def call(*arguments: Any) -> Tensors:
        device = next(a.device for a in arguments if isinstance(a, Tensor))
        moved = [a.cpu() if isinstance(a, Tensor) else a for a in arguments]
        return tuple(out.to(device) for out in function(*moved))

    return call


def _on_cuda(
    name: str, choose: Callable[[cuda.Kernels], Callable[..., Tensors]], otherwise: Callable[..., Tensors]
) -> Callable[..., Tensors]:
    """What `choose` takes of the CUDA kernels of an operator; where there are none, the CPU kernel."""
    on_cpu = _on_cpu(otherwise)

    def call(*arguments: Any) -> Tensors:
        kernels = cuda.find(name)
        if kernels is None:
            return on_cpu(*arguments)
        # Triton launches on the current device, whichever the tensors are on.
        with torch.cuda.device_of(arguments[0]):
            return choose(kernels)(*arguments)

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
        folded.append(argument.reshape(-1, *argument.shape[2:]))
    return folded


def _unfold_rows(info: Any, outputs: Tensors) -> tuple[Tensors, tuple[int, ...]]:
    unfolded = tuple(out.reshape(info.batch_size, -1, *out.shape[1:]) for out in outputs)
    return unfolded, (0,) * len(unfolded)


def _define(
    name: str,
    schema: str,
    kernel: Callable[..., Tensors],
    on_cuda: Callable[..., Tensors],
    fake: Callable[..., Tensors],
) -> Any:
    """Registers one operator for CPU, CUDA and fake tensors and under vmap; returns it."""
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CPU")
    _LIBRARY.impl(name, on_cuda, "CUDA")
    torch.library.register_fake(f"dasp::{name}", fake, lib=_LIBRARY)
    operator = getattr(torch.ops.dasp, name)

    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Tensors, tuple[int, ...]]:
        return _unfold_rows(info, operator(*_fold_rows(info, in_dims, arguments)))

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
    vjp, jvp = in_double(operator.vjp, like=0), in_double(operator.jvp, like=1)
    split = num_inputs + num_outputs

    def arguments(names: Sequence[str]) -> str:
        return ", ".join(f"Tensor {name}" for name in names)

    def results(count: int) -> str:
        return "(" + ", ".join(["Tensor"] * count) + ")"

    def call_backward(backward: Callable[..., Tensors], *tensors_and_needs: Any) -> Tensors:
        *tensors, needs = tensors_and_needs
        inputs, outputs, grads = tensors[:num_inputs], tensors[num_inputs:split], tensors[split:]
        return backward(tuple(inputs), tuple(outputs), tuple(grads), needs)

    def backward_fake(*tensors_and_needs: Any) -> Tensors:
        return tuple(
            torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors_and_needs[:num_inputs]
        )

    forward_op = _define(
        operator.name,
        f"({arguments(operator.inputs)}) -> {results(num_outputs)}",
        operator.forward,
        _on_cuda(operator.name, lambda kernels: kernels.forward, operator.forward),
        operator.fake,
    )
    cpu_backward = partial(call_backward, operator.backward)
    backward_names = [*operator.inputs, *operator.outputs, *(f"grad_{name}" for name in operator.outputs)]
    backward_op = _define(
        f"{operator.name}_backward",
        f"({arguments(backward_names)}, bool[] needs) -> {results(num_inputs)}",
        cpu_backward,
        _on_cuda(operator.name, lambda kernels: partial(call_backward, kernels.backward), cpu_backward),
        backward_fake,
    )

    def setup_context(ctx: Any, inputs: Tensors, output: Tensors) -> None:
        ctx.save_for_backward(*inputs, *output)

    def setup_both(ctx: Any, inputs: Tensors, output: Tensors) -> None:
        ctx.save_for_backward(*inputs, *output)
        ctx.save_for_forward(*inputs, *output)

    def compiled_backward(ctx: Any, *grads: Tensor) -> Tensors:
        return tuple(backward_op(*ctx.saved_tensors, *grads, list(ctx.needs_input_grad)))

    torch.library.register_autograd(
        f"dasp::{operator.name}", compiled_backward, setup_context=setup_context, lib=_LIBRARY
    )

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(*inputs: Tensor) -> Tensors:
            return tuple(forward_op(*inputs))

        setup_context = staticmethod(setup_both)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensors:
            # Grad mode is on in a backward pass only with create_graph, and always under torch.func.
            if not torch.is_grad_enabled():
                return compiled_backward(ctx, *grads)
            saved = ctx.saved_tensors
            return vjp(tuple(saved[:num_inputs]), tuple(saved[num_inputs:]), grads)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Tensors:
            saved = ctx.saved_tensors
            pairs = zip(saved[:num_inputs], tangents, strict=True)
            filled = tuple(torch.zeros_like(s) if t is None else t for s, t in pairs)
            return jvp(tuple(saved[:num_inputs]), tuple(saved[num_inputs:]), filled)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensors, tuple[int, ...]]:
            return _unfold_rows(info, call(*_fold_rows(info, in_dims, inputs)))

    Eager.__name__ = Eager.__qualname__ = operator.name

    def call(*inputs: Tensor) -> Tensors:
        if torch.compiler.is_compiling():
            return tuple(forward_op(*inputs))
        return tuple(Eager.apply(*inputs))  # type: ignore[no-untyped-call]  # torch does not annotate it

    return call
