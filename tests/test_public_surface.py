"""No public name or signature changes silently: `python -m tests.test_public_surface` writes the list anew."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

LIST = Path(__file__).with_name("public_surface.txt")
MODULES = (
    "dasp",
    "dasp.functional",
    "dasp.modules",
    "dasp.gradients",
    "dasp.mixing",
    "dasp.interchange",
    "dasp.compat.dasp_pytorch",
    "dasp.compat.dasp_pytorch.functional",
    "dasp.compat.dasp_pytorch.modules",
    "dasp.compat.dasp_pytorch.signal",
)


def describe(thing):
    if inspect.isclass(thing) or inspect.isroutine(thing):
        try:
            return str(inspect.signature(thing)).replace("collections.abc.", "")
        except ValueError:
            return ""
    return f": {type(thing).__name__}"


def surface():
    lines = []
    for name in MODULES:
        module = importlib.import_module(name)
        lines += [f"{name}.{public}{describe(getattr(module, public))}" for public in sorted(module.__all__)]
    return "\n".join(lines) + "\n"


def test_public_names_and_signatures_are_those_of_the_list():
    advice = (
        "the public surface changed: if that is meant, python -m tests.test_public_surface, and note it in CHANGELOG.md"
    )
    assert surface() == LIST.read_text(), advice


def test_every_public_name_is_documented():
    for name in MODULES:
        module = importlib.import_module(name)
        for public in module.__all__:
            thing = getattr(module, public)
            if callable(thing):
                assert inspect.getdoc(thing), f"{name}.{public} has no docstring"


if __name__ == "__main__":
    LIST.write_text(surface())
