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
from torch.autograd import forward_ad

from dasp.kernels import cuda

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
        forward: The outputs, on the CPU; with `CHECKPOINTS` among `saved` it takes `differentiable` behind the inputs,
            and returns the checkpoints behind the outputs: with nothing in them unless `differentiable`.
        fake: Outputs of the right shape and type, with nothing in them; arguments and results as of `forward`.
        backward: `(inputs, saved, grads, needs)` to gradients of the inputs, on the CPU, not differentiable; zeros
            where not needed.
        vjp: `(inputs, saved, grads)` to the same as a composition of differentiable operators: what double backward
            differentiates.
        jvp: `(inputs, outputs, tangents)` to tangents of the outputs, as a composition of differentiable operators.
        saved: Names of the outputs that `backward` and `vjp` get, and `CHECKPOINTS` where the CPU's backward pass uses
            something that is no output.
        settings: Static arguments that follow the inputs in a call, as a schema names them: "int seed, float rate".
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
    saved: tuple[str, ...] = ()
    settings: str = ""
    any_device: bool = False


CHECKPOINTS = "checkpoints"
# States are kept at the start of every block of so many samples, which is a block of the C++ kernels.
BLOCK = 64


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
        folded.append(argument.reshape(argument.shape[0] * argument.shape[1], *argument.shape[2:]))
    return folded


def _unfold_rows(info: Any, outputs: Tensors) -> tuple[Tensors, tuple[int, ...]]:
    # Not -1 for the rows: there may be nothing in a tensor.
    size = info.batch_size
    unfolded = tuple(out.reshape(size, out.shape[0] // size, *out.shape[1:]) for out in outputs)
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
    name: str,
    schema: str,
    kernel: Callable[..., Tensors],
    fake: Callable[..., Tensors],
    on_cuda: Callable[..., Tensors] | None,
) -> Any:
    """Registers one operator for devices, for fake tensors and under vmap; `kernel` runs on all without `on_cuda`."""
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    if on_cuda is None:
        _LIBRARY.impl(name, _packed(kernel), "CompositeExplicitAutograd")
    else:
        _LIBRARY.impl(name, _packed(kernel), "CPU")
        _LIBRARY.impl(name, _packed(on_cuda), "CUDA")
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


def numbers(value: float | Sequence[float], like: Tensor | None) -> Tensor:
    """Python numbers as a tensor in float64 on the device of `like`, without waiting for it.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If they are not of a regular shape.
    """
    tensor = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if like is None or like.device.type == "cpu":
        return tensor
    # A copy from the CPU's memory waits for a GPU, and cannot be held by a CUDA graph.
    filled = partial(torch.full, (), dtype=torch.float64, device=like.device)
    if isinstance(value, Sequence) and tensor.ndim == 1 and value:
        return torch.stack([filled(float(number)) for number in value])
    if tensor.ndim == 0 and not isinstance(value, Sequence):
        return filled(float(value))
    return tensor.to(like.device)


def readable(value: Tensor) -> bool:
    """Whether a value can be read in Python without waiting for a device."""
    return value.device.type == "cpu"


def transposed(reference: Callable[..., Tensor | Tensors]) -> tuple[Callable[..., Tensors], Callable[..., Tensors]]:
    """`Operator.vjp` and `Operator.jvp` of an operator from its reference in differentiable operations of torch."""

    def pullback(settings: Sequence[Any], inputs: Tensors) -> Callable[..., Tensors]:
        pull: Callable[..., Tensors] = torch.func.vjp(
            lambda *values: _unpacked(reference(*settings, *values)), *inputs
        )[1]
        return pull

    def vjp(*arguments: Any) -> Tensors:
        *settings, inputs, _, grads = arguments
        return pullback(settings, inputs)(tuple(grads))

    def jvp(*arguments: Any) -> Tensors:
        """By transposing the transpose: forward modes of torch 2.13 cannot be nested."""
        *settings, inputs, outputs, tangents = arguments
        push = torch.func.vjp(pullback(settings, inputs), tuple(torch.zeros_like(output) for output in outputs))[1]
        (results,) = push(tuple(tangents))
        return tuple(results)

    return vjp, jvp


def nothing(like: Tensor) -> Tensor:
    """In the place of checkpoints that nobody will ask for."""
    return like.new_empty(0)


def _is_plain(inputs: Sequence[Tensor]) -> bool:
    """Whether no derivative of any kind is asked for; as `torch.autograd.Function.apply` asks itself in torch 2.13."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs))


def register(operator: Operator) -> Callable[..., Tensors]:
    """Registers `operator` as `dasp::<name>` and returns the function to call, with inputs and then settings."""
    num_inputs, num_outputs = len(operator.inputs), len(operator.outputs)
    checkpoints = CHECKPOINTS in operator.saved
    results = (*operator.outputs, CHECKPOINTS) if checkpoints else operator.outputs
    kept = [results.index(name) for name in operator.saved]
    num_settings = len(operator.settings.split(",")) if operator.settings else 0
    split = num_inputs + len(kept)
    end = split + num_outputs

    def arguments(names: Sequence[str], *others: str) -> str:
        return ", ".join([*(f"Tensor {name}" for name in names), *filter(None, others)])

    def tensors(count: int) -> str:
        return "(" + ", ".join(["Tensor"] * count) + ")"

    def settings_first(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
        """Called as the operator is: inputs, settings, and whether checkpoints are wanted."""

        def call(*values: Any) -> Tensors:
            inputs, settings = values[:num_inputs], values[num_inputs : num_inputs + num_settings]
            # torch leaves out what has its default.
            return function(*settings, *inputs, *values[num_inputs + num_settings :])

        return call

    def without_checkpoints(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
        """In the form of `Operator.forward`, of a kernel that keeps none."""
        if not checkpoints:
            return function
        return lambda *values: (*function(*values[: num_settings + num_inputs]), nothing(values[num_settings]))

    def grouped(backward: Callable[..., Tensors]) -> Callable[..., Tensors]:
        def call(*values: Any) -> Tensors:
            inputs, saved, grads = values[:num_inputs], values[num_inputs:split], values[split:end]
            return backward(*values[end:-1], inputs, saved, grads, values[-1])

        return call

    def backward_fake(*values: Any) -> Tensors:
        return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in values[:num_inputs])

    def define(
        name: str,
        schema: str,
        kernel: Callable[..., Tensors],
        fake: Callable[..., Tensors],
        choose: Callable[[cuda.Kernels], Callable[..., Tensors]],
    ) -> Any:
        on_cuda = None if operator.any_device else _on_cuda(operator.name, choose, kernel)
        return _define(name, schema, kernel, fake, on_cuda)

    forward_op = define(
        operator.name,
        f"({arguments(operator.inputs, operator.settings, 'bool differentiable=True' if checkpoints else '')})"
        f" -> {tensors(len(results))}",
        settings_first(operator.forward),
        settings_first(operator.fake),
        lambda kernels: settings_first(without_checkpoints(kernels.forward)),
    )
    backward_names = [*operator.inputs, *operator.saved, *(f"grad_{name}" for name in operator.outputs)]
    backward_op = define(
        f"{operator.name}_backward",
        f"({arguments(backward_names, operator.settings, 'bool[] needs')}) -> {tensors(num_inputs)}",
        grouped(operator.backward),
        backward_fake,
        lambda kernels: grouped(kernels.backward),
    )

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor | Tensors) -> None:
        outputs = _unpacked(output)
        ctx.others = inputs[num_inputs:]
        ctx.save_for_backward(*inputs[:num_inputs], *(outputs[index] for index in kept))
        # Not materialised, since the gradient of checkpoints would be zeros of their size.
        ctx.set_materialize_grads(False)
        ctx.described = [(out.shape, out.dtype, out.device) for out in outputs[:num_outputs]]
        if checkpoints:
            ctx.mark_non_differentiable(outputs[num_outputs])

    def setup_both(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:num_inputs], *output[:num_outputs])

    def settings_of(ctx: Any) -> tuple[Any, ...]:
        return tuple(ctx.others[:num_settings])

    def filled(ctx: Any, grads: Sequence[Tensor | None]) -> Tensors:
        pairs = zip(grads[:num_outputs], ctx.described, strict=True)
        return tuple(
            torch.zeros(shape, dtype=dtype, device=device) if grad is None else grad
            for grad, (shape, dtype, device) in pairs
        )

    def first_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[:num_inputs])
        gradients = backward_op(*ctx.saved_tensors, *filled(ctx, grads), *settings_of(ctx), needs)
        return (*_unpacked(gradients), *(None for _ in ctx.others))

    torch.library.register_autograd(f"dasp::{operator.name}", first_backward, setup_context=setup_context, lib=_LIBRARY)

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(*values: Any) -> Tensors:
            with torch._C._AutoDispatchBelowAutograd():
                return _unpacked(forward_op(*values))

        setup_context = staticmethod(setup_both)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            # Grad mode is on in a backward pass only with create_graph, and always under torch.func.
            if not torch.is_grad_enabled():
                return first_backward(ctx, *grads)
            saved = ctx.saved_tensors
            vjp = in_double(partial(operator.vjp, *settings_of(ctx)), like=0)
            gradients = vjp(tuple(saved[:num_inputs]), tuple(saved[num_inputs:]), filled(ctx, grads))
            return (*gradients, *(None for _ in ctx.others))

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
            saved = ctx.saved_tensors
            inputs, outputs = tuple(saved[:num_inputs]), tuple(saved[num_inputs:])
            pairs = zip(inputs, tangents[:num_inputs], strict=True)
            directions = tuple(torch.zeros_like(s) if t is None else t for s, t in pairs)
            jvp = in_double(partial(operator.jvp, *settings_of(ctx)), like=1)
            return (*jvp(inputs, outputs, directions), *((None,) if checkpoints else ()))

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *values: Any) -> tuple[Tensors, tuple[int, ...]]:
            return _unfold_rows(info, eager(*_fold_rows(info, in_dims, values)[: num_inputs + num_settings]))

    Eager.__name__ = Eager.__qualname__ = operator.name

    # Without transforms of torch.func, `Function.apply` of torch 2.13 does nothing but this, after it has looked at the
    # signature of `forward`, which takes longer than the rest.
    apply_directly = super(torch.autograd.Function, Eager).apply

    def eager(*values: Any) -> Tensors:
        plain = _is_plain(values[:num_inputs])
        flag = (not plain,) if checkpoints else ()
        if plain:
            with torch._C._AutoDispatchBelowAutograd():
                return _unpacked(forward_op(*values, *flag))
        apply = Eager.apply if torch._C._are_functorch_transforms_active() else apply_directly
        return _unpacked(apply(*values, *flag))  # type: ignore[no-untyped-call]  # torch does not annotate it

    def call(*values: Any) -> Tensors:
        if torch.compiler.is_compiling():
            flag = (torch.is_grad_enabled(),) if checkpoints else ()
            return _unpacked(forward_op(*values, *flag))[:num_outputs]
        return eager(*values)[:num_outputs]

    return call
