"""Tables from results files.

`.. benchmarks:: NAME` of the benchmarks, `.. gradient-routes::` of the comparison of gradients, and
`.. migration:: LIBRARY` of what changes for those who come from another library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from declarations import table
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from benchmarks import gradient_routes, migration, tables

RESULTS = Path(__file__).parents[1] / "benchmarks.json"
ROUTES = RESULTS.with_name("gradient_routes.json")
MIGRATION = RESULTS.with_name("migration.json")
_COMMANDS = {RESULTS: "make bench-docs", ROUTES: "make routes-docs", MIGRATION: "python -m benchmarks.migration"}

MAKERS: dict[str, Callable[[tables.Record], list[tables.Table]]] = {
    **{
        group: partial(tables.speed, group=group)
        for group in ("kernels", "processors", "overhead", "console", "meters")
    },
    "accuracy": tables.accuracy,
    "accuracy_targets": partial(tables.targets, accuracy=True),
    "errors": tables.errors,
    "machine": tables.machine,
    "memory": tables.memory,
    "roofline": tables.roofline,
    "scaling": tables.scaling,
    "speed_targets": partial(tables.targets, accuracy=False),
}


def load(path: Path = RESULTS, schema: int = tables.SCHEMA) -> dict[str, Any]:
    """The results that one of the commands has written."""
    content: dict[str, Any] = json.loads(path.read_text())
    if content["schema"] != schema:
        command = _COMMANDS.get(path, _COMMANDS[RESULTS])
        raise ExtensionError(f"{path.name} has schema {content['schema']}, expected {schema}: {command}")
    return content


def lines(document: tables.Record, name: str) -> list[str]:
    """The tables of one name, or the remarks they refer to, as reStructuredText."""
    if name == "notes":
        return [f"{number}. {_plain(note)}" for number, note in enumerate(tables.notes(document), 1)]
    found = [line for made in MAKERS[name](document) for line in _restructured(made)]
    return found or [f"The results have nothing on {name}."]


def _restructured(made: tables.Table) -> list[str]:
    cells = [tuple(_plain(cell) for cell in line) for line in made.lines]
    return table(tuple(made.header), cells, "benchmarks")


def _plain(cell: str) -> str:
    """Text in which nothing is markup."""
    return "".join(f"\\{character}" if character in "*`|_\\[" else character for character in cell)


class Benchmarks(SphinxDirective):
    """One kind of table from the results file."""

    required_arguments = 1

    def run(self) -> Sequence[nodes.Node]:
        self.env.note_dependency(str(RESULTS))
        return self.parse_text_to_nodes("\n".join(lines(load(), self.arguments[0])))


class GradientRoutes(SphinxDirective):
    """The tables of the comparison of gradients, each under its title."""

    def run(self) -> Sequence[nodes.Node]:
        self.env.note_dependency(str(ROUTES))
        found = gradient_routes.tables(load(ROUTES, gradient_routes.SCHEMA))
        text = [line for made in found for line in (f"**{made.title}**", "", *_restructured(made), "")]
        return self.parse_text_to_nodes("\n".join(text))


class Migration(SphinxDirective):
    """What was measured of one library's processors beside those of dasp, under the versions."""

    required_arguments = 1

    def run(self) -> Sequence[nodes.Node]:
        self.env.note_dependency(str(MIGRATION))
        return migration_nodes(load(MIGRATION, migration.SCHEMA), self.arguments[0])


def migration_nodes(document: tables.Record, library: str) -> list[nodes.Node]:
    """The versions, and a table: for each pair a line with both calls and the settings, and below it the figures."""
    (made,) = migration.tables(document, library)
    version = next(peer["version"] for peer in document["peers"] if peer["name"] == library)
    beside = " and ".join(f"{name} {document['environment'][name]}" for name in ("dasp", "torch"))
    rows = []
    for theirs, ours, settings, *figures in made.lines:
        if theirs:
            pair = [nodes.literal("", theirs), nodes.Text(", dasp "), nodes.literal("", ours)]
            rows.append(_row([[*pair, nodes.Text(f": {settings}" if settings else "")]], span=len(figures)))
        rows.append(_row([[nodes.Text(figure)] for figure in figures]))
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (55, 15, 15, 15)), cols=4)
    group += nodes.thead("", _row([[nodes.Text(name)] for name in made.header[3:]]))
    group += nodes.tbody("", *rows)
    drawn = nodes.table("", group, classes=["migration"])
    return [nodes.paragraph("", f"{library} {version}, beside {beside}."), drawn]


def _row(cells: Sequence[Sequence[nodes.Node]], span: int = 1) -> nodes.row:
    more = {"morecols": span - 1} if span > 1 else {}
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell), **more) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("gradient-routes", GradientRoutes)
    app.add_directive("migration", Migration)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
