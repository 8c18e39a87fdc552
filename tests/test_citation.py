"""How to cite: one source, and every source that the page names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import dasp

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def citation(monkeypatch):
    pytest.importorskip("sphinx")
    pytest.importorskip("yaml")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    import citation

    yield citation
    sys.modules.pop("citation", None)


def test_the_entry_is_that_of_the_citation_file(citation):
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    entry = citation.bibtex(cited, "dasp", dasp.__version__)
    assert entry.startswith("@software{dasp,\n  author  = {{dasp contributors}},\n")
    assert f"title   = {{{{{cited['title']}}}}}" in entry
    assert f"version = {{{dasp.__version__}}}" in entry
    assert entry.count("{") == entry.count("}")


def test_people_date_and_address_have_their_fields(citation):
    people = [{"family-names": "Doe", "given-names": "Jo"}, {"family-names": "Roe"}]
    cited = {"authors": people, "title": "T", "version": "2", "date-released": "2030-01-02", "doi": "10.1/x"}
    entry = citation.bibtex({**cited, "repository-code": "https://example.org"}, "t", "1")
    for line in ("author  = {Doe, Jo and Roe}", "version = {2}", "year    = {2030}", "doi     = {10.1/x}"):
        assert line in entry
    assert "url     = {https://example.org}" in entry


def test_every_source_of_the_page_is_among_the_references():
    references = (DOCS / "references.rst").read_text()
    rows = re.findall(r"^     - (.*)$", (DOCS / "citing.rst").read_text(), flags=re.MULTILINE)
    sources = [source for row in rows[1:] for source in row.split("; ")]
    assert len(sources) > 10
    assert not [source for source in sources if f"**{source}." not in references]
