"""dasp: differentiable audio signal processing for PyTorch."""

from __future__ import annotations

from dasp._checks import debug
from dasp._spec import PROCESSORS, Param, Signal, Spec, processor
from dasp._version import __version__
from dasp.kernels import describe as _describe_kernels

__all__ = ["PROCESSORS", "Param", "Signal", "Spec", "__version__", "debug", "info", "processor"]


def info() -> dict[str, str]:
    """Versions and what the kernels run on, for bug reports.

    Example:
        >>> sorted(dasp.info())
        ['cpu_kernels', 'cuda_kernels', 'dasp', 'instruction_set', 'platform', 'python', 'threads', 'torch']
    """
    import platform

    import torch

    return {
        "dasp": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        **_describe_kernels(),
    }
