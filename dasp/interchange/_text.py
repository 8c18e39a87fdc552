"""Names, numbers and files as other programs read them; names may hold anything."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

from dasp.io import OutputExistsError, atomic, made_folder

_MAX_NAME = 200
_MAX_FILE_NAME = 60
_HIGHEST_DB = 400.0
# Names that Windows takes for devices, whatever their suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def one_line(name: str) -> str:
    """A name in one line of at most 200 printable characters."""
    printable = "".join(c if c.isprintable() else " " for c in name)
    return " ".join(printable.split())[:_MAX_NAME].strip() or "unnamed"


def file_name(name: str) -> str:
    """A name as a part of a file name on any system: letters, digits, space, hyphen and underscore."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in " -_") else "_" for c in one_line(name))
    kept = kept[:_MAX_FILE_NAME].strip(" ")
    return f"_{kept}" if _DEVICES.fullmatch(kept) else kept or "unnamed"


def plain(number: float) -> str:
    """A number without an exponent, which reads back as the same."""
    text = format(Decimal(repr(float(number))), "f")
    return text.removesuffix(".0") if text != "-0.0" else "0"


def factor(level_db: float) -> float:
    """dB to a factor.

    Raises:
        ValueError: If the level is beyond 400 dB, which no other program can be expected to take.
    """
    if not level_db <= _HIGHEST_DB:
        raise ValueError(f"a level is {level_db:g} dB, expected at most {_HIGHEST_DB:g} dB to be exported")
    return math.pow(10, level_db / 20)


def relative(path: str | os.PathLike[str], folder: Path) -> str:
    """A path as seen from a folder, with slashes; absolute where there is no such way, as between drives.

    Raises:
        ValueError: If it has characters that no project file can hold.
    """
    absolute, real = os.path.abspath(path), os.path.realpath(folder)
    try:
        text = os.path.relpath(absolute, real)
        # The way up from a folder that a symbolic link leads to may end elsewhere.
        if os.path.exists(real) and not os.path.samefile(os.path.join(real, text), absolute):
            text = absolute
    except (ValueError, OSError):
        text = absolute
    # Controls, halves of characters that bytes of no encoding become, and what ends a line or a paragraph.
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\ufffe\uffff" for c in text):
        raise ValueError(f"{text!r}: a project cannot name a file with such characters, rename it")
    return text.replace(os.sep, "/")


def write_all(outputs: Mapping[Path, Callable[[Path], object]], force: bool) -> list[Path]:
    """Writes files, all of them or none: each by a function of the temporary path that is then moved to its place.

    Raises:
        OutputExistsError: If one exists and force is not set; nothing is written then.
    """
    for path in outputs:
        if path.exists() and not (force and path.is_file()):
            what = "exists already, use force to replace it" if path.is_file() else "exists and is not a regular file"
            raise OutputExistsError(f"{path}: {what}")
    with ExitStack() as stack:
        for path, write in outputs.items():
            stack.enter_context(made_folder(path.parent))
            write(stack.enter_context(atomic(path, force)))
    return list(outputs)
