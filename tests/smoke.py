"""Whether an installation works: `python tests/smoke.py`, which imports dasp from wherever it is installed.

`--fallback` expects no compiled kernels.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

import dasp
import dasp.functional as F
import dasp.mixing
import dasp.modules


def main(fallback: bool) -> None:
    checkout = Path(__file__).resolve().parents[1]
    assert checkout not in Path(dasp.__file__).resolve().parents, f"{dasp.__file__} is that of the checkout"
    assert (Path(dasp.__file__).parent / "py.typed").exists()
    info = dasp.info()
    assert info["cpu_kernels"].startswith("fallback") if fallback else info["cpu_kernels"] == "compiled", info
    if fallback:
        warnings.filterwarnings("ignore", "dasp: slow fallback", RuntimeWarning)
    # 20 dB over the threshold, of which a quarter is left.
    x = torch.ones(2, 1, 44100, requires_grad=True)
    threshold_db = torch.full((2,), -20.0, requires_grad=True)
    y = F.compressor(x, 44100, threshold_db, ratio=4.0)
    assert torch.allclose(20 * y[:, 0, -1].log10(), torch.tensor(-15.0), atol=1e-3), y[:, 0, -1]
    y.sum().backward()
    assert threshold_db.grad is not None
    assert bool((threshold_db.grad > 0).all())
    # Filters, FFTs and random numbers too.
    chain = dasp.modules.Chain(dasp.modules.ParametricEQ(44100), dasp.modules.NoiseShapedReverb(44100, decay_s=0.2))
    assert chain(torch.randn(1, 2, 4096)).isfinite().all()
    print(f"dasp {info['dasp']}: {info['cpu_kernels']}, {info['instruction_set']}")


if __name__ == "__main__":
    main("--fallback" in sys.argv)
