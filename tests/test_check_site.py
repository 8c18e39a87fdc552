"""The check of the built pages."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (
    '<!doctype html><html lang="en"><head><title>A page</title></head>'
    "<body><main><h1>A page</h1>{}</main></body></html>"
)


@pytest.fixture(scope="module")
def site():
    specification = importlib.util.spec_from_file_location("check_site", DOCS / "check_site.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["check_site"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["check_site"]


def written(folder, **pages):
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(PAGE.format(text))
    return folder


def test_links_to_files_and_places_that_are_there_are_in_order(site, tmp_path):
    links = '<a href="b.html">b</a><a href="b.html#here">h</a><a href="#top">t</a><a href="https://example.org/x">x</a>'
    folder = written(tmp_path, a=links, b='<p id="here">h</p><a href="#here">h</a>')
    assert [site.broken_links(folder, page) for page in site.pages(folder)] == [[], []]


def test_links_to_what_is_not_there_are_named(site, tmp_path):
    links = '<a href="c.html">c</a><a href="b.html#there">b</a><a href="#nowhere">n</a><img src="p.png" alt="p">'
    folder = written(tmp_path, a=links, b='<p id="here">h</p>')
    found = site.broken_links(folder, folder / "a.html")
    assert [problem.partition(": ")[2] for problem in found] == ["c.html", "b.html#there", "#nowhere", "p.png"]


def test_pages_are_those_that_are_asked_for_without_the_machinery(site, tmp_path):
    written(tmp_path, a="", b="")
    (tmp_path / "_static").mkdir()
    written(tmp_path / "_static", frame="")
    assert [page.name for page in site.pages(tmp_path)] == ["a.html", "b.html"]
    assert [page.name for page in site.pages(tmp_path, "b")] == ["b.html"]


def test_a_folder_without_pages_has_an_exit_status_of_its_own(site, tmp_path, capsys):
    assert site.main([str(tmp_path)]) == 2
    assert "make docs" in capsys.readouterr().err


# What is wrong, and what the check says of it.
WRONG = {
    "wide": ('<div style="width: 3000px">wide</div>', "px wider than the window"),
    "picture": ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "picture without a text"),
    "path": ('<img alt="_images/a.svg" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "picture without a text"),
    "player": ("<audio controls></audio>", "no name"),
    "button": ("<button></button>", "button-name"),
    "link": ('<a href="wide.html"></a>', "link-name"),
    "contrast": ('<p style="color: #aaa; background: #fff">pale</p>', "color-contrast"),
    "console": ("<script>console.error('wrong')</script>", "console: wrong"),
    "script": ("<script>null.wrong</script>", "script: "),
    "missing": ('<img alt="A picture" src="missing.png">', "picture that does not show"),
    "skipped": ('<button tabindex="-1">Play</button><button>Stop</button>', "the tabulator does not reach"),
    "role": ('<div role="button" onclick="1">Play</div>', "not reached by the keyboard"),
}


def test_the_browser_finds_what_is_wrong_and_nothing_else(site, tmp_path, capsys):
    pytest.importorskip("axe_playwright_python", reason="the extra site is not installed")
    if not any(map(shutil.which, site._BROWSERS)):
        pytest.skip("there is no Chromium on the path")
    right = '<p>Right</p><audio controls aria-label="A tone"></audio><button>Play</button><a href="wide.html">wide</a>'
    folder = written(tmp_path, right=right, **{name: text for name, (text, _) in WRONG.items()})
    assert site.main([str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    for name, (_, problem) in WRONG.items():
        assert any(line.startswith(f"{name}.html") and problem in line for line in lines), (name, lines)
    assert not [line for line in lines if line.startswith("right.html")]
