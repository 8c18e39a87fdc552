"""The layers of the package and the form of its processors."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dasp
import dasp.functional
import dasp.modules

PACKAGE = Path(dasp.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
EXTERNAL = {"torch", "numpy", "scipy"}
BASE = {"_spec", "_checks", "kernels", "_version"}
OF_MIXING = {"jinja2", "lightning", "tensorboard", "tomli"}
# What each layer may import of dasp, and from outside the standard library.
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "_version": (set(), set()),
    "_spec": (BASE, EXTERNAL),
    "_checks": (BASE, EXTERNAL),
    "kernels": (BASE, EXTERNAL),
    "functional": (BASE | {"functional"}, EXTERNAL),
    "modules": ({"_spec", "_checks", "functional", "modules"}, EXTERNAL),
    "gradients": ({"_spec", "_checks", "gradients"}, EXTERNAL | {"safetensors", "soundfile"}),
    "mixing": (BASE | {"functional", "modules", "gradients", "mixing", "io"}, EXTERNAL | OF_MIXING),
    "compat": ({"_spec", "_checks", "functional", "modules", "gradients", "compat"}, EXTERNAL),
    "interchange": (BASE | {"functional", "modules", "mixing", "interchange", "io"}, EXTERNAL),
    "io": ({"_checks"}, EXTERNAL | {"soundfile"}),
    "cli": (BASE | {"", "functional", "modules", "gradients", "mixing", "interchange", "io"}, EXTERNAL | {"rich"}),
    "__main__": ({"cli"}, set()),
    "__init__": (BASE, EXTERNAL),
}
# What is imported when a kernel is wanted, and not before.
DEVICE_CODE = PACKAGE / "kernels" / "cuda" / "device"
NAMES_OF_DEVICES = {"cuda", "cpu", "mps", "xpu"}


def layer_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree):
    """Every module that a file names in an import, `from dasp import io` as dasp.io."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "dasp":
                yield from (f"dasp.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_downward_only(path):
    own, external = LAYERS[layer_of(path)]
    if path.parent == DEVICE_CODE:
        external = external | {"triton"}
    for module in imports(ast.parse(path.read_text())):
        top, _, rest = module.partition(".")
        if top == "dasp":
            layer = rest.split(".")[0]
            assert layer in own, f"{path.name} imports {module}; its layer may import {sorted(own)}"
        elif top not in sys.stdlib_module_names:
            assert top in external, f"{path.name} imports {module}; its layer may import {sorted(external)}"


OUTSIDE_KERNELS = [path for path in FILES if layer_of(path) != "kernels"]


@pytest.mark.parametrize("path", OUTSIDE_KERNELS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_kernels_know_devices(path):
    tree = ast.parse(path.read_text())
    named = {
        module for module in imports(tree) if module.split(".")[0] in ("ctypes", "triton") or "torch.library" in module
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("library", "is_cuda"):
            named.add(ast.unparse(node))
        if isinstance(node, ast.keyword) and node.arg == "device" and isinstance(node.value, ast.Constant):
            named.add(f"device={node.value.value!r}")
        if isinstance(node, ast.Compare):
            constants = {c.value for c in [node.left, *node.comparators] if isinstance(c, ast.Constant)}
            named |= {str(c) for c in constants & NAMES_OF_DEVICES}
    assert not named


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_does_not_assert_and_prints_only_from_the_command_line(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise an exception instead"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert layer_of(path) == "cli", f"line {node.lineno} prints"


def test_every_processor_has_its_module():
    written = (PACKAGE / "modules" / "__init__.py").read_text()
    functions = {cls.spec.name for cls in dasp.modules.Processor.__subclasses__()}
    missing = [name for name in dasp.PROCESSORS if name not in functions]
    lines = [f"class {camel(name)}(Processor, function=F.{name}): ..." for name in missing]
    assert not missing, "add to dasp/modules/__init__.py, and the names to its __all__:\n" + "\n".join(lines)
    for name in dasp.PROCESSORS:
        assert f"(Processor, function=F.{name}): ..." in written


def camel(name):
    return "".join(word.capitalize() for word in name.split("_"))


def test_every_processor_is_public():
    missing = [name for name in dasp.PROCESSORS if name not in dasp.functional.__all__]
    assert not missing, f"add to dasp/functional/__init__.py: {missing}"
    for name, spec in dasp.PROCESSORS.items():
        assert getattr(dasp.functional, name) is spec.function


SECTIONS = ["Args", "Returns", "Raises", "Domain", "Example"]


@pytest.mark.parametrize("name", dasp.PROCESSORS)
def test_docstring_has_its_sections_in_order_and_a_line_for_each_argument(name):
    function = dasp.PROCESSORS[name].function
    text = inspect.getdoc(function)
    assert re.findall(r"^(\w+):$", text, flags=re.MULTILINE) == SECTIONS
    arguments = text[text.index("Args:") : text.index("Returns:")]
    described = re.findall(r"^    (\w+):", arguments, flags=re.MULTILINE)
    assert set(described) == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", dasp.PROCESSORS)
def test_every_control_says_what_it_means(name):
    for control, param in dasp.PROCESSORS[name].controls.items():
        assert param.meaning.endswith("."), f"{name}: {control} has no meaning"
        assert param.domain[0] <= param.low < param.high <= param.domain[1]
        units = {"_db": "dB", "_hz": "Hz", "_ms": "ms", "_s": "s"}
        for suffix, unit in units.items():
            assert control.endswith(suffix) == (param.unit == unit), f"{name}: unit of {control}"


def run(code, *options):
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120)


def test_import_is_silent_and_takes_no_optional_package():
    code = (
        "import sys, dasp, dasp.functional, dasp.gradients, dasp.modules\n"
        "optional = 'rich', 'matplotlib', 'soundfile', 'torchaudio', 'triton', 'pedalboard', 'safetensors', \\\n"
        "    'lightning', 'tensorboard', 'tomli'\n"
        "print([name for name in optional if name in sys.modules])"
    )
    done = run(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_import_loads_no_part_of_scipy():
    """`import scipy` alone takes milliseconds, and loads a part when it is first named; scipy.signal takes a second."""
    code = (
        "import sys, dasp.cli, dasp.functional, dasp.gradients, dasp.mixing, dasp.modules\n"
        "print([name for name in sys.modules if name.startswith('scipy.') and name.count('.') == 1\n"
        "       and name.split('.')[1] in ('signal', 'stats', 'optimize', 'linalg', 'fft', 'ndimage')])"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_import_opens_no_connection():
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise RuntimeError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import dasp.cli\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
