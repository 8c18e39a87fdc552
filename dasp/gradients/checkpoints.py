"""Files of network parameters and training states, in safetensors: tensors and text, nothing that runs."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dasp._checks import shape_text


def write_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], notes: Mapping[str, Any], kind: str
) -> None:
    """Writes under another name in the same folder and moves: the file is whole, whatever ends the program meanwhile.

    Args:
        path: The file, replaced if it exists.
        tensors: Tensors by name.
        notes: What can be written as JSON, by name.
        kind: What the file is, and the version of its layout: files of another kind are not read.

    Raises:
        OSError: If it cannot be written; its text names the file.
    """
    # Only here and below: the import of dasp is to be quick.
    import safetensors.torch

    metadata = {"format": kind, **{name: json.dumps(note) for name, note in notes.items()}}
    content = safetensors.torch.save({name: t.detach().contiguous().clone() for name, t in tensors.items()}, metadata)
    target = Path(path)
    temporary = target.with_name(f".{target.name[:64]}-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def read_checkpoint(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and notes by name, of a file of this kind.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind, or holds NaN or infinite numbers.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # it is no dict
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, UnicodeError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    if metadata.get("format") != kind:
        raise ValueError(f"{path}: has format {metadata.get('format')!r}, expected {kind!r}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: {name} has NaN or infinite numbers")
    try:
        return tensors, {name: json.loads(text) for name, text in metadata.items() if name != "format"}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata are damaged ({error})") from error


def prefixed(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with a name and a full stop before theirs."""
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that."""
    front = f"{name}."
    return {key.removeprefix(front): tensor for key, tensor in tensors.items() if key.startswith(front)}


def check_parameters(source: str, have: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> None:
    """Raises unless names, shapes and kinds of parameters are those of a network."""
    if have.keys() != want.keys():
        odd = ", ".join(sorted(have.keys() ^ want.keys())[:3])
        raise ValueError(f"{source}: its parameters are not those of its configuration: {odd}")
    for name, tensor in have.items():
        if tensor.shape != want[name].shape or not tensor.is_floating_point():
            raise ValueError(
                f"{source}: {name} has shape {shape_text(tensor.shape)} and type {tensor.dtype}, expected "
                f"{shape_text(want[name].shape)} of a floating-point type"
            )
