"""Compiles every launch of the CUDA kernels for a GPU that need not be there; run by test_cuda.py."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dasp.kernels.cuda import _MODULES, ballistics, dynamics, find, recurrence, sosfilt, svf
from tests.operators import KERNELS, svf_inputs

POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64"}
# Compiling takes long for many sections, and the last of two stands for those in between.
FEWER_SECTIONS = ("sosfilt", "svf")
# (kernel, sizes and constants): instructions that read 16 bytes.
compiled: dict[tuple[object, ...], int] = {}


def compile_instead(kernel, programs, lanes, *arguments, **constants):
    """In the place of `launch`: with the types, the sizes of 1 and the multiples of 16 that a launch would see."""
    signature, values, attributes = {}, dict(constants), {}
    for index, (parameter, value) in enumerate(zip(kernel.params, arguments, strict=False)):
        name, specialized = parameter.name, not parameter.do_not_specialize
        if isinstance(value, Tensor):
            signature[name] = POINTERS[value.dtype]
        elif value == 1 and specialized:
            values[name] = 1
        else:
            signature[name] = "i32"
        if isinstance(value, Tensor) or (value != 1 and value % 16 == 0 and specialized):
            attributes[(index,)] = [["tt.divisibility", 16]]
    signature |= dict.fromkeys(values, "constexpr")
    ordered = {name: signature[name] for name in kernel.arg_names}
    key = (kernel.__name__, *ordered.values(), *values.values(), *attributes)
    if key not in compiled:
        source = ASTSource(kernel, ordered, values, attributes)
        result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": max(1, lanes // 32)})
        lines = result.asm["ptx"].splitlines()
        compiled[key] = sum("ld.global" in line and (".v4" in line or ".v2.b64" in line) for line in lines)


for module in (ballistics, dynamics, recurrence, sosfilt, svf):
    module.launch = compile_instead

for case in KERNELS:
    # Two directions and two links differ in constants alone.
    if case.name in ("compress_mean", "expand_max"):
        continue
    kernels = find(case.name)
    for dtype in (torch.float32, torch.float64) if case.name == "recurrence" else (torch.float32,):
        # 44100 is no multiple of 16; rows of six blocks.
        samples, fewer = (2 * 44100, {}) if case.name not in FEWER_SECTIONS else (44100, {"sections": 2})
        inputs = case.inputs(2, samples, dtype, 0, **fewer)
        outputs = kernels.forward(*inputs)
        kernels.backward(inputs, outputs, outputs, [True] * len(inputs))

# Frames of several samples, and rows that share a filter.
x, coefficients, zi = svf_inputs(4, 44100, torch.float32, 0, 1, 2, 100)
for wanted in (True, False):
    svf.backward((x, coefficients, zi), (), (x, zi), [True, wanted, True])

for name in ("recurrence_maps", "recurrence_run", "sosfilt_chunks", "sosfilt_adjoint", "ballistics_round"):
    of_kernel = [count for key, count in compiled.items() if key[0] == name]
    if not all(of_kernel):
        sys.exit(f"{name} reads less than 16 bytes at a time: {of_kernel}")
print(f"{len(compiled)} compiled, with wide loads; modules: {len(_MODULES)}")
