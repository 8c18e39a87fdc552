"""The pages that the documentation makes from the checked-in results."""

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
PAGES = "".join((DOCS / f"{name}.rst").read_text() for name in ("speed", "accuracy"))
DIRECTIVES = re.findall(r"^\.\. benchmarks:: (\w+)$", PAGES, flags=re.MULTILINE)


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


def test_every_table_has_a_place_on_a_page(extension):
    assert sorted(DIRECTIVES) == sorted([*extension.MAKERS, "notes"])


def test_every_directive_has_something_to_show(extension):
    for name in DIRECTIVES:
        lines = extension.lines(DOCUMENT, name)
        assert len(lines) > 2, name
        assert all(isinstance(line, str) for line in lines)


def test_the_pages_show_what_the_results_say(extension):
    row = next(row for row in DOCUMENT["rows"] if row["case"] == "parametric_eq" and row["library"] == "dasp")
    text = "\n".join(extension.lines(DOCUMENT, "processors"))
    assert "parametric\\_eq 8x2x262144" in text
    assert f"- {row['forward_ns_per_sample']['median']:.3g}" in text
    verdicts = "\n".join(
        line for name in ("speed", "accuracy") for line in extension.lines(DOCUMENT, f"{name}_targets")
    )
    assert verdicts.count("- PASS") == sum(target["status"] == "PASS" for target in DOCUMENT["targets"])


def test_a_targets_page_is_that_of_its_unit(extension):
    assert all("dB" in line[1] for table in extension.MAKERS["accuracy_targets"](DOCUMENT) for line in table.lines)
    assert not any("dB" in line[1] for table in extension.MAKERS["speed_targets"](DOCUMENT) for line in table.lines)


def test_errors_stand_in_the_columns_of_their_libraries(extension):
    (table,) = extension.MAKERS["errors"](DOCUMENT)
    (line,) = (line for line in table.lines if line[0] == "peaking")
    found = {
        row["library"]: row["error_db"] for row in DOCUMENT["rows"] if row["case"] == "peaking" and "error_db" in row
    }
    shown = {name: float(cell.split()[0]) for name, cell in zip(table.header[1:], line[1:], strict=True) if cell}
    assert shown == {name: pytest.approx(error, abs=0.5) for name, error in found.items()}


def test_the_readme_quotes_these_results():
    readme = DOCS.with_name("README.md")
    if not readme.exists():
        pytest.skip("there is no README.md")

    def figure(case, library, field="forward_backward_ns_per_sample"):
        row = next(row for row in DOCUMENT["rows"] if (row["case"], row["library"]) == (case, library))
        return row[field]["median"] if isinstance(row[field], dict) else row[field]

    text = readme.read_text()
    ours, theirs = (figure("parametric_eq", library) for library in ("dasp", "dasp-pytorch"))
    assert f"{ours:.1f} ns per sample | dasp-pytorch {theirs:.0f} ({theirs / ours:.0f} times that)" in text
    ours, theirs = (figure("compressor", library) for library in ("dasp", "dasp-pytorch"))
    assert (
        f"{ours:.1f} ns per sample | dasp-pytorch, which ignores the release: {theirs:.0f} ({theirs / ours:.0f} times)"
        in text
    )
    ours, theirs = (figure("lowpass_automation", library) for library in ("dasp", "torchlpc"))
    assert f"{ours:.0f} ns per sample | torchlpc, in direct form: {theirs:.0f} ({theirs / ours:.0f} times)" in text
    ours, theirs = (262144e-9 * figure("noise_shaped_reverb", library) for library in ("dasp", "dasp-pytorch"))
    assert f"{ours:.3f} s | dasp-pytorch {theirs:.0f} s ({theirs / ours:.0f} times)" in text
    size = 4 * 8 * 2 * 262144
    ours, theirs = (
        figure("parametric_eq", library, "memory_forward_backward_bytes") / size for library in ("dasp", "dasp-pytorch")
    )
    assert f"| {ours:.1f} | dasp-pytorch {theirs:.0f} |" in text
    worst = max(figure(f"{case}_accuracy", "dasp", "error_db") for case in ("sosfilt", "parametric_eq"))
    median = figure("sosfilt_accuracy", "dasp-pytorch", "median_error_db")
    assert f"{worst:.0f} dB | dasp-pytorch: not finite in that range, median {median:.0f} dB" in text
    status = [target["status"].partition(":")[0] for target in DOCUMENT["targets"]]
    assert status.count("not measured") == 2
    said, misses = " ".join(text.split()), status.count("MISS")
    assert f"of {len(status)} targets that the project sets itself this run misses {misses} and cannot" in said


def test_every_library_of_the_results_is_drawn(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(DOCS))
    from figures.benchmarks import STYLES

    assert {row["library"] for row in DOCUMENT["rows"]} <= set(STYLES)


def test_results_of_another_schema_are_refused(extension, tmp_path):
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps({**DOCUMENT, "schema": 1}))
    with pytest.raises(Exception, match="make bench-docs"):
        extension.load(path)
