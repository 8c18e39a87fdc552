"""The compiled CPU library: found beside this file, opened once, checked, and called through ctypes."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

ABI_VERSION = 6

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
PATH = Path(__file__).resolve().parent / "cpu" / f"_dasp_cpu{_SUFFIX}"

_FUNCTIONS = (
    "biquads_f64",
    "biquads_backward_f64",
    "prototypes_f64",
    "prototypes_backward_f64",
    "gain_computer_f64",
    "gain_computer_backward_f64",
    *(
        f"{name}_{kind}"
        for name in (
            "sosfilt",
            "sosfilt_backward",
            "ballistics",
            "ballistics_backward",
            "dynamics",
            "dynamics_backward",
            "recurrence",
            "recurrence_backward",
            "svf",
            "svf_backward",
            "ballistics_varying",
            "ballistics_varying_backward",
            "mix",
            "mix_backward",
        )
        for kind in ("f32", "f64")
    ),
)


class Library:
    """The opened library, or the reason why there is none."""

    def __init__(self, path: Path = PATH) -> None:
        self.reason = ""
        self.instruction_set = ""
        self._handle: ctypes.CDLL | None = None
        self._reported = False
        if os.environ.get("DASP_DISABLE_CPU_KERNELS", "") not in ("", "0"):
            self.reason, self._reported = "switched off by DASP_DISABLE_CPU_KERNELS", True
        elif not path.exists():
            self.reason = f"{path.name} was not built (no C++ compiler at installation?)"
        else:
            self._open(path)

    def _open(self, path: Path) -> None:
        if not _is_whole(path):
            self.reason = f"{path.name} cannot be used: it is cut short, reinstall dasp"
            return
        try:
            handle = ctypes.CDLL(str(path))
            version = int(handle.dasp_abi_version())
            if version != ABI_VERSION:
                self.reason = f"{path.name} has ABI version {version}, expected {ABI_VERSION}: reinstall dasp"
                return
            for name in _FUNCTIONS:
                function = getattr(handle, f"dasp_{name}")
                function.argtypes = [ctypes.c_void_p, ctypes.c_int]
                function.restype = ctypes.c_int
            handle.dasp_instruction_set.restype = ctypes.c_char_p
            self.instruction_set = handle.dasp_instruction_set().decode()
        except (OSError, AttributeError) as error:
            self.reason = f"{path.name} cannot be used: {error}"
            return
        self._handle = handle

    def available(self) -> bool:
        """Whether the compiled kernels can be called; where not, the first call says so in one warning."""
        if self._handle is None and not self._reported:
            self._reported = True
            warnings.warn(
                f"dasp: slow fallback instead of compiled kernels: {self.reason}", RuntimeWarning, stacklevel=2
            )
        return self._handle is not None

    def call(
        self, name: str, arrays: Sequence[Tensor | ctypes.Array[ctypes.c_double] | None], sizes: Sequence[int]
    ) -> None:
        """Calls `dasp_<name>_<dtype>` with one structure: the addresses of `arrays`, then `sizes` as int64.

        The audio type is that of the first array.  All tensors are contiguous and on the CPU.
        """
        fields = [_address(array) for array in arrays]
        arguments = (ctypes.c_int64 * (len(fields) + len(sizes)))(*fields, *sizes)
        first = arrays[0]
        suffix = "f64" if isinstance(first, Tensor) and first.dtype == torch.float64 else "f32"
        # Starting threads costs tens of microseconds, which a small call does not earn back.
        threads = torch.get_num_threads() if sizes[0] * sizes[1] >= 1 << 15 else 1
        if getattr(self._handle, f"dasp_{name}_{suffix}")(arguments, threads):
            raise MemoryError(f"dasp: {name} ran out of memory at {sizes[0]} rows of {sizes[1]} samples")


# Memory of at least so many bytes is worth a system call.
_LARGE = 1 << 22
_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)
_madvise = None if _ADVICE is None else ctypes.CDLL(None).madvise


def advised(fresh: Tensor) -> Tensor:
    """Asks for huge pages for memory that nobody has touched yet, where Linux offers them; returns the same tensor.

    The first touch of fresh memory costs a fault for each page, which for pages of 4 KB takes longer than most filters.
    """
    size = fresh.numel() * fresh.element_size()
    if size >= _LARGE and _madvise is not None:
        begin = -(-fresh.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (fresh.data_ptr() + size) // mmap.PAGESIZE * mmap.PAGESIZE
        _madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _ADVICE)
    return fresh


def _address(array: Tensor | ctypes.Array[ctypes.c_double] | None) -> int:
    if isinstance(array, Tensor):
        return array.data_ptr()
    return 0 if array is None else ctypes.addressof(array)


def _is_whole(path: Path) -> bool:
    """Whether an ELF file reaches as far as its header says; opening one that does not ends the process.

    What is no 64-bit little-endian ELF file is left to the loader.
    """
    head = path.read_bytes()[:64]
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        return True
    sections, size, count = struct.unpack_from("<Q", head, 40)[0], *struct.unpack_from("<HH", head, 58)
    return bool(sections + size * count <= path.stat().st_size)


library = Library()
