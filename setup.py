"""Builds the C++ kernel library, and the description for a package index.  All else is declared in setup.cfg.

The library has a plain C interface and is opened by ctypes: it knows neither Python nor torch, so that one file serves
every version of both.  It is optional: where it cannot be built, dasp is installed without it and falls back; with
DASP_REQUIRE_KERNELS=1, as for wheels that are published, the build fails.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError
from setuptools.modified import newer_group

FOLDER = Path("dasp", "kernels", "cpu")
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

# No -march=native: instruction sets are chosen at run time.  No -ffast-math: it switches the whole process to
# flush-to-zero when the library is opened.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-D_GLIBCXX_ASSERTIONS",
    "-Wall",
    "-Wextra",
    "-pthread",
]

LINK_FLAGS = {
    "linux": ["-shared", "-pthread", "-Wl,--no-undefined", "-Wl,-z,relro,-z,now", "-ldl"],
    "darwin": ["-dynamiclib", "-pthread"],
}


class BuildKernels(build_ext):
    """Compiles with the machine's C++ compiler and dasp's flags only, into a file without a Python tag."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.include_dirs, self.library_dirs = [], []  # Python's own

    def run(self) -> None:
        self._kept_in_place = self.inplace or self.editable_mode
        super().run()

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "unix":
            self._choose_compiler()
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        in_place = Path(self.get_ext_filename(ext.name))
        if self._kept_in_place and not self.force and not newer_group([*ext.sources, *ext.depends], in_place, "newer"):
            # setuptools builds in place by way of another folder, which is a new one for each editable install.
            self.mkpath(str(Path(self.build_lib, in_place).parent))
            self.copy_file(str(in_place), str(Path(self.build_lib, in_place)))
            return
        try:
            if sys.platform == "win32":
                self._build_on_windows(ext)
                return
            if self.compiler.compiler_type == "unix" and not self.compiler.compiler_so[0]:
                raise CompileError("no C++ compiler found; set CXX to the command of one")
            super().build_extension(ext)
        except (BaseError, CCompilerError):
            if self._kept_in_place:
                in_place.unlink(missing_ok=True)  # it was built from other sources
            print("dasp: the kernel library was not built, the slower fallback will be used", file=sys.stderr)
            raise  # setuptools names the reason, and goes on because the extension is optional

    def _build_on_windows(self, ext: Extension) -> None:
        """Compiles and links in one command.

        The compiler is a Clang with MinGW's libraries: MSVC has no vector types, and GCC does not align those on a
        stack of Windows.
        """
        command = shlex.split(os.environ.get("CXX", ""))
        if not command and importlib.util.find_spec("ziglang"):
            command = [sys.executable, "-m", "ziglang", "c++", "-target", "x86_64-windows-gnu"]
        if not command:
            raise CompileError("no C++ compiler found; install ziglang, or set CXX to a Clang for MinGW")
        path = Path(self.get_ext_fullpath(ext.name))
        self.mkpath(str(path.parent))
        flags = [flag for flag in FLAGS if flag not in ("-fPIC", "-pthread")]
        flags += shlex.split(os.environ.get("CXXFLAGS", ""))
        self.spawn([*command, *flags, "-shared", "-o", str(path), *ext.sources])

    def _choose_compiler(self) -> None:
        """Replaces the command and flags with which Python itself was compiled."""
        names = ("c++", "g++", "clang++")
        command = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, names), "")]
        # ARCHFLAGS names the processors of a macOS wheel.
        command += shlex.split(os.environ.get("ARCHFLAGS", ""))
        compile_command = [*command, *FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))]
        link_flags = LINK_FLAGS.get(sys.platform, ["-shared", "-pthread"])
        link_command = [*command, *link_flags, *shlex.split(os.environ.get("LDFLAGS", ""))]
        commands = dict.fromkeys(("compiler", "compiler_so", "compiler_cxx", "compiler_so_cxx"), compile_command)
        commands |= dict.fromkeys(("linker_so", "linker_so_cxx"), link_command)
        # The keys differ between versions of setuptools.
        self.compiler.set_executables(**{k: v for k, v in commands.items() if k in self.compiler.executables})

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + SUFFIX

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []  # no PyInit function

    def get_libraries(self, ext: Extension) -> list[str]:
        return []  # no libpython


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def description() -> str:
    """The README where no file lies beside it: its picture as text, and no links to files."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^]]*\]\([^)]*\)\n<!--.*?\n(.*?)-->", r"\1", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


setup(
    long_description=description(),
    ext_modules=[
        Extension(
            "dasp.kernels.cpu._dasp_cpu",
            sources=[(FOLDER / "kernels.cpp").as_posix()],
            depends=[
                "setup.py",
                *sorted(path.as_posix() for kind in ("h", "inc") for path in FOLDER.glob(f"*.{kind}")),
            ],
            language="c++",
            optional=os.environ.get("DASP_REQUIRE_KERNELS", "") in ("", "0"),
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
