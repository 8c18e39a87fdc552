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
from pathlib import Path

import numpy as np
import pytest
import torch

import dasp
import dasp.functional
import dasp.gradients
import dasp.mixing
import dasp.modules

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.rst"))
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CODE_BLOCK = re.compile(
    r"^\.\. code-block:: .*\n(?:   :caption: (?P<caption>.*)\n)?(?P<text>(?:   .*\n|\n)*)", re.MULTILINE
)
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
