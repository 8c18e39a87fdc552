"""The page that the documentation makes from the checked-in results."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path

import pytest

from benchmarks import tables

DOCS = Path(tables.__file__).parents[1] / "docs"
RESULTS = DOCS / "benchmarks.json"
DOCUMENT = json.loads(RESULTS.read_text())
DIRECTIVES = re.findall(r"^\.\. benchmarks:: (\w+)$", (DOCS / "benchmarks.rst").read_text(), flags=re.MULTILINE)


@pytest.fixture
def extension(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    import benchmark_tables

    yield benchmark_tables
    for name in ("benchmark_tables", "declarations"):
        sys.modules.pop(name, None)


def test_the_checked_in_results_are_small_current_and_of_a_whole_run():
    assert RESULTS.stat().st_size < 100_000
    assert DOCUMENT["schema"] == tables.SCHEMA
    assert not DOCUMENT["run"]["quick"]
    assert DOCUMENT["run"]["filter"] == ""


def test_the_checked_in_results_name_no_host_and_no_path():
    text = RESULTS.read_text()
    assert not re.search(r"[\"\s(]/\w+/|[A-Z]:\\\\", text)
    assert f'"{socket.gethostname()}"' not in text


def test_every_table_has_a_place_on_the_page(extension):
    assert sorted(DIRECTIVES) == sorted([*extension.MAKERS, "notes"])


def test_every_directive_has_something_to_show(extension):
    for name in DIRECTIVES:
        lines = extension.lines(DOCUMENT, name)
        assert len(lines) > 2, name
        assert all(isinstance(line, str) for line in lines)


def test_the_page_shows_what_the_results_say(extension):
    row = next(row for row in DOCUMENT["rows"] if row["case"] == "parametric_eq" and row["library"] == "dasp")
    text = "\n".join(extension.lines(DOCUMENT, "processors"))
    assert "parametric\\_eq 8x2x262144" in text
    assert f"- {row['forward_ns_per_sample']['median']:.3g}" in text
    verdicts = "\n".join(extension.lines(DOCUMENT, "targets"))
    assert verdicts.count("- PASS") == sum(target["status"] == "PASS" for target in DOCUMENT["targets"])


def test_results_of_another_schema_are_refused(extension, tmp_path):
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps({**DOCUMENT, "schema": 1}))
    with pytest.raises(Exception, match="make bench-docs"):
        extension.load(path)
