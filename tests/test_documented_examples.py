"""Everything public has an example that runs: in its docstring, or on a page of the documentation."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import dasp
import dasp.compat.dasp_pytorch
import dasp.functional
import dasp.gradients
import dasp.interchange
import dasp.io
import dasp.mixing
import dasp.modules
from tests.test_docs import CODE_BLOCK

DOCS = Path(__file__).parents[1] / "docs"
PUBLIC = (
    dasp,
    dasp.compat.dasp_pytorch,
    dasp.compat.dasp_pytorch.signal,
    dasp.functional,
    dasp.gradients,
    dasp.interchange,
    dasp.io,
    dasp.mixing,
    dasp.modules,
)
# Their examples cannot run here: they need programs of others, or minutes.
NOT_RUN = {"CommandEffect", "PedalboardEffect", "PluginEffect", "lv2_effect", "train"}
PARSER = doctest.DocTestParser()


def run_on_pages() -> set[str]:
    """What examples on pages take from modules, or name in what they give: "io.load", "Format"."""
    pages = [path.read_text() for path in DOCS.rglob("*.rst") if "_build" not in path.parts]
    examples = [example for page in pages for example in PARSER.get_examples(CODE_BLOCK.sub("", page))]
    taken = {
        name
        for example in examples
        for name in re.findall(r"(?=\b(\w+\.\w+))", example.source + (example.exc_msg or ""))
    }
    return taken | {name for example in examples for name in re.findall(r"^\w+(?=\()", example.want)}


def has_example(item: object) -> bool:
    """Whether a docstring has an example that is not skipped."""
    examples = PARSER.get_examples(inspect.getdoc(item) or "")
    return not all(example.options.get(doctest.SKIP) for example in examples)


def names(module):
    found = {name: getattr(module, name) for name in module.__all__}
    return {name: item for name, item in found.items() if inspect.isroutine(item) or inspect.isclass(item)}


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_everything_public_has_an_example_that_runs(module):
    on_pages = run_on_pages()
    # The module forms of processors are made alike, and share the example of their base.
    base = dasp.modules.Processor
    lacking = [
        name
        for name, item in names(module).items()
        if not has_example(item)
        and not {name, f"{module.__name__.rpartition('.')[2]}.{name}"} & (on_pages | NOT_RUN)
        and not (module is dasp.modules and inspect.isclass(item) and issubclass(item, base) and item is not base)
    ]
    assert not lacking, f"{module.__name__}: add an example to the docstring of {', '.join(lacking)}"
