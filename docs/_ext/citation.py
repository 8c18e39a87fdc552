"""`.. citation::`, a BibTeX entry made from CITATION.cff, so that there is one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CITATION = Path(__file__).parents[2] / "CITATION.cff"


def bibtex(cited: Mapping[str, Any], key: str, version: str) -> str:
    """The entry of a citation file; fields that the file lacks are left out, but for the version."""
    date = str(cited.get("date-released", ""))
    fields = {
        "author": " and ".join(map(_author, cited["authors"])),
        # Braces keep names as they are written.
        "title": f"{{{cited['title']}}}",
        "version": cited.get("version", version),
        "year": date[:4],
        "doi": cited.get("doi", ""),
        "url": cited.get("url") or cited.get("repository-code", ""),
    }
    lines = [f"  {name:<7} = {{{value}}}" for name, value in fields.items() if value]
    return "\n".join([f"@software{{{key},", ",\n".join(lines), "}"])


def _author(author: Mapping[str, str]) -> str:
    """A person by family and given name, or what is no person in braces."""
    if "name" in author:
        return f"{{{author['name']}}}"
    return ", ".join(filter(None, (author.get("family-names"), author.get("given-names"))))


class Citation(SphinxDirective):
    """The entry as a block of code."""

    def run(self) -> Sequence[nodes.Node]:
        self.env.note_dependency(str(CITATION))
        text = bibtex(yaml.safe_load(CITATION.read_text(encoding="utf-8")), self.config.project, self.config.release)
        return [nodes.literal_block(text, text, language="bibtex")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("citation", Citation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
