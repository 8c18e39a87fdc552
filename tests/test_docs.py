"""The documentation: every example in it runs, and the page on new processors adds one."""

from __future__ import annotations

import doctest
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import dasp
import dasp.functional
import dasp.gradients
import dasp.mixing
import dasp.modules
from dasp import Param
from dasp._spec import PROCESSORS, Control, Signal, processor

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.rst"), *DOCS.glob("processors/*.rst")])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CODE_BLOCK = re.compile(
    r"^\.\. code-block:: .*\n(?:   :caption: (?P<caption>.*)\n)?(?P<text>(?:   .*\n|\n)*)", re.MULTILINE
)
sys.path.append(str(DOCS))
from figures import media, processors  # noqa: E402  # they are no part of the package

NAMES = {"F": dasp.functional, "dasp": dasp, "math": math, "np": np, "torch": torch}


def run_examples(text: str, name: str) -> list[str]:
    """Runs the examples of a page in one namespace; returns what failed."""
    torch.manual_seed(0)
    # Blocks of code stand for files; their examples run there.
    text = CODE_BLOCK.sub(lambda block: "\n" * block.group().count("\n"), text)
    failures: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, dict(NAMES), name, name, 0)
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=failures.append)
    return failures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_on_pages_give_what_they_say(page):
    failures = run_examples(page.read_text(), page.name)
    assert not failures, "".join(failures)


def test_examples_of_the_readme_run():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md")
    blocks = re.findall(r"^```python\n(.*?)^```", readme.read_text(), flags=re.MULTILINE | re.DOTALL)
    names = dict(NAMES)
    for block in blocks:
        if ">>>" in block:
            failures = run_examples(block, readme.name)
            assert not failures, "".join(failures)
        else:
            exec(compile(block, readme.name, "exec"), names)


def follow(page: str, root: Path) -> None:
    """Does what the page on new processors says: writes new files, and adds lines to those that exist."""
    for block in CODE_BLOCK.finditer(page):
        if block["caption"] is None:
            continue
        path, text = root / block["caption"], textwrap.dedent(block["text"]).strip("\n") + "\n"
        if not path.exists():
            path.write_text(text)
            continue
        content = path.read_text()
        for line in filter(None, text.splitlines()):
            if line.startswith("from "):
                content = content.replace("\n__all__ = [", f"{line}\n\n__all__ = [", 1)
            elif line.startswith("class "):
                content = content.replace("# fmt: on", f"{line}\n# fmt: on", 1)
            else:
                content = content.replace("__all__ = [", f"__all__ = [\n    {line.strip()}", 1)
        path.write_text(content)


def test_a_processor_is_added_by_following_the_page(tmp_path):
    left_behind = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "_build", "*.egg-info")
    shutil.copytree(ROOT, tmp_path, ignore=left_behind, dirs_exist_ok=True)
    follow((ROOT / "docs" / "add_a_processor.rst").read_text(), tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "tube", "tests", "dasp/functional"]
    command += ["--ignore", "tests/mixing", "--ignore", "tests/kernels"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) > 30


def test_pages_of_families_are_those_of_files():
    families = {getattr(dasp.functional, name).__module__.split(".")[-1] for name in dasp.functional.__all__}
    for page in DOCS.glob("processors/*.rst"):
        assert page.stem in families
        assert f".. family:: {page.stem}\n" in page.read_text()
        assert f"   processors/{page.stem}\n" in (DOCS / "functional.rst").read_text()


@pytest.mark.parametrize("name", [name for name in dasp.functional.__all__ if processors.picture_of(name)])
def test_a_picture_is_drawn_and_has_words_for_each_of_its_panels(name, tmp_path):
    shown = processors.picture_of(name)
    paths = media.draw(shown, tmp_path, name)
    assert len(paths) == len(shown.alt) > 0
    for path, alt in zip(paths, shown.alt, strict=True):
        assert path.read_text().startswith("<?xml")
        assert alt.endswith(".")
        assert len(alt.split()) > 5
    assert shown.caption.strip().endswith(".")


@pytest.mark.parametrize("name", [name for name in dasp.functional.__all__ if processors.sound_of(name)])
def test_a_player_plays_what_its_code_makes(name):
    sound = processors.sound_of(name)
    assert f"F.{name}(" in sound.code
    made, played = sound.make(), sound.played()
    for x, y in zip(made, played, strict=True):
        assert 3 <= y.shape[-1] / 44100 <= 6
        assert y.abs().max() < 1
        # Away from the ends, which are faded, it is played as it was made, but for one gain.
        x, y = (z[..., 441:-441].double().flatten() for z in (x, y))
        assert (x @ y) / (x.norm() * y.norm()) > 1 - 1e-6
    loudness = [float(dasp.functional.integrated_loudness(x, 44100)) for x in played]
    if sound.as_loud:
        assert abs(loudness[0] - loudness[1]) < 0.1
    else:
        # One gain for both.
        ratios = [float(y.abs().max() / x.abs().max()) for x, y in zip(made, played, strict=True)]
        assert ratios[0] == pytest.approx(ratios[1], rel=0.05)
    assert -40 < min(loudness) <= max(loudness) < -15
    before, after = (x.mean(0) for x in played)
    wide = played[1].shape[0] == 2 and (played[1][0] - played[1][1]).abs().max() > 0.01
    assert (before - after).abs().max() > 0.01 or wide


def test_every_processor_is_seen_and_heard_and_nothing_else_is_heard_that_does_not_process():
    for name in PROCESSORS:
        assert processors.picture_of(name) is not None
        assert processors.sound_of(name) is not None
    others = [name for name in dasp.functional.__all__ if name not in PROCESSORS]
    assert [name for name in others if processors.sound_of(name)] == ["sosfilt"]


def smoothed(
    x: Tensor,
    sample_rate: float,
    amount: Annotated[Control, Param("", 0, 1, meaning="Share of the last sample.")] = 0.5,
) -> Tensor:
    """A linear processor that the pages do not know."""
    return x + amount * (x.roll(1, -1) - x)


def squashed(
    x: Tensor,
    sample_rate: float,
    other: Annotated[Tensor, Signal("Audio as x.")],
    drive_db: Annotated[Control, Param("dB", 0, 40, meaning="Drive.")] = 6.0,
    q: Annotated[Control, Param("", 0.1, 10, "log", meaning="Nothing.")] = 1.0,
) -> Tensor:
    """One that is not linear, in stereo, and needs further audio."""
    assert x.shape == other.shape
    assert x.shape[-2] == 2
    return torch.tanh(x * 10 ** (drive_db / 20)) * q


@pytest.mark.parametrize(
    ("function", "flags", "kind", "call"),
    [
        (smoothed, {"linear": True}, "Magnitude", "F.smoothed(x, 44100, amount=0.75)"),
        (squashed, {"channels": (2,)}, "sine", "F.squashed(x, 44100, other=x, drive_db=30.0)"),
    ],
    ids=["linear", "not linear"],
)
def test_a_processor_without_its_own_has_a_default_picture_and_player(
    function, flags, kind, call, monkeypatch, tmp_path
):
    name = function.__name__
    monkeypatch.setattr(dasp.functional, name, function, raising=False)
    monkeypatch.setitem(PROCESSORS, name, None)
    processor(**flags)(function)
    shown, sound = processors.picture_of(name), processors.sound_of(name)
    assert kind in shown.alt[0]
    assert len(media.draw(shown, tmp_path, name)) == len(PROCESSORS[name].controls)
    assert sound.code.endswith(f"y = {call}")
    before, after = sound.played()
    assert before.shape == after.shape
    assert (before - after).abs().max() > 1e-3


class _Page(HTMLParser):
    """The pictures, players and blocks of code of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.players, self.code, self._depth = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag == "audio":
            self.players.append(dict(attrs))
        elif tag == "pre":
            self.code.append("")
            self._depth = 1

    def handle_endtag(self, tag):
        if tag == "pre":
            self._depth = 0

    def handle_data(self, data):
        if self._depth:
            self.code[-1] += data


# Napoleon of Sphinx 9 itself uses an interface that Sphinx 9 calls deprecated.
@pytest.mark.filterwarnings("ignore:The mapping interface for autodoc")
def test_a_page_has_pictures_players_and_their_code(tmp_path):
    """The code on the page is what `Sound.make` runs."""
    sphinx = pytest.importorskip("sphinx.application")
    source = tmp_path / "docs"
    (source / "processors").mkdir(parents=True)
    (source / "conf.py").write_text(
        f"import sys\nsys.path[:0] = [{str(DOCS / '_ext')!r}, {str(DOCS)!r}]\ndefault_role = 'literal'\n"
        "extensions = ['sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'declarations', 'illustrations']\n"
        "napoleon_custom_sections = ['Controls', 'Domain']\n"
    )
    (source / "index.rst").write_text("Pages\n=====\n\n.. toctree::\n\n   processors/distortion\n")
    (source / "processors" / "distortion.rst").write_text("Distortion\n==========\n\n.. family:: distortion\n")
    app = sphinx.Sphinx(source, source, tmp_path / "html", tmp_path / "trees", "html", status=None, warning=None)
    app.build()
    folder = tmp_path / "html" / "processors"
    page = _Page((folder / "distortion.html").read_text())
    assert [image["alt"] for image in page.images] == list(processors.picture_of("distortion").alt)
    assert all((folder / image["src"]).read_text().startswith("<?xml") for image in page.images)
    sound = processors.sound_of("distortion")
    assert sound.code in [code.strip("\n") for code in page.code]
    assert [player["preload"] for player in page.players] == ["none", "none"]
    for player, when, wanted in zip(page.players, ("Before", "After"), sound.played(), strict=True):
        assert player["aria-label"] == f"distortion, {when}: {sound.text}"
        x, rate = soundfile.read(BytesIO((folder / player["src"]).read_bytes()), dtype="float32")
        assert rate == 44100
        # What MP3 leaves out is not heard: the loudness stays within half a dB.
        loudness = [dasp.functional.integrated_loudness(y, 44100) for y in (torch.from_numpy(x)[None], wanted)]
        assert abs(loudness[0] - loudness[1]) < 0.5
