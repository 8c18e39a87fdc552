"""
Compile a chain
===============

``torch.compile`` takes a whole chain of processors, recursive ones too, with its gradients and for all lengths.  What
it computes is the same; what it saves is the overhead around the kernels.
"""

import os
import shutil
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch

import dasp.functional as F

# %%
# Two processors and a line of plain torch.

sample_rate = 44100


def strip(x: torch.Tensor, gain_db: torch.Tensor, threshold_db: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    y = F.parametric_eq(x, sample_rate, gain_db=gain_db)
    y = F.compressor(y, sample_rate, threshold_db, ratio=3.0)
    return torch.tanh(drive * y)


# %%
# Inductor, the usual backend, translates what is not a kernel of dasp to C++, needs a compiler for that, and keeps the
# result on disk, so that the program starts faster when it runs again.  Without a compiler the graph is traced as a
# whole all the same, by a backend that runs it piece by piece and saves nothing.

compiler = next(filter(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")), None)
backend = "inductor" if compiler else "aot_eager"
compiled = torch.compile(strip, fullgraph=True, dynamic=True, backend=backend)

controls = [torch.full((4, 6), 3.0), torch.full((4,), -20.0), torch.tensor(2.0)]
for control in controls:
    control.requires_grad_()


def step(function: Callable[..., torch.Tensor], x: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
    begin = time.perf_counter()
    y = function(x, *controls)
    gradients = torch.autograd.grad(y.square().mean(), controls)
    return 1000 * (time.perf_counter() - begin), [y.detach(), *gradients]


# %%
# The first call compiles, once for all lengths.  The later ones are medians of fifteen, forward and backward, on four
# items of two channels.

generator = torch.Generator().manual_seed(0)
first_ms, _ = step(compiled, torch.randn(4, 2, 1000, generator=generator))
print(f"first call, which compiles ({backend}): {first_ms / 1000:.1f} s\n")

lengths, medians_ms = [1024, 4096, 16384, 65536], {"eager": [], "compiled": []}
print(" samples      eager   compiled   largest relative difference of output and gradients")
for length in lengths:
    x = torch.randn(4, 2, length, generator=generator)
    for name, function in (("eager", strip), ("compiled", compiled)):
        medians_ms[name].append(torch.tensor([step(function, x)[0] for _ in range(15)]).median().item())
    pairs = zip(step(strip, x)[1], step(compiled, x)[1], strict=True)
    off = max(((ours - theirs).abs().amax() / theirs.abs().amax()).item() for theirs, ours in pairs)
    print(f"{length:8d}{medians_ms['eager'][-1]:8.2f} ms{medians_ms['compiled'][-1]:8.2f} ms{off:12.0e}")
    assert off < 1e-4

# %%
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name, times_ms in medians_ms.items():
    ax.loglog(lengths, times_ms, "o-", label=name)
ax.set_xticks(lengths, map(str, lengths))
ax.minorticks_off()
ax.set(xlabel="samples", ylabel="time (ms)", title="Time of forward and backward, eager and compiled")
ax.legend()
plt.show()
