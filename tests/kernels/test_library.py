"""The compiled library: how it is found, what it does to its process, and what happens where it is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import dasp
from dasp.kernels import describe, recurrence
from dasp.kernels._library import ABI_VERSION, PATH, Library, library
from tests.cases import Case, assert_close, each_processor, gradients, leaves
from tests.operators import KernelCase, all_gradients, each_kernel

ROOT = Path(dasp.__file__).resolve().parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of processes and files")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


# A process that hangs prints where each of its threads is, and ends; so does every child, forked or spawned.
WATCHDOG = """
import faulthandler, os, signal
if hasattr(signal, "alarm"):
    # faulthandler's own timer is a thread, which a forked child lacks and would wait for.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm({seconds})
    os.register_at_fork(after_in_child=lambda: signal.alarm({seconds}))
else:
    faulthandler.dump_traceback_later({seconds}, exit=True)
"""


def python(code: str, *arguments: str, timeout: int = 100, path: Path = ROOT, **environment: str) -> str:
    """Runs code in a fresh interpreter; fails with what it printed if it fails, hangs or crashes."""
    # A file, for a spawned child runs it once more; its folder must not be searched before `path`.
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(WATCHDOG.format(seconds=timeout) + textwrap.dedent(code))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DASP_")}
        result = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", str(script), *arguments],
            env={**clean, "PYTHONPATH": str(path), **environment},
            cwd=path,
            capture_output=True,
            text=True,
            # A child's time begins later.
            timeout=2 * timeout + 10,
            check=False,
        )
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_a_process_that_hangs_says_where() -> None:
    """What the tests of threads and processes rely on, also where it is a child that hangs."""
    code = """
        import multiprocessing, threading
        def wait_for_ever():
            threading.Event().wait()
        if __name__ == "__main__":
            child = multiprocessing.get_context("spawn").Process(target=wait_for_ever)
            child.start()
            child.join()
            raise SystemExit(child.exitcode != 0)
    """
    with pytest.raises(AssertionError, match=r"exit status [^0](.|\n)*in wait_for_ever"):
        python(code, timeout=1)


# ---- missing, damaged, or of another version


@pytest.fixture(autouse=True)
def kernels_not_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that these tests open are to be looked at, also in a run that is to compute without any."""
    monkeypatch.delenv("DASP_DISABLE_CPU_KERNELS", raising=False)


def test_a_missing_library_is_reported_once_and_at_first_use(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        missing = Library(tmp_path / "_dasp_cpu.so")
    assert missing.reason == "_dasp_cpu.so was not built (no C++ compiler at installation?)"
    with pytest.warns(RuntimeWarning, match="slow fallback instead of compiled kernels: _dasp_cpu.so was not built"):
        assert not missing.available()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not missing.available()


def test_switched_off_by_its_user_it_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASP_DISABLE_CPU_KERNELS", "1")
    off = Library()
    assert off.reason == "switched off by DASP_DISABLE_CPU_KERNELS"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not off.available()
    monkeypatch.setenv("DASP_DISABLE_CPU_KERNELS", "0")
    assert Library().reason != off.reason


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a library" * 1000])
def test_a_file_that_is_no_library_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / PATH.name
    path.write_bytes(content)
    damaged = Library(path)
    assert damaged.reason.startswith(f"{path.name} cannot be used: ")
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert not damaged.available()


@linux
def test_a_truncated_library_is_reported(tmp_path: Path, compiled_library: None) -> None:
    """In a process of its own: the loader of a truncated file may end the process, not the call."""
    content = PATH.read_bytes()
    paths = [tmp_path / f"{length}.so" for length in (1000, len(content) // 2, len(content) - 1)]
    for path in paths:
        path.write_bytes(content[: int(path.stem)])
    code = """
        import pathlib, sys
        from dasp.kernels._library import Library
        for path in sys.argv[1:]:
            print(Library(pathlib.Path(path)).reason)
    """
    reasons = python(code, *map(str, paths)).splitlines()
    assert reasons == [f"{path.name} cannot be used: it is cut short, reinstall dasp" for path in paths]


def build(source: str, path: Path) -> Path:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler to build another library with")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)], input=source, text=True, check=True, timeout=60
    )
    return path


@linux
def test_a_library_of_another_version_is_refused(tmp_path: Path) -> None:
    other = build(f"int dasp_abi_version() {{ return {ABI_VERSION + 1}; }}", tmp_path / "other.so")
    assert (
        Library(other).reason == f"other.so has ABI version {ABI_VERSION + 1}, expected {ABI_VERSION}: reinstall dasp"
    )
    with pytest.warns(RuntimeWarning, match="reinstall dasp"):
        assert not Library(other).available()


@linux
def test_a_library_that_lacks_a_symbol_is_refused(tmp_path: Path) -> None:
    part = build(f"int dasp_abi_version() {{ return {ABI_VERSION}; }}", tmp_path / "part.so")
    assert re.match(r"part.so cannot be used: .*undefined symbol: dasp_", Library(part).reason)
    foreign = build("int something_else() { return 1; }", tmp_path / "foreign.so")
    assert re.match(r"foreign.so cannot be used: .*undefined symbol: dasp_abi_version", Library(foreign).reason)


def test_an_installation_without_the_library_warns_once_at_first_use(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dasp", tmp_path / "dasp", ignore=shutil.ignore_patterns("_dasp_cpu.*", "__pycache__"))
    code = """
        import warnings
        warnings.simplefilter("error")
        import dasp, dasp.modules, dasp.functional as F, torch
        assert "was not built" in dasp.info()["cpu_kernels"]
        x = torch.ones(1, 2, 50)
        F.gain(x, 44100, 3.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                F.parametric_eq(x, 44100, gain_db=3.0), F.compressor(x, 44100)
        [warning] = caught
        assert warning.category is RuntimeWarning, warning
        print(warning.message)
    """
    assert "slow fallback instead of compiled kernels" in python(code, path=tmp_path)


# ---- without it, or with fewer instructions, the results are the same


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_handle", None)
    monkeypatch.setattr(library, "_reported", True)


def assert_equal_to_rounding(got: Sequence[Tensor], want: Sequence[Tensor], dtype: torch.dtype) -> None:
    """To the rounding of audio in its type: whatever lies between is computed in float64."""
    for fallback, compiled in zip(got, want, strict=True):
        assert_close(fallback, compiled, 1e-12 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_processor
def test_processors_give_the_same_without_it(
    case: Case, dtype: torch.dtype, compiled_library: None, request: pytest.FixtureRequest
) -> None:
    x = case.audio((2,), 300, dtype)
    values = [x, case.normalized(x, low=0.1, high=0.9), *case.signals(x)]
    results = []
    for fixture in (None, "without_library"):
        if fixture:
            request.getfixturevalue(fixture)
        inputs = leaves(*values)
        y = case.flat(*inputs)
        results.append([y.detach(), *gradients(y, inputs)])
    assert_equal_to_rounding(results[1], results[0], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_kernel
def test_operators_give_the_same_without_it(
    kernel: KernelCase, dtype: torch.dtype, compiled_library: None, request: pytest.FixtureRequest
) -> None:
    inputs = kernel.inputs(5, 150, dtype, 0)
    compiled = all_gradients(kernel.run, inputs)
    request.getfixturevalue("without_library")
    fallback = all_gradients(kernel.run, inputs)
    assert_equal_to_rounding((*fallback[0], *fallback[1]), (*compiled[0], *compiled[1]), dtype)


SAVE_RESULTS = """
    import sys, torch
    from dasp.kernels import describe
    from tests.operators import KERNELS, all_gradients
    torch.set_num_threads(1)
    results = {}
    for kernel in KERNELS:
        for dtype in (torch.float32, torch.float64):
            for rows in (1, 9):
                outputs, grads = all_gradients(kernel.run, kernel.inputs(rows, 150, dtype, rows))
                results[f"{kernel} {dtype} {rows}"] = [*outputs, *grads]
    torch.save(results, sys.argv[1])
    print(describe()["instruction_set"], describe()["cpu_kernels"])
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DASP_CPU_ISA": "baseline"}, "baseline compiled"),
        ({"DASP_CPU_ISA": "avx2"}, "compiled"),
        ({"DASP_DISABLE_CPU_KERNELS": "1"}, "- fallback: switched off"),
    ],
    ids=str,
)
def test_the_environment_chooses_how_to_compute_but_not_what(
    environment: dict[str, str], expected: str, tmp_path: Path, compiled_library: None
) -> None:
    path = tmp_path / "results.pt"
    used = python(SAVE_RESULTS, str(path), **environment)
    assert expected in used
    if environment.get("DASP_CPU_ISA") == "avx2":
        assert used.split()[0] in ("baseline", "avx2")
    here = {}
    exec(compile(textwrap.dedent(SAVE_RESULTS).split("torch.save")[0], "here", "exec"), here)
    for name, values in torch.load(path, weights_only=True).items():
        assert_equal_to_rounding(values, here["results"][name], values[0].dtype)


def test_info_names_what_is_in_use(compiled_library: None) -> None:
    described = describe()
    assert described["cpu_kernels"] == "compiled"
    assert described["instruction_set"] == library.instruction_set
    assert library.instruction_set in ("baseline", "avx2", "avx512")


# ---- what it leaves alone


@linux
def test_it_needs_the_c_and_cpp_runtime_alone(compiled_library: None) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    entries = subprocess.run(
        ["readelf", "-d", str(PATH)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", entries)
    allowed = re.compile(r"(libc|libm|libpthread|libdl|libstdc\+\+|libgcc_s|ld-linux-[\w-]+)\.so\.\d+")
    assert needed
    assert [name for name in needed if not allowed.fullmatch(name)] == []
    assert "RPATH" not in entries
    assert "RUNPATH" not in entries


@linux
def test_it_exports_its_functions_alone(compiled_library: None) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    table = subprocess.run(
        ["nm", "-D", "--defined-only", str(PATH)], capture_output=True, text=True, check=True, timeout=60
    )
    names = [line.split()[-1] for line in table.stdout.splitlines()]
    assert names
    # What the standard library's templates leave behind is weak, and yields to whoever else has it.
    strong = [line.split()[-1] for line in table.stdout.splitlines() if line.split()[-2] in "TDB"]
    assert [name for name in strong if not name.startswith("dasp_")] == []


@linux
def test_it_brings_no_openmp(compiled_library: None) -> None:
    code = """
        import re, torch
        def runtimes():
            return set(re.findall(r"\\\\S*(?:libgomp|libiomp|libomp)\\\\S*", open("/proc/self/maps").read()))
        before = runtimes()
        import dasp.functional as F
        F.compressor(torch.ones(8, 1, 8192), 44100)
        assert runtimes() == before, runtimes() ^ before
    """
    python(code.replace("\\\\", "\\"))


def test_denormals_are_those_of_the_process() -> None:
    """After an import, here in a thread, and calls they still exist in every thread, older or younger than these."""
    code = """
        import threading, numpy as np
        small, results, go = np.float32(1e-40), [], threading.Event()
        def check():
            results.append(bool(small * np.float32(0.5) != 0))
        def wait():
            go.wait(60)
            check()
        older = threading.Thread(target=wait)
        older.start()
        importing = threading.Thread(target=lambda: __import__("dasp.functional"))
        importing.start()
        importing.join()
        import torch, dasp.functional as F
        torch.set_num_threads(2)
        check()
        x = torch.ones(4, 1, 16384, requires_grad=True)
        for processor in (F.compressor, F.parametric_eq, F.lowpass):
            processor(x, 44100).sum().backward()
        check()
        go.set()
        older.join()
        younger = threading.Thread(target=check)
        younger.start()
        younger.join()
        torch_small = torch.full((100000,), 1e-40)
        assert bool((torch_small * 0.5 != 0).all())
        assert results == [True] * 4, results
    """
    python(code)


@each_kernel
def test_ringing_out_into_silence_is_as_fast_as_noise(kernel: KernelCase, compiled_library: None) -> None:
    """Denormals would take ten times as long.  The best of many, so that other work on the machine does not count."""
    samples = 200_000
    noise = list(kernel.inputs(1, samples, torch.float32, 0))
    if kernel.name == "sosfilt":
        noise[1] = torch.tensor([[[0.01, 0, 0, -0.99, 0]] * 3], dtype=torch.float64)
    if kernel.name == "ballistics":
        noise[1:3] = [torch.full_like(value, 0.99) for value in noise[1:3]]
    if kernel.name == "recurrence":
        noise[0] = torch.full_like(noise[0], 0.99)
    ringing = [value.clone() for value in noise]
    audio = ringing[1 if kernel.name == "recurrence" else 0]
    audio[..., 1:] = 0

    def best(inputs: list[Tensor]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            kernel.run(*inputs)
            times.append(time.perf_counter() - start)
        return min(times)

    ratios = []
    for _ in range(5):
        ratios.append(best(ringing) / best(noise))
        if ratios[-1] <= 1.3:
            return
    pytest.fail(f"ringing out takes {min(ratios):.2f} times as long as noise")


@pytest.mark.usefixtures("threads")
def test_other_python_threads_run_during_a_call(compiled_library: None) -> None:
    torch.set_num_threads(1)
    x = torch.zeros(1, 20_000_000)
    state = torch.zeros(1, dtype=torch.float64)
    done, ticks = threading.Event(), []

    def count() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    other = threading.Thread(target=count)
    other.start()
    start = time.perf_counter()
    recurrence(x, x, state)
    end = time.perf_counter()
    done.set()
    other.join()
    # Some in the middle half of the call, whatever the rest of the machine is doing.
    middle = [tick for tick in ticks if start + (end - start) / 4 < tick < end - (end - start) / 4]
    assert len(middle) >= 3


@linux
def test_memory_does_not_grow() -> None:
    code = """
        import resource, torch, dasp.functional as F
        torch.set_num_threads(1)
        x = torch.randn(2, 1, 512, requires_grad=True)
        controls = torch.full((2,), -20.0, requires_grad=True)
        def step():
            y = F.lowpass(F.compressor(x, 44100, controls), 44100)
            torch.autograd.grad(y.sum(), [x, controls])
        def used():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()
        for _ in range(200):
            step()
        before = used()
        for _ in range(1000):
            step()
        assert used() - before <= 5e6, used() - before
    """
    python(code)


# ---- forked and spawned processes


def test_data_loader_workers() -> None:
    """The parent has used everything, with gradients and threads, and hands its modules over to be used likewise."""
    code = """
        import multiprocessing
        import torch
        import dasp.modules
        from torch.utils.data import DataLoader, Dataset

        class Items(Dataset):
            def __init__(self):
                self.chain = dasp.modules.Chain(
                    dasp.modules.ParametricEQ(44100, gain_db=3.0),
                    dasp.modules.Compressor(44100),
                    dasp.modules.NoiseShapedReverb(44100, decay_s=0.3),
                )
            def __len__(self):
                return 4
            def __getitem__(self, index):
                x = torch.randn(4, 2, 16384, generator=torch.Generator().manual_seed(index), requires_grad=True)
                y = self.chain(x)
                grads = torch.autograd.grad(y.square().mean(), [x, *self.chain.parameters()])
                return [value.detach() for value in (y, *grads)]

        if __name__ == "__main__":
            torch.set_num_threads(2)
            items = Items()
            here = [items[index] for index in range(4)]
            for context, workers in ((None, 0), ("fork", 2), ("forkserver", 1), ("spawn", 1)):
                if context is not None and context not in multiprocessing.get_all_start_methods():
                    continue
                loader = DataLoader(items, batch_size=None, num_workers=workers, multiprocessing_context=context)
                for mine, theirs in zip(here, loader, strict=True):
                    for value, other in zip(mine, theirs, strict=True):
                        # An FFT and a sum over samples round otherwise on another number of threads.
                        assert (value - other).abs().max() <= 1e-4 * value.abs().max() + 1e-9, context
            print("done")
    """
    assert python(code) == "done\n"


def test_eight_threads_run_every_processor_at_once() -> None:
    """From their first calls on, each in an order of its own, with gradients: to the bit what one thread computes."""
    code = """
        import random, threading, torch
        from dasp import PROCESSORS
        from tests.cases import Case, gradients, leaves
        torch.set_num_threads(2)
        cases = [Case(spec) for spec in PROCESSORS.values()]
        def work(case):
            x = case.audio((8,), 4200, torch.float32)
            inputs = leaves(x, case.normalized(x, low=0.1, high=0.4), *case.signals(x[..., :100]))
            y = case.flat(*inputs)
            return [y.detach(), *gradients(y, inputs)]
        start, results = threading.Barrier(8), [{} for _ in range(8)]
        def all_of_them(number):
            torch.set_num_threads(2)
            order = random.Random(number).sample(range(len(cases)), len(cases))
            start.wait()
            for index in order:
                results[number][index] = work(cases[index])
        threads = [threading.Thread(target=all_of_them, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, case in enumerate(cases):
            want = work(case)
            for result in results:
                assert all(torch.equal(a, b) for a, b in zip(result[index], want, strict=True)), case
        print("done")
    """
    assert python(code) == "done\n"


@forks
def test_a_fork_while_other_threads_are_inside_a_kernel() -> None:
    """A child gets locks as they were in the moment of the fork, and none of the threads that would release them."""
    code = """
        import os, threading, time, torch
        from dasp.kernels import sosfilt
        import dasp.functional as F
        torch.set_num_threads(2)
        x = torch.randn(16, 1, 30000)
        def work():
            value = x.clone().requires_grad_()
            y = F.compressor(F.parametric_eq(value, 44100, gain_db=3.0), 44100)
            return torch.autograd.grad(y.square().sum(), [value])[0].numpy().tobytes()
        want, stop, rounds = work(), threading.Event(), []
        def keep_busy():
            torch.set_num_threads(2)
            while not stop.is_set():
                rounds.append(work() == want)
        others = [threading.Thread(target=keep_busy) for _ in range(2)]
        for other in others:
            other.start()
        children = []
        try:
            for _ in range(12):
                time.sleep(0.007)
                child = os.fork()
                if child == 0:
                    os._exit(0 if work() == want else 3)
                children.append(child)
            for child in children:
                _, status = os.waitpid(child, 0)
                assert status == 0, f"a child ended with {status}"
        finally:
            stop.set()
            for other in others:
                other.join()
        assert rounds and all(rounds)
        print("done")
    """
    assert python(code, timeout=60) == "done\n"


@forks
def test_a_plain_fork_after_use() -> None:
    """The threads of the kernels live during a call only, so that a fork finds nothing broken.

    torch's own do not survive it (2.13 hangs in the child at the first call that uses them), so that whole processors
    need one thread in the child, which the hook that is installed at import gives.
    """
    code = """
        import os, signal, sys, time
        import numpy as np, torch
        import dasp.functional as F
        from dasp.kernels import sosfilt
        torch.set_num_threads(2)
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 65536)).astype(np.float32))
        sos = torch.tensor([[[1.0, 0.0, 0.0, -0.5, 0.1]]], dtype=torch.float64)
        state = torch.from_numpy(np.zeros((8, 1, 2)))
        def kernel():
            return sosfilt(x, sos, state)[0].numpy().tobytes()
        def processors():
            return F.compressor(F.parametric_eq(x[:, None], 44100, gain_db=3.0), 44100).numpy().tobytes()
        def same_in_a_child(work):
            here = work()
            child = os.fork()
            if child == 0:
                os._exit(0 if work() == here else 3)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    return status == 0
                time.sleep(0.02)
            os.kill(child, signal.SIGKILL)
            sys.exit(f"{work.__name__} hangs in a forked child")
        assert same_in_a_child(kernel)
        assert same_in_a_child(processors)
    """
    python(code)
