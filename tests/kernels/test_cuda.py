"""The CUDA kernels against those of the CPU: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dasp
from dasp.kernels import cuda
from dasp.kernels._library import library
from tests.cases import assert_close, peak
from tests.operators import (
    KERNELS,
    KernelCase,
    Tensors,
    all_gradients,
    ballistics_inputs,
    dynamics_inputs,
    sosfilt_inputs,
    svf_inputs,
    varying_ballistics_inputs,
)

pytest.importorskip("triton", reason="Triton is not installed: it comes with CUDA builds of torch, and runs on Linux")

from dasp.kernels.cuda import _chunks, ballistics, sosfilt, svf

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIMILAR = ("compress_mean", "expand_max", "expand_mean")
NAMED = {repr(kernel): kernel for kernel in KERNELS}
# A first and a last section; one between them has a test of its own.
NAMED["svf"] = replace(NAMED["svf"], inputs=partial(svf_inputs, sections=2))
# The interpreter takes tens of microseconds for an operation: sizes are small, and of the four kernels of dynamics,
# which differ in what they do to single samples, one stands for all where that does not matter.
each_kernel = pytest.mark.parametrize("kernel", [NAMED[name] for name in NAMED if name not in SIMILAR], ids=repr)

pytestmark = [
    # NumPy, in the interpreter, warns of what a GPU does silently.
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),
    pytest.mark.skipif(bool(library.reason), reason="the tolerances are those of the compiled kernels of the CPU"),
]

# One rounding of what is computed in float64; in float64 the order of operations, some ten roundings each in states
# that live up to some hundred samples and in sums over as many.
TOLERANCE = {torch.float32: 2.0**-23, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """150 samples are 19 chunks in 2 blocks, the last of each partial."""
    for name, value in {"LENGTH": 8, "SHORTEST": 8, "LANES": 16, "FEWEST_LANES": 16}.items():
        monkeypatch.setattr(_chunks, name, value)


@pytest.fixture(autouse=True)
def kernels_not_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASP_DISABLE_CUDA_KERNELS", raising=False)
    cuda.find.cache_clear()


def noise(like: Sequence[Tensor], seed: int = 9) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v.dtype) for v in like)


def on_cpu(kernel: KernelCase, inputs: Tensors, needs: bool = True) -> tuple[Tensors, Tensors]:
    """Outputs, and gradients of the inputs for noise as that of the outputs."""
    results = kernel.operator(*inputs)
    outputs, saved = tuple(results[:2]), (results[index] for index in kernel.saved)
    return outputs, kernel.backward_operator(*inputs, *saved, *noise(outputs), [needs] * len(inputs))


def on_gpu(kernel: KernelCase, inputs: Tensors, needs: bool = True) -> tuple[Tensors, Tensors]:
    """The same by the CUDA kernels."""
    kernels = cuda.find(kernel.name)
    assert kernels is not None
    moved = tuple(value.to(DEVICE) for value in inputs)
    outputs = kernels.forward(*moved)
    weights = tuple(value.to(DEVICE) for value in noise(outputs))
    grads = kernels.backward(moved, outputs, weights, [needs] * len(inputs))
    return tuple(value.cpu() for value in outputs), tuple(value.cpu() for value in grads)


def assert_equal(kernel: KernelCase, inputs: Tensors, tolerance: float | None = None) -> None:
    """Outputs and gradients; what is in float64 is held to the tolerance of float64 also where the audio is not."""
    got, want = on_gpu(kernel, inputs), on_cpu(kernel, inputs)
    # A state that has died away is held to the size of the signal.
    scales = [peak(want[0][0])] * 2 + [0.0] * len(inputs)
    for value, exact, scale in zip((*got[0], *got[1]), (*want[0], *want[1]), scales, strict=True):
        assert_close(value, exact, max(TOLERANCE[value.dtype], tolerance or 0.0), scale)


# ---- every kernel


# One sample; less than a chunk; two blocks, in reads of 16 bytes; the same in reads of one sample.
@pytest.mark.parametrize(
    ("dtype", "rows", "samples"),
    [
        (torch.float32, 1, 1),
        (torch.float64, 2, 6),
        (torch.float32, 2, 140),
        (torch.float64, 1, 142),
        (torch.float32, 1, 141),
    ],
    ids=str,
)
@each_kernel
def test_equals_the_cpu(kernel: KernelCase, dtype: torch.dtype, rows: int, samples: int) -> None:
    assert_equal(kernel, kernel.inputs(rows, samples, dtype, samples))


@pytest.mark.parametrize("name", SIMILAR)
def test_the_other_kernels_of_dynamics_equal_the_cpu(name: str) -> None:
    assert_equal(NAMED[name], NAMED[name].inputs(2, 40, torch.float32, 0))


def test_default_sizes_equal_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU is used, but for fewer blocks."""
    monkeypatch.undo()
    kernel = NAMED["recurrence"]
    inputs = kernel.inputs(1, 4100, torch.float32, 0)
    assert _chunks.cut(inputs[0])[2:] == (4, 128, 64, 33, 1)
    (y, zf), (want, want_zf) = on_gpu(kernel, inputs)[0], on_cpu(kernel, inputs)[0]
    assert_close(y, want, TOLERANCE[torch.float32])
    assert_close(zf, want_zf, TOLERANCE[torch.float64])


@each_kernel
def test_audio_that_is_not_aligned(kernel: KernelCase) -> None:
    inputs = kernel.inputs(1, 41, torch.float32, 1)
    moved = tuple(value.narrow(value.shape.index(41), 1, 40) if 41 in value.shape else value for value in inputs)
    copied = tuple(value.clone(memory_format=torch.contiguous_format) for value in moved)
    for got, want in zip(on_gpu(kernel, moved), on_gpu(kernel, copied), strict=True):
        assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))


@each_kernel
def test_no_rows_and_no_samples(kernel: KernelCase) -> None:
    for rows, samples in ((0, 10), (3, 0), (0, 0)):
        inputs = kernel.inputs(rows, samples, torch.float32, 0)
        got, want = on_gpu(kernel, inputs), on_cpu(kernel, inputs)
        for value, exact in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
            assert torch.equal(value, exact)


@each_kernel
def test_rows_do_not_depend_on_their_company(kernel: KernelCase) -> None:
    inputs = kernel.inputs(3, 40, torch.float32, 10)
    outputs, _ = on_gpu(kernel, inputs)
    alone = cuda.find(kernel.name).forward(*(value[1:2].to(DEVICE) for value in inputs))
    assert all(torch.equal(part.cpu(), whole[1:2]) for part, whole in zip(alone, outputs, strict=True))


@pytest.mark.parametrize("bad_value", [math.nan, math.inf])
@each_kernel
def test_bad_values_stay_in_their_row(kernel: KernelCase, bad_value: float) -> None:
    inputs = kernel.inputs(2, 20, torch.float32, 11)
    outputs, grads = on_gpu(kernel, inputs)
    for position, value in enumerate(inputs if math.isnan(bad_value) else inputs[:1]):
        bad = [other.clone() for other in inputs]
        bad[position][1].view(-1)[value[1].numel() // 2] = bad_value
        got, got_grads = on_gpu(kernel, tuple(bad))
        for part, whole in zip((*got, *got_grads), (*outputs, *grads), strict=True):
            assert torch.equal(part[0], whole[0])


@each_kernel
def test_nan_reaches_what_it_reaches_on_the_cpu(kernel: KernelCase) -> None:
    for place in (0, 77):
        audio, *rest = kernel.inputs(1, 150, torch.float32, 12)
        audio[..., place] = math.nan
        (y, zf), (want, want_zf) = on_gpu(kernel, (audio, *rest))[0], on_cpu(kernel, (audio, *rest))[0]
        assert torch.equal(y.isnan(), want.isnan())
        assert torch.equal(zf.isnan(), want_zf.isnan())
        assert_close(y[..., :place], want[..., :place], TOLERANCE[torch.float32])


@each_kernel
def test_inputs_stay_as_they_are(kernel: KernelCase) -> None:
    inputs = kernel.inputs(2, 10, torch.float64, 13)
    copies = [value.clone() for value in inputs]
    on_gpu(kernel, inputs)
    assert all(torch.equal(*pair) for pair in zip(inputs, copies, strict=True))


# ---- sosfilt


@pytest.mark.parametrize(("rows", "filters"), [(4, 2), (3, 1)])
def test_rows_share_filters(rows: int, filters: int) -> None:
    assert_equal(NAMED["sosfilt"], sosfilt_inputs(rows, 40, torch.float64, 0, 2, filters))


def test_more_sections_than_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sosfilt, "SECTIONS", 2)
    assert_equal(NAMED["sosfilt"], sosfilt_inputs(2, 24, torch.float32, 1, 5))


def test_as_many_sections_as_one_pass_takes() -> None:
    assert_equal(NAMED["sosfilt"], sosfilt_inputs(1, 40, torch.float32, 1, sosfilt.SECTIONS))


def test_no_sections_pass_the_signal() -> None:
    assert_equal(NAMED["sosfilt"], sosfilt_inputs(2, 20, torch.float32, 0, 0))


def test_states_are_joined_over_several_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sosfilt, "DIRECT", 3)
    monkeypatch.setattr(sosfilt, "GROUP", 3)
    assert_equal(NAMED["sosfilt"], sosfilt_inputs(2, 250, torch.float64, 2, 1, 1))


def test_rows_that_do_not_fit_into_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = sosfilt_inputs(4, 20, torch.float64, 3, 1, 2)
    whole = on_gpu(NAMED["sosfilt"], inputs)[1]
    monkeypatch.setattr(sosfilt, "SCRATCH", 1)
    assert all(torch.equal(*pair) for pair in zip(on_gpu(NAMED["sosfilt"], inputs)[1], whole, strict=True))


def test_gradients_of_audio_without_those_of_coefficients() -> None:
    inputs = sosfilt_inputs(2, 40, torch.float64, 4)
    gx, gsos, gzi = on_gpu(NAMED["sosfilt"], inputs, needs=False)[1]
    want, _, want_gzi = on_cpu(NAMED["sosfilt"], inputs, needs=False)[1]
    assert_close(gx, want, TOLERANCE[torch.float64])
    assert_close(gzi, want_gzi, TOLERANCE[torch.float64])
    assert not bool(gsos.any())


def peak_filter(frequency_hz: float, q: float) -> Tensor:
    """A peak of 12 dB at 44.1 kHz, `(1, 2, 5)`, twice."""
    w = 2 * np.pi * frequency_hz / 44100
    alpha, gain = np.sin(w) / (2 * q), 10 ** (12 / 40)
    section = np.array([1 + alpha * gain, -2 * np.cos(w), 1 - alpha * gain, -2 * np.cos(w), 1 - alpha / gain])
    return torch.from_numpy(section / (1 + alpha / gain)).reshape(1, 1, 5).repeat(1, 2, 1)


@pytest.mark.parametrize(("dtype", "q"), [(torch.float64, 0.7), (torch.float32, 10.0)])
def test_the_lowest_filters(dtype: torch.dtype, q: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 10 Hz a rounding of a state grows by (44100 / 20 pi)^1.5 = 2e4 in the output, and again in a gradient."""
    monkeypatch.setattr(_chunks, "LENGTH", 16)
    monkeypatch.setattr(_chunks, "LANES", 128)
    x, _, _ = sosfilt_inputs(1, 3000, dtype, 5)
    assert_equal(NAMED["sosfilt"], (x, peak_filter(10.0, q), torch.zeros(1, 2, 2, dtype=torch.float64)), 1e-10)


def test_a_section_without_effect_passes_its_input_to_the_bit() -> None:
    x, sos, zi = sosfilt_inputs(1, 100, torch.float64, 6, 2)
    sos[..., 0] = 1
    sos[..., 1:3] = sos[..., 3:]
    (y, _), _ = on_gpu(NAMED["sosfilt"], (x, sos, torch.zeros_like(zi)))
    assert torch.equal(y, x)


def test_unstable_filters_are_silent_until_the_signal_starts() -> None:
    """The power of an unstable matrix overflows; zeros in front of the signal stay zeros."""
    x, sos, _ = sosfilt_inputs(1, 150, torch.float64, 7, 1)
    x[:, :100] = 0
    # Over a chunk a state grows by 1e320.
    sos[0, 0, 3:] = torch.tensor([-1e40, 0.0], dtype=torch.float64)
    zi = torch.zeros(1, 1, 2, dtype=torch.float64)
    (y, _), (want, _) = on_gpu(NAMED["sosfilt"], (x, sos, zi))[0], on_cpu(NAMED["sosfilt"], (x, sos, zi))[0]
    assert not bool(y[:, :100].any())
    assert_close(y[:, :104], want[:, :104], TOLERANCE[torch.float64])


# ---- svf


# Frames that straddle chunks of 8 and blocks of 128 samples, on both ways through a row; that are longer than a block;
# that are of one sample; a single one.
@pytest.mark.parametrize(
    ("samples", "frames", "rows", "filters", "sections"),
    [(150, 10, 1, 1, 2), (260, 2, 1, 1, 1), (30, 30, 4, 2, 1), (30, 6, 3, 1, 1), (20, 1, 2, 1, 3)],
)
def test_frames_and_rows_that_share_filters(samples: int, frames: int, rows: int, filters: int, sections: int) -> None:
    assert_equal(NAMED["svf"], svf_inputs(rows, samples, torch.float64, samples, sections, filters, frames))


def test_sums_of_frames_take_several_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program two frames of the five; of a frame two of its chunks."""
    for samples, frames, sums in ((60, 5, 4), (80, 2, 2)):
        monkeypatch.setattr(svf, "SUMS", sums)
        assert_equal(NAMED["svf"], svf_inputs(1, samples, torch.float64, 1, 1, 1, frames))


@pytest.mark.parametrize(("rows", "filters", "fitting"), [(8, 2, 3), (4, 2, 3)])
def test_rows_of_frames_that_do_not_fit_at_once(
    rows: int, filters: int, fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each filter three rows and then the fourth; those of one filter and then of the other."""
    inputs = svf_inputs(rows, 8, torch.float64, 3, 1, filters, 4)
    monkeypatch.setattr(svf, "SCRATCH", fitting * 8 * 8)
    y, zf = svf.forward(*(value.to(DEVICE) for value in inputs))
    monkeypatch.setattr(svf, "SCRATCH", fitting * 8 * 8 * 14)
    outputs, grads = on_cpu(NAMED["svf"], inputs)
    for got, want in zip((y.cpu(), zf.cpu(), *on_gpu(NAMED["svf"], inputs)[1]), (*outputs, *grads), strict=True):
        assert_close(got, want, TOLERANCE[torch.float64])


# In parts of two chunks, of which the second begins within a frame and ends within the next; in parts of one chunk.
@pytest.mark.parametrize(
    ("scratch", "samples", "frames", "rows", "sections"),
    [(16 * 8 * 14, 36, 2, 1, 1), (1, 12, 4, 2, 1), (1, 12, 12, 1, 2)],
)
def test_a_row_that_does_not_fit_at_once(
    scratch: int, samples: int, frames: int, rows: int, sections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svf, "SCRATCH", scratch)
    assert_equal(NAMED["svf"], svf_inputs(rows, samples, torch.float64, 3, sections, 1, frames))


def test_gradients_of_audio_without_those_of_frames() -> None:
    inputs = svf_inputs(2, 40, torch.float64, 4, 2, 1, 10)
    gx, gcoefficients, gzi = on_gpu(NAMED["svf"], inputs, needs=False)[1]
    want, _, want_gzi = on_cpu(NAMED["svf"], inputs, needs=False)[1]
    assert_close(gx, want, TOLERANCE[torch.float64])
    assert_close(gzi, want_gzi, TOLERANCE[torch.float64])
    assert not bool(gcoefficients.any())


def test_no_state_variable_sections_pass_the_signal() -> None:
    assert_equal(NAMED["svf"], svf_inputs(2, 20, torch.float32, 0, 0))


def test_the_lowest_filters_that_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A low pass from 10 to 30 Hz and back at 44.1 kHz with a Q of 10, whose states live for 0.3 s."""
    monkeypatch.setattr(_chunks, "LENGTH", 16)
    monkeypatch.setattr(_chunks, "LANES", 64)
    x, _, zi = svf_inputs(1, 1500, torch.float64, 5, 1)
    g = torch.pi / 44100 * (20 - 10 * torch.cos(torch.linspace(0, 6.28, 30, dtype=torch.float64)))
    none, one = torch.zeros_like(g), torch.ones_like(g)
    coefficients = torch.stack([g, 1 / (1 + g * (g + 0.1)), none, none, one], -1)[None, :, None]
    assert_equal(NAMED["svf"], (x, coefficients, zi))


def test_overflow_stays_behind_the_silence_before_a_signal() -> None:
    """Coefficients that no filter has, whose states grow by 1e320 over a chunk: zeros in front stay zeros."""
    x, coefficients, zi = svf_inputs(1, 150, torch.float64, 7, 1)
    x[:, :100] = 0
    coefficients[..., 1] = 1e40
    zi.zero_()
    (y, _), (want, _) = on_gpu(NAMED["svf"], (x, coefficients, zi))[0], on_cpu(NAMED["svf"], (x, coefficients, zi))[0]
    assert not bool(y[:, :100].any())
    assert_close(y[:, :104], want[:, :104], TOLERANCE[torch.float64])


# ---- the smoother


def wandering(rows: int, samples: int, seed: int = 0) -> Tensor:
    """Gains in natural logarithms that rise and fall over many samples, at most 0 as those of a compressor."""
    steps = torch.randn(rows, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 10
    g = steps.cumsum(-1)
    return (g - g.amax(-1, keepdim=True) + 1).clamp_max(0)


# Faster down and slower up, which makes a concave map, the other way round, a convex one; extremes; an infinite memory.
POLES = [(0.9, 0.999), (0.999, 0.9), (0.0, 0.9999), (1.0, 0.5), (0.99999, 0.9999)]


@pytest.mark.parametrize(("attack", "release", "rounds"), [(*POLES[0], 0), *((*poles, 1) for poles in POLES)])
def test_slow_smoothers(attack: float, release: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over four blocks, of which the last two are left to the last resort, or three."""
    monkeypatch.setattr(ballistics, "ROUNDS", rounds)
    g = wandering(1, 480)
    poles = [torch.full((1,), pole, dtype=torch.float64) for pole in (attack, release)]
    # Where chunks meet 2^-46, in a state that lives as long as all 60 chunks: 1e-12; gradients are sums over it.
    assert_equal(NAMED["ballistics"], (g, *poles, torch.tensor([-3.0], dtype=torch.float64)), 1e-11)


def test_a_gain_at_rest_is_smoothed_by_the_same_pole_as_on_the_cpu() -> None:
    """In silence the gain goes to 0 and never passes it; on the wrong side of it a gradient has the other pole."""
    g = wandering(1, 250, 1)
    g[:, 70:] = 0
    poles = [torch.full((1,), pole, dtype=torch.float64) for pole in (0.5, 0.9)]
    assert_equal(NAMED["ballistics"], (g, *poles, torch.zeros(1, dtype=torch.float64)))
    assert_equal(NAMED["ballistics"], (0 * g, *poles, torch.zeros(1, dtype=torch.float64)))


@pytest.mark.parametrize("rounds", [0, 1])
def test_slow_smoothers_with_poles_that_vary(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now the attack is the shorter one and now the release: the map of a chunk is neither concave nor convex."""
    monkeypatch.setattr(ballistics, "ROUNDS", rounds)
    g, *_, zi = varying_ballistics_inputs(1, 280, torch.float64, 2)
    steps = torch.arange(280, dtype=torch.float64)[None] / 20
    poles = 0.9 + 0.09 * steps.sin(), 0.9 + 0.09 * steps.cos()
    assert_equal(NAMED["ballistics-varying"], (g, *poles, zi), 1e-11)


def test_blocks_after_nan_are_nan_and_those_before_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for rounds in (0, 1):
        monkeypatch.setattr(ballistics, "ROUNDS", rounds)
        g, *rest = ballistics_inputs(2, 300)
        g[0, 150] = math.nan
        (y, zf), _ = on_gpu(NAMED["ballistics"], (g, *rest))
        (want, _), _ = on_cpu(NAMED["ballistics"], (g, *rest))
        assert torch.equal(y.isnan(), want.isnan())
        assert zf.isnan().tolist() == [True, False]
        assert_close(y[0, :150], want[0, :150], TOLERANCE[torch.float64])
        assert_close(y[1], want[1], TOLERANCE[torch.float64])


# ---- dynamics


@pytest.mark.parametrize("name", ["compress_max", "compress_mean", "expand_max", "expand_mean"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_number_of_channels(name: str, channels: int) -> None:
    direction = 1 if name.startswith("compress") else -1
    assert_equal(NAMED[name], dynamics_inputs(1, 20, torch.float64, 1, channels, direction))


@pytest.mark.parametrize("name", ["compress_max", "compress_mean", "expand_max", "expand_mean"])
def test_silence_corners_ties_and_limits(name: str) -> None:
    direction = 1 if name.startswith("compress") else -1
    x, curve, poles, makeup, zi = dynamics_inputs(5, 24, torch.float32, 5, 2, direction)
    x[0] = 0
    x[1, :, 10:20] = 0
    curve[2, 2] = 0
    # A level on the corner itself: amplitude 1 and a threshold of 0.
    curve[2, 0] = 0
    x[2] = 1
    curve[3, 3] = 0
    poles[3] = 0
    # Amplitudes on both sides of what is read as silence.
    x[4] = torch.linspace(0.9e-8, 1.1e-8, 24)
    assert_equal(NAMED[name], (x, curve, poles, makeup, zi))


# ---- registration and compilation


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_operators_have_a_cuda_kernel(kernel: KernelCase) -> None:
    assert cuda.find(kernel.name) is not None
    for name in (kernel.name, f"{kernel.name}_backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"dasp::{name}", "CUDA")


def test_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASP_DISABLE_CUDA_KERNELS", "1")
    assert cuda.find("sosfilt") is None
    assert "DASP_DISABLE_CUDA_KERNELS" in cuda.reason()
    cuda.find.cache_clear()


def test_info_names_what_runs_on_a_gpu() -> None:
    assert dasp.info()["cuda_kernels"] == ("triton" if DEVICE == "cuda" else "-")


def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """Triton's compiler needs no GPU, and is stricter than its interpreter."""
    root = Path(dasp.__file__).resolve().parent.parent
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    command = [sys.executable, str(root / "tests" / "kernels" / "compile_cuda.py")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wide loads" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
@each_kernel
def test_gradients_through_the_registered_operator(kernel: KernelCase) -> None:
    inputs = [value.cuda().requires_grad_() for value in kernel.inputs(2, 30, torch.float64, 4)]
    assert torch.autograd.gradcheck(kernel.run, inputs, check_forward_ad=True, nondet_tol=0.0)
    _, want = all_gradients(kernel.run, kernel.inputs(2, 300, torch.float64, 5))
    moved = [value.cuda().requires_grad_() for value in kernel.inputs(2, 300, torch.float64, 5)]
    outputs = kernel.run(*moved)
    grads = torch.autograd.grad(outputs, moved, [value.cuda() for value in noise(outputs)])
    for grad, exact in zip(grads, want, strict=True):
        assert_close(grad.cpu(), exact, TOLERANCE[torch.float64])


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
@each_kernel
def test_a_cuda_graph_holds_a_call(kernel: KernelCase) -> None:
    """Nothing waits for the device, and the same rounds settle other audio."""
    first, second = (tuple(v.cuda() for v in kernel.inputs(2, 3000, torch.float32, seed)) for seed in (6, 7))
    fixed = tuple(value.clone() for value in first)
    cuda.find(kernel.name).forward(*fixed)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = cuda.find(kernel.name).forward(*fixed)
    for value, other in zip(fixed, second, strict=True):
        value.copy_(other)
    graph.replay()
    want = cuda.find(kernel.name).forward(*second)
    assert all(torch.equal(*pair) for pair in zip(outputs, want, strict=True))
