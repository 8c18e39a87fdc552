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

from dasp.kernels.cuda import _MODULES, ballistics, dynamics, find, recurrence, sosfilt
from tests.operators import KERNELS, sosfilt_inputs

POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64"}
# (kernel, sizes and constants): instructions that read 16 bytes.
compiled: dict[tuple[object, ...], int] = {}


def compile_instead(kernel, programs, lanes, *arguments, **constants):
    """In the place of `launch`: with the types, the sizes of 1 and the multiples of 16 that a launch would see."""
    signature, values, attributes = {}, dict(constants), {}
    for index, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if isinstance(value, Tensor):
            signature[name] = POINTERS[value.dtype]
        elif value == 1:
            values[name] = 1
        else:
            signature[name] = "i32"
        if isinstance(value, Tensor) or (value != 1 and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    signature |= dict.fromkeys(values, "constexpr")
    ordered = {name: signature[name] for name in kernel.arg_names}
    key = (kernel.__name__, *ordered.values(), *values.values(), *attributes)
    if key not in compiled:
        source = ASTSource(kernel, ordered, values, attributes)
        result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": max(1, lanes // 32)})
        lines = result.asm["ptx"].splitlines()
        compiled[key] = sum("ld.global" in line and (".v4" in line or ".v2.b64" in line) for line in lines)


for module in (ballistics, dynamics, recurrence, sosfilt):
    module.launch = compile_instead

for case in KERNELS:
    # Two directions and two links differ in constants alone.
    if case.name in ("compress_mean", "expand_max", "svf") or case.variant:
        continue
    kernels = find(case.name)
    for dtype in (torch.float32, torch.float64) if case.name == "recurrence" else (torch.float32,):
        # 44100 is no multiple of 16; rows of six blocks.
        inputs = (
            case.inputs(2, 2 * 44100, dtype, 0) if case.name != "sosfilt" else sosfilt_inputs(2, 44100, dtype, 0, 2)
        )
        outputs = kernels.forward(*inputs)
        kernels.backward(inputs, outputs, outputs, [True] * len(inputs))

for name in ("recurrence_maps", "recurrence_run", "sosfilt_chunks", "sosfilt_adjoint", "ballistics_round"):
    of_kernel = [count for key, count in compiled.items() if key[0] == name]
    if not all(of_kernel):
        sys.exit(f"{name} reads less than 16 bytes at a time: {of_kernel}")
print(f"{len(compiled)} compiled, with wide loads; modules: {len(_MODULES)}")
