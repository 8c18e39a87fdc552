"""dasp: differentiable audio signal processing for PyTorch."""

from __future__ import annotations

from dasp._checks import debug
from dasp._spec import PROCESSORS, Param, Signal, Spec, processor
from dasp._version import __version__
from dasp.kernels import describe as _describe_kernels

__all__ = ["PROCESSORS", "Param", "Signal", "Spec", "__version__", "debug", "info", "processor"]


# What dasp needs or can use, by the names of their distributions.
_PACKAGES = (
    *("torch", "numpy", "scipy", "soundfile", "safetensors", "rich", "jinja2"),
    *("triton", "pedalboard", "lightning", "tensorboard"),
)


def info() -> dict[str, str]:
    """Versions and what the kernels run on, for bug reports; "-" for a package that is not installed.

    Example:
        >>> list(dasp.info())[:8]
        ['dasp', 'python', 'platform', 'processor', 'threads', 'cpu_kernels', 'instruction_set', 'cuda_kernels']
    """
    import platform

    import torch

    return {
        "dasp": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": str(torch.get_num_threads()),
        **_describe_kernels(),
        **{name: _version_of(name) for name in _PACKAGES},
    }


def _version_of(name: str) -> str:
    """The version of a package, without importing it; "-" if it is not installed."""
    import importlib.metadata

    import torch

    if name == "torch":
        return str(torch.__version__)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"
