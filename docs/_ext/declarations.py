"""Documentation drawn from the declarations: pages of processors and modules, tables of controls, short signatures.

Nothing about a control is written in the pages by hand.  `.. family:: NAME` documents the public functions of a file,
`.. family::` those that have no page of their own, `.. modules::` all module forms; a docstring's lines for controls
become a table, before which stand the function's picture and sound.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import dasp
import dasp.functional as F
import dasp.modules
from dasp import PROCESSORS, Spec
from dasp._spec import control_line

_COLUMNS = ("Control", "Meaning", "Unit", "Usual range", "Scale", "Default")


def number(value: float) -> str:
    """A number as one would write it: four digits, all of those before the point."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def default_text(value: object) -> str:
    """A default as it is printed: numbers with four digits, a tuple of equal values as one of them."""
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, tuple):
        return "(" + ", ".join(default_text(item) for item in value) + ")"
    return number(value) if isinstance(value, float) else repr(value)


def control_rows(spec: Spec) -> list[tuple[str, ...]]:
    """One row for each control of a processor, in the columns of the tables."""
    rows = []
    for name, param in spec.controls.items():
        meaning = param.meaning + (" One value per band." if param.size is not None else "")
        default = default_text(spec.defaults[name]).strip("()")
        rows.append(
            (
                f"``{name}``",
                meaning,
                param.unit,
                f"{number(param.low)} to {number(param.high)}",
                "logarithmic" if param.scale == "log" else "linear",
                default,
            )
        )
    return rows


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], name: str, widths: str = "auto") -> list[str]:
    """A reStructuredText table."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", f"   :class: {name}", ""]
    for row in [header, *rows]:
        lines += [f"   {'*' if index == 0 else ' '} - {cell}".rstrip() for index, cell in enumerate(row)]
    return [*lines, ""]


def families() -> dict[str, list[str]]:
    """Public functions by the name of their file, in the order of their definitions."""
    found: dict[str, list[str]] = {}
    for name in sorted(F.__all__, key=lambda n: getattr(F, n).__code__.co_firstlineno):
        found.setdefault(getattr(F, name).__module__.split(".")[-1], []).append(name)
    return dict(sorted(found.items()))


def _file_of(family: str) -> ModuleType:
    return sys.modules[f"{F.__name__}.{family}"]


def _first_sentence(name: str) -> str:
    text = inspect.getdoc(getattr(F, name)) or ""
    return _escaped(text.split("\n\n")[0].split(": ")[0].rstrip(".")) + "."


def module_classes() -> dict[str, str]:
    """Name of a processor to name of its module form."""
    classes = {name: getattr(dasp.modules, name) for name in dasp.modules.__all__}
    return {c.spec.name: name for name, c in classes.items() if inspect.isclass(c) and hasattr(c, "spec")}


class Family(SphinxDirective):
    """The public functions of a file; without a name, those of all files that have no page, under their headings."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = [".. currentmodule:: dasp.functional", ""]
        for family, names in families().items():
            if not self.arguments and not Path(self.env.srcdir, "processors", f"{family}.rst").exists():
                title = (_file_of(family).__doc__ or family).partition("\n")[0].partition(":")[0].rstrip(".")
                lines += [title, "-" * len(title), ""]
            elif self.arguments != [family]:
                continue
            self.env.note_dependency(_file_of(family).__file__)
            for name in names:
                lines += [f".. autofunction:: {name}", ""]
        # A function, or a page, may have come since the last build.
        self.env.note_dependency(F.__file__)
        if not self.arguments:
            self.env.note_reread()
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class Overview(SphinxDirective):
    """A table of all public functions with their module forms."""

    def run(self) -> list[nodes.Node]:
        forms, rows = module_classes(), []
        for names in families().values():
            for name in names:
                spec = PROCESSORS.get(name)
                form = f":class:`~dasp.modules.{forms[name]}`" if name in forms else ""
                channels = "" if spec is None else " or ".join(map(str, spec.channels)) or "any"
                if spec is not None and spec.channels_out is not None:
                    channels += f" → {spec.channels_out}"
                automation = "yes" if spec is not None and spec.automation else ""
                rows.append((f":func:`~dasp.functional.{name}`", _first_sentence(name), form, channels, automation))
        header = ("Function", "What it does", "Module", "Channels", "Automation")
        return self.parse_text_to_nodes("\n".join(table(header, rows, "overview", widths="20 42 18 10 10")))


class Modules(SphinxDirective):
    """The module form of every processor."""

    def run(self) -> list[nodes.Node]:
        lines = [".. currentmodule:: dasp.modules", ""]
        for name in sorted(module_classes().values()):
            lines += [f".. autoclass:: {name}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


# Words in backticks that have a page.
_TARGETS = {
    **{name: f":func:`~dasp.functional.{name}`" for name in F.__all__},
    **{name: f":class:`~dasp.modules.{name}`" for name in ("Chain", "Processor")},
    **{name: f":class:`~dasp.{name}`" for name in ("Param", "Signal", "Spec")},
    "PROCESSORS": ":data:`~dasp.PROCESSORS`",
    "Spec.normalize": ":meth:`~dasp.Spec.normalize`",
    "Spec.denormalize": ":meth:`~dasp.Spec.denormalize`",
}


# Code in backticks and mathematics in dollars, which stay as they are.
_VERBATIM = re.compile(r"((?<!`)`[^`]+`(?!`)|``.+?``|\$[^$]+\$)")


def _escaped(line: str) -> str:
    """A line of a docstring, which is plain text with code and mathematics in it, as reStructuredText."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = _VERBATIM.split(line)
    for index, part in enumerate(parts):
        if index % 2 == 0:
            # A bar or a star before a word would begin a substitution or emphasis.
            parts[index] = re.sub(r"(?<!\\)(\||\*(?=[^\s*]))", r"\\\1", part)
        elif part.startswith("$"):
            parts[index] = f":math:`{part.strip('$')}`"
        else:
            parts[index] = _TARGETS.get(part.strip("`"), part)
    return "".join(parts)


def _converted(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText; `$$` around an equation makes it a block."""
    converted, equation = [], None
    for line in lines:
        if equation is None and not line.lstrip().startswith("$$"):
            converted.append(_escaped(line))
            continue
        if equation is None:
            indent = line[: len(line) - len(line.lstrip())]
            converted += [f"{indent}.. math::", ""]
            equation = 0
        equation += line.count("$$")
        converted.append(f"{indent}   {line.replace('$$', '').strip()}")
        if equation == 2:
            converted.append("")
            equation = None
    return converted


def _process_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    own = name.removeprefix("dasp.functional.")
    spec = PROCESSORS.get(own)
    text = _converted(lines)
    if what == "function" and spec is not None and spec.function is obj:
        said = {_escaped(control_line(n, p, spec.defaults[n])) for n, p in spec.controls.items()}
        text = [line for line in text if line.strip() not in said]
        if spec.controls:
            place = text.index("Returns:")
            rows = table(_COLUMNS, control_rows(spec), "controls", widths="16 36 7 14 12 15")
            text[place:place] = ["Controls:", *(f"    {row}".rstrip() for row in rows)]
    if what == "function" and own in F.__all__:
        text[text.index("Args:") : text.index("Args:")] = [f".. illustrations:: {own}", ""]
    lines[:] = text


def _process_property(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undoes what napoleon does to properties: it takes what stands before a colon in the first line for a type."""
    if what == "property":
        lines[:] = _converted((inspect.getdoc(obj) or "").splitlines())


def _process_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    short = name.removeprefix("dasp.functional.").removeprefix("dasp.modules.")
    if short not in F.__all__ and short not in module_classes().values():
        return None
    parts, keyword_only = [], False
    for argument in inspect.signature(obj).parameters.values():
        if argument.kind is argument.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parts.append("*")
        has_default = argument.default is not argument.empty
        parts.append(f"{argument.name}={default_text(argument.default)}" if has_default else argument.name)
    return f"({', '.join(parts)})", None


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("family", Family)
    app.add_directive("overview", Overview)
    app.add_directive("modules", Modules)
    # Before napoleon, which takes the sections apart.
    app.connect("autodoc-process-docstring", _process_docstring, priority=400)
    app.connect("autodoc-process-docstring", _process_property, priority=600)
    app.connect("autodoc-process-signature", _process_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
