"""What holds for every operator: the results of its reference, derivatives of any kind, any shape and layout."""

from __future__ import annotations

import gc
import math
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dasp.kernels._library import library
from tests.cases import LAYOUTS, assert_close, leaves
from tests.operators import KernelCase, Tensors, all_gradients, each_kernel

# One row; vectors with some lanes empty, with all full, more than one; around the blocks of 64 samples.
SHAPES = [(1, 1), (1, 63), (2, 64), (3, 65), (4, 130), (7, 200), (8, 5), (9, 129), (17, 66)]

# One rounding of what is computed in float64; in float64 the order of sums, in a state that lives some ten samples.
TOLERANCE = {torch.float32: 2.0**-23, torch.float64: 1e-13}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_kernel
def test_equals_the_reference(kernel: KernelCase, dtype: torch.dtype) -> None:
    for rows, samples in SHAPES:
        inputs = kernel.inputs(rows, samples, dtype, rows)
        (y, zf), (want, want_zf) = kernel.run(*inputs), kernel.reference(*inputs)
        assert_close(y, want, TOLERANCE[dtype])
        assert_close(zf, want_zf, TOLERANCE[torch.float64])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_kernel
def test_gradients_equal_those_of_the_reference(kernel: KernelCase, dtype: torch.dtype) -> None:
    for rows, samples in ((1, 1), (3, 65), (9, 130)):
        inputs = kernel.inputs(rows, samples, dtype, rows)
        _, got = all_gradients(kernel.run, inputs)
        _, want = all_gradients(kernel.differentiable, [value.double() for value in inputs])
        for grad, exact, value in zip(got, want, inputs, strict=True):
            assert grad.dtype == value.dtype
            # What enters in float32 is rounded before, what leaves after: outputs and gradients of audio.
            assert_close(grad.double(), exact, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_kernel
def test_gradients_of_torch_func_equal_those_of_autograd(kernel: KernelCase, dtype: torch.dtype) -> None:
    """The former go by a composition of operators, which must round no more than the kernel does."""
    inputs = kernel.inputs(3, 130, dtype, 3)
    outputs, want = all_gradients(kernel.run, inputs)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    _, pull = torch.func.vjp(kernel.run, *inputs)
    for got, exact in zip(pull(tuple(weights)), want, strict=True):
        assert_close(got, exact, 4 * TOLERANCE[dtype])


@each_kernel
def test_gradients_of_any_order_and_mode(kernel: KernelCase) -> None:
    inputs = leaves(*kernel.inputs(2, 12, torch.float64, 4))
    assert gradcheck(
        kernel.run, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert gradgradcheck(kernel.run, inputs, check_fwd_over_rev=True, fast_mode=True)


@each_kernel
def test_jacobians_agree(kernel: KernelCase) -> None:
    inputs = kernel.inputs(2, 9, torch.float64, 5)
    positions = tuple(range(len(inputs)))
    rows, columns = (
        jacobian(kernel.run, argnums=positions)(*inputs) for jacobian in (torch.func.jacrev, torch.func.jacfwd)
    )
    for row, column in zip(rows, columns, strict=True):
        for got, want in zip(row, column, strict=True):
            assert_close(got, want, 1e-12)


@each_kernel
def test_vmap_equals_a_loop(kernel: KernelCase) -> None:
    several = [kernel.inputs(2, 30, torch.float32, seed) for seed in range(3)]
    stacked = [torch.stack(values) for values in zip(*several, strict=True)]
    want = [torch.stack(values) for values in zip(*(kernel.run(*inputs) for inputs in several), strict=True)]
    for in_dim in (0, 1):
        moved = [value.movedim(0, in_dim) for value in stacked]
        got = torch.func.vmap(kernel.run, in_dims=in_dim)(*moved)
        assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))
    # One input shared by all.
    for shared in range(len(stacked)):
        dims = tuple(None if index == shared else 0 for index in range(len(stacked)))
        inputs = [value[0] if dim is None else value for value, dim in zip(stacked, dims, strict=True)]
        repeated = [
            value.expand(3, *value.shape) if dim is None else value for value, dim in zip(inputs, dims, strict=True)
        ]
        got, same = torch.func.vmap(kernel.run, in_dims=dims)(*inputs), torch.func.vmap(kernel.run)(*repeated)
        assert all(torch.equal(*pair) for pair in zip(got, same, strict=True))


@each_kernel
def test_registration_is_sound(kernel: KernelCase) -> None:
    inputs = kernel.inputs(3, 20, torch.float32, 6)
    outputs = kernel.run(*inputs)
    torch.library.opcheck(kernel.operator, leaves(*inputs))
    torch.library.opcheck(kernel.operator, [value.movedim(0, -1).contiguous().movedim(-1, 0) for value in inputs])
    for needs in (True, False):
        saved = [kernel.operator(*inputs)[index] for index in kernel.saved]
        arguments = [*inputs, *saved, *(torch.randn_like(out) for out in outputs), [needs] * len(inputs)]
        torch.library.opcheck(kernel.backward_operator, arguments)


@each_kernel
def test_compiled_whole_equals_eager(kernel: KernelCase) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(kernel.run, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows, samples in ((2, 30), (3, 31), (5, 100)):
        inputs = kernel.inputs(rows, samples, torch.float32, 7)
        got, want = all_gradients(compiled, inputs), all_gradients(kernel.run, inputs)
        for pair in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
            assert torch.equal(*pair)


def directional(kernel: KernelCase, *primals_and_tangents: Tensor) -> Tensor:
    half = len(primals_and_tangents) // 2
    return torch.func.jvp(lambda *v: kernel.run(*v)[0], primals_and_tangents[:half], primals_and_tangents[half:])[1]


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="torch 2.13 cannot register a forward mode for an operator, and gives zeros inside a compiled function",
)
@each_kernel
def test_forward_mode_inside_a_compiled_function(kernel: KernelCase) -> None:
    torch._dynamo.reset()
    inputs = kernel.inputs(2, 20, torch.float64, 8)
    tangents = kernel.inputs(2, 20, torch.float64, 9)
    compiled = torch.compile(directional, backend="aot_eager", fullgraph=True)
    assert_close(compiled(kernel, *inputs, *tangents), directional(kernel, *inputs, *tangents), 1e-12)


# ---- shapes, layouts, bad values


@each_kernel
def test_no_rows_and_no_samples(kernel: KernelCase) -> None:
    for rows, samples in ((0, 10), (3, 0), (0, 0)):
        inputs = kernel.inputs(rows, samples, torch.float32, 0)
        (y, zf), grads = all_gradients(kernel.run, inputs)
        assert y.shape == inputs[0].shape
        assert torch.equal(zf, inputs[-1])
        # Nothing happens to a state in no time, so that gradients pass it as they are.
        _, (_, *coefficients, gzi) = kernel.run(*inputs), grads
        weights = torch.Generator().manual_seed(9)
        torch.randn(y.shape, generator=weights, dtype=torch.float64)
        assert torch.equal(gzi, torch.randn(zf.shape, generator=weights, dtype=torch.float64))
        assert [grad.shape for grad in grads] == [value.shape for value in inputs]
        assert not any(bool(grad.any()) for grad in coefficients)


@each_kernel
def test_rows_are_independent(kernel: KernelCase) -> None:
    inputs = kernel.inputs(17, 130, torch.float32, 10)
    whole, whole_grads = all_gradients(kernel.run, inputs)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in whole]
    for rows in (slice(0, 1), slice(3, 5), slice(2, 6), slice(9, 17)):
        points = leaves(*(value[rows] for value in inputs))
        outputs = kernel.run(*points)
        grads = torch.autograd.grad(outputs, points, [weight[rows] for weight in weights])
        for part, full in zip((*outputs, *grads), (*whole, *whole_grads), strict=True):
            assert torch.equal(part, full[rows])


@each_kernel
def test_bad_values_stay_in_their_row(kernel: KernelCase) -> None:
    inputs = kernel.inputs(9, 130, torch.float32, 11)
    outputs, grads = all_gradients(kernel.run, inputs)
    clean = torch.arange(9) != 4
    for position, value in enumerate(inputs):
        for bad_value in (math.nan, math.inf, -math.inf):
            for place in (0, value[4].numel() // 2, value[4].numel() - 1):
                bad = [other.clone() for other in inputs]
                bad[position][4].view(-1)[place] = bad_value
                got, got_grads = all_gradients(kernel.run, bad)
                for part, full in zip((*got, *got_grads), (*outputs, *grads), strict=True):
                    assert torch.equal(part[clean], full[clean])


@each_kernel
def test_later_samples_do_not_change_earlier_ones(kernel: KernelCase) -> None:
    inputs = kernel.inputs(3, 130, torch.float32, 12)
    want = kernel.run(*inputs)[0]
    for start in (1, 64, 129):
        audio = inputs[0].clone()
        audio[..., start:] = math.nan
        assert torch.equal(kernel.run(audio, *inputs[1:])[0][..., :start], want[..., :start])


@pytest.mark.parametrize("layout", LAYOUTS)
@each_kernel
def test_layout_in_memory_changes_nothing(kernel: KernelCase, layout: str) -> None:
    inputs = kernel.inputs(5, 70, torch.float32, 13)
    arranged = [LAYOUTS[layout](value) if value.ndim > 1 else value for value in inputs]
    got, want = all_gradients(kernel.run, arranged), all_gradients(kernel.run, inputs)
    assert all(torch.equal(*pair) for pair in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True))
    assert all(out.is_contiguous() for out in got[0])


@each_kernel
def test_expanded_rows_equal_their_copies(kernel: KernelCase) -> None:
    one = kernel.inputs(1, 70, torch.float32, 14)
    expanded = [value.expand(6, *value.shape[1:]) for value in one]
    got, want = kernel.run(*expanded), kernel.run(*(value.contiguous() for value in expanded))
    assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))


@each_kernel
def test_inputs_stay_as_they_are_and_are_not_in_the_output(kernel: KernelCase) -> None:
    for samples in (20, 0):
        inputs = kernel.inputs(3, samples, torch.float32, 15)
        copies = [value.clone() for value in inputs]
        outputs = kernel.run(*inputs)
        assert all(torch.equal(*pair) for pair in zip(inputs, copies, strict=True))
        assert all(value._version == 0 for value in inputs)
        memory = {value.untyped_storage().data_ptr() for value in inputs if value.numel()}
        assert not memory & {out.untyped_storage().data_ptr() for out in outputs if out.numel()}


@each_kernel
def test_blocks_with_handed_over_state_equal_the_whole(kernel: KernelCase) -> None:
    *inputs, zi = kernel.inputs(3, 150, torch.float32, 16)
    y, zf = kernel.run(*inputs, zi)
    state, blocks, start = zi, [], 0
    for length in (1, 2, 63, 64, 20):
        # Time is the dimension of 150, in inputs that have one.
        part = [v.narrow(v.shape.index(150), start, length) if 150 in v.shape else v for v in inputs]
        block, state = kernel.run(*part, state)
        blocks.append(block)
        start += length
    if library.available() or kernel.name != "svf":
        assert torch.equal(torch.cat(blocks, -1), y)
        assert torch.equal(state, zf)
    else:  # It cuts each call into chunks of its own.
        assert_close(torch.cat(blocks, -1), y, TOLERANCE[torch.float32])
        assert_close(state, zf, TOLERANCE[torch.float64])


# ---- threads and memory


def work_for_threads(kernel: KernelCase, seed: int = 17) -> tuple[Tensors, Tensors]:
    return all_gradients(kernel.run, kernel.inputs(12, 6000, torch.float32, seed))


@pytest.mark.usefixtures("threads")
@each_kernel
def test_results_do_not_depend_on_threads(kernel: KernelCase, compiled_library: None) -> None:
    results = []
    for threads in (1, 2, 3, 4, 16):
        torch.set_num_threads(threads)
        results.append(work_for_threads(kernel))
    for outputs, grads in results[1:]:
        assert all(
            torch.equal(*pair) for pair in zip((*outputs, *grads), (*results[0][0], *results[0][1]), strict=True)
        )


@pytest.mark.usefixtures("threads")
@each_kernel
def test_calls_from_many_threads_at_once_agree(kernel: KernelCase, compiled_library: None) -> None:
    torch.set_num_threads(2)
    want = [work_for_threads(kernel, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda seed: work_for_threads(kernel, seed), [*range(8)] * 2)
        for (outputs, grads), (other_outputs, other_grads) in zip(want * 2, results, strict=True):
            assert all(
                torch.equal(*pair) for pair in zip((*outputs, *grads), (*other_outputs, *other_grads), strict=True)
            )


@each_kernel
def test_nothing_outlives_a_call(kernel: KernelCase) -> None:
    """No reference cycle: what was saved for the backward pass dies with its graph, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        inputs = leaves(*kernel.inputs(2, 30, torch.float32, 18))
        outputs = kernel.run(*inputs)
        outputs[0].sum().backward()
        alive = [weakref.ref(value) for value in (*inputs, *outputs)]
        del inputs, outputs
        assert [ref() for ref in alive] == [None] * len(alive)
    finally:
        gc.enable()
