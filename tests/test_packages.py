"""Source distribution and wheel: what is in them, and that both install and work, with and without a compiler."""

from __future__ import annotations

import configparser
import fnmatch
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dasp

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "tests" / "smoke.py"
# What a checkout has for its own upkeep.
CHECKOUT_ONLY = (".ci/*", ".git*", "benchmarks/results/*")


def tracked(*folders: str) -> list[str]:
    """The files of the commit and those added since."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return [name for name in listed if name and (ROOT / name).exists()]


def test_every_file_that_is_no_python_is_declared() -> None:
    """As data of the package, which is in both, or as a source of the kernels."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["options.package_data"]["dasp"].split()
    others = [name for name in tracked("dasp") if not name.endswith(".py")]
    assert "dasp/py.typed" in others
    for name in others:
        within = name.removeprefix("dasp/")
        assert any(fnmatch.fnmatch(within, pattern) for pattern in patterns), (
            f"{name}: add to package_data in setup.cfg"
        )


def test_optional_packages_of_the_extras_are_those_that_info_names() -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    required = settings["options"]["install_requires"]
    named = {re.split(r"[^\w-]", line)[0] for line in required.splitlines() if line and not line.startswith("#")}
    for extra in set(extras) - {"test", "lint", "docs", "site", "dev"}:
        lines = [line.split(";")[0].strip() for line in extras[extra].splitlines()]
        named |= {line for line in lines if re.fullmatch(r"[\w-]+", line) and line != "tomli"}
    assert named - {""} <= set(dasp.info())


def test_the_description_needs_no_file_beside_it() -> None:
    """A package index shows the README alone: a picture or a link that is relative leads nowhere there."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    shown = run(sys.executable, "setup.py", "-q", "--long-description", cwd=ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [picture] = re.findall(r"!\[[^]]+\]\(([^)]+)\)", readme)
    assert (ROOT / picture).exists()
    assert re.findall(r"\]\((?!https?:)", readme)
    assert not re.findall(r"\]\((?!https?:)|<!--|-->", shown)
    assert "track ─▶ strip" in shown
    for heading in re.findall(r"^#+ .*", readme, flags=re.MULTILINE):
        assert f"{heading}\n" in shown


# ---- built and installed


def run(*command: object, cwd: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXX")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source distribution, and the wheel that is built from it, as `python -m build` does; without the network."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    folder = tmp_path_factory.mktemp("packages")
    checkout = folder / "checkout"
    for name in tracked():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    hook = "import sys, setuptools.build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
    run(sys.executable, "-c", hook, "build_sdist", folder, cwd=checkout)
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [source] = (folder / "unpacked").iterdir()
    run(sys.executable, "-c", hook, "build_wheel", folder, cwd=source, DASP_REQUIRE_KERNELS="1")
    [wheel] = folder.glob("*.whl")
    return sdist, wheel


def install(folder: Path, package: Path, **environment: str) -> Path:
    """A fresh environment with the package, which finds torch and all else where this one has it; its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # An editable dasp there is not found by this: a path file in such a folder is not read.
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    Path(site, "others.pth").write_text(f"{Path(torch.origin).parents[1]}\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    run(*pip, "--no-build-isolation", "--ignore-installed", package, cwd=folder, **environment)
    return python


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler to build the kernels with"
)


@pytest.mark.slow
@needs_compiler
def test_source_distribution_and_wheel_have_their_files(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    assert re.fullmatch(rf"dasp-{re.escape(dasp.__version__)}-py3-none-(?!any)\w+\.whl", wheel.name)
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [name for name in tracked() if not any(fnmatch.fnmatch(name, pattern) for pattern in CHECKOUT_ONLY)]
    assert [name for name in wanted if name not in inside] == []
    assert [name for name in inside if name.endswith((".so", ".dylib", ".dll", ".pyc"))] == []
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in tracked("dasp") if name.endswith(".py")} <= names
    assert "dasp/py.typed" in names
    assert len([name for name in names if name.startswith("dasp/kernels/cpu/_dasp_cpu.")]) == 1
    assert [name for name in names if not name.startswith(("dasp/", "dasp-"))] == []


@pytest.mark.slow
@needs_compiler
def test_the_wheel_works_in_a_fresh_environment_without_a_compiler(built: tuple[Path, Path], tmp_path: Path) -> None:
    python = install(tmp_path / "venv", built[1], PATH="", CXX="no-such-compiler")
    assert "compiled" in run(python, SMOKE, cwd=tmp_path)
    printed = run(python.with_name("dasp"), "info", cwd=tmp_path)
    assert re.search(r"^cpu_kernels +compiled$", printed, flags=re.MULTILINE)


@pytest.mark.slow
@needs_compiler
def test_the_source_distribution_installs_without_a_compiler(built: tuple[Path, Path], tmp_path: Path) -> None:
    python = install(tmp_path / "venv", built[0], CXX="no-such-compiler")
    assert "fallback: _dasp_cpu.so was not built" in run(python, SMOKE, "--fallback", cwd=tmp_path)


@pytest.mark.slow
@needs_compiler
def test_the_source_distribution_installs_with_a_compiler(built: tuple[Path, Path], tmp_path: Path) -> None:
    # That the loops are fast is not the question here.
    python = install(tmp_path / "venv", built[0], CXXFLAGS="-O1")
    assert "compiled" in run(python, SMOKE, cwd=tmp_path)


@pytest.mark.slow
def test_kernels_that_are_required_fail_the_build(tmp_path: Path) -> None:
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "dasp", tmp_path / "dasp", ignore=shutil.ignore_patterns("_dasp_cpu.*", "__pycache__"))
    for required, fails in (("0", False), ("1", True)):
        command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path / "build")]
        environment = {**os.environ, "CXX": "no-such-compiler", "DASP_REQUIRE_KERNELS": required}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stderr
        assert "the kernel library was not built" in done.stderr
