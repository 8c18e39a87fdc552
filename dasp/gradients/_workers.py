"""Calls of an effect on one item, one after another or by workers, each with an instance of its own if it has state."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import MethodType
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from dasp.gradients._random import join_pool, seed_globals, seeded

AnyEffect = Callable[..., Tensor]
Backend = Literal["thread", "process"]

# A process imports torch and the effect before it answers first.
_START_S = 120.0
# A process that was asked to end is killed after that.
_END_S = 1.0


class Task(NamedTuple):
    """What a call needs: audio, controls, the seed of its random numbers; and which probe of which item it is."""

    x: Tensor
    u: Tensor
    seed: int
    place: tuple[int, ...]


class WorkerError(RuntimeError):
    """A worker could not do a task; the text names the worker."""


class _RemoteError(RuntimeError):
    """An effect raised in another process; the text is what it raised."""


class TaskError(RuntimeError):
    """A call failed; the text is the reason."""

    def __init__(self, task: Task, reason: str) -> None:
        super().__init__(reason)
        self.task = task


def owner_of(effect: AnyEffect) -> Any:
    """What has the state of an effect and knows its controls: the effect, or the object whose method it is."""
    if isinstance(effect, MethodType) and not inspect.isclass(effect.__self__):
        return effect.__self__
    return effect


def random_arguments(effect: AnyEffect) -> tuple[str, ...]:
    """Which of `seed` and `generator` an effect must be given: those that its signature has without a default."""
    try:
        arguments = inspect.signature(effect).parameters
    except (TypeError, ValueError):
        return ()
    return tuple(n for n in ("seed", "generator") if n in arguments and arguments[n].default is inspect.Parameter.empty)


def call(effect: AnyEffect, x: Tensor, u: Tensor, seed: int, differentiable: bool = False) -> Tensor:
    """One call from rest: an effect with a method `reset` is reset before.

    It is given copies, which it may change, and what it returns is copied, so that it may use that memory again.
    """
    arguments: dict[str, Any] = {}
    for name in random_arguments(effect):
        arguments[name] = seed if name == "seed" else torch.Generator(x.device).manual_seed(seed)
    reset = getattr(owner_of(effect), "reset", None)
    if callable(reset):
        reset()
    with torch.set_grad_enabled(differentiable):
        y = effect(x.clone(memory_format=torch.contiguous_format), u.clone(), **arguments)
        if not isinstance(y, Tensor):
            raise TypeError(f"it returned a {type(y).__name__}, expected a torch.Tensor")
        return y.clone()


def instance(effect: AnyEffect) -> AnyEffect:
    """An instance for another worker: the effect itself if it has no state, that is, no method `reset`."""
    owner = owner_of(effect)
    if not callable(getattr(owner, "reset", None)):
        return effect
    own = getattr(owner, "copy", None)
    try:
        another: Any = own() if callable(own) else copy.deepcopy(owner)
    except Exception as error:
        raise TypeError(
            f"effect has state and cannot be copied for a worker ({reason_of(error)}): give it a method copy()"
        ) from error
    return MethodType(effect.__func__, another) if isinstance(effect, MethodType) else another


class _Worker(Protocol):
    def call(self, task: Task) -> Tensor: ...

    def close(self) -> None: ...


class _ThreadWorker:
    def __init__(self, effect: AnyEffect) -> None:
        self._effect = effect

    def call(self, task: Task) -> Tensor:
        return call(self._effect, task.x, task.u, task.seed)

    def close(self) -> None:
        pass


class _ProcessWorker:
    """A process with a copy of the effect, at the other end of a pipe."""

    def __init__(self, number: int, effect: AnyEffect, timeout_s: float | None) -> None:
        # A forked child would inherit the threads of torch as locks that nobody releases.
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._timeout_s = timeout_s
        self._process = context.Process(target=serve, args=(end, effect), daemon=True, name=f"effect-{number}")
        try:
            self._process.start()
        except Exception as error:
            raise TypeError(f"effect cannot be sent to a process ({error}): use backend='thread'") from error
        end.close()
        self.name = f"worker {number} (process {self._process.pid})"
        self._started = False

    def call(self, task: Task) -> Tensor:
        if not self._started:
            self._receive(_START_S, "did not start")
            self._started = True
        with suppress(OSError):
            # Where the process is dead, receiving says so.
            self._pipe.send((task.x.cpu().numpy(), task.u.cpu().numpy(), task.seed))
        result, reason, trace = self._receive(self._timeout_s, "did not answer")
        if result is None:
            raise _RemoteError(reason) from RuntimeError(f"in {self.name}:\n{trace}")
        return torch.from_numpy(result).to(task.x.device)

    def _receive(self, timeout_s: float | None, late: str) -> Any:
        ready = wait([self._pipe, self._process.sentinel], timeout_s)
        if not ready:
            self.close()
            raise WorkerError(f"{self.name} {late} within {timeout_s:g} s and was ended")
        if self._pipe in ready:
            with suppress(EOFError, OSError):
                return self._pipe.recv()
        self._process.join(1)
        hint = "" if self._started else ": a script that uses processes needs `if __name__ == '__main__':`"
        raise WorkerError(f"{self.name} died with exit code {self._process.exitcode}{hint}")

    def close(self) -> None:
        # First in such a way that it can end what it has started.
        self._process.terminate()
        self._process.join(_END_S)
        self._process.kill()
        self._process.join(1)


def serve(pipe: Connection, effect: AnyEffect) -> None:
    """What a worker's process does until the other end of the pipe is closed."""
    # Control-C ends the parent, and with it the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Raises, so that an effect leaves neither files nor processes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            audio, controls, seed = pipe.recv()
            x, u = torch.from_numpy(audio), torch.from_numpy(controls)
            try:
                seed_globals(seed, x)
                pipe.send((call(effect, x, u, seed).cpu().numpy(), "", ""))
            except Exception as error:
                pipe.send((None, reason_of(error), traceback.format_exc()))


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, (WorkerError, _RemoteError)):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Pool:
    """Workers, each busy with one task at a time, that threads of this process hand tasks to and wait for."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self.pid = os.getpid()
        self._workers = workers
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._executor = ThreadPoolExecutor(len(workers), thread_name_prefix="effect", initializer=join_pool)

    def results(self, tasks: Sequence[Task]) -> list[Tensor]:
        return list(self._executor.map(lambda task: _attempt(task, self._delegate), tasks))

    def _delegate(self, task: Task) -> Tensor:
        worker = self._idle.get()
        try:
            return worker.call(task)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        if self.pid != os.getpid():
            return
        for worker in self._workers:
            worker.close()
        self._executor.shutdown(cancel_futures=True)


def _attempt(task: Task, do: Callable[[Task], Tensor]) -> Tensor:
    try:
        return do(task)
    except Exception as error:
        raise TaskError(task, reason_of(error)) from error


class Workers:
    """Calls of an effect on single items.

    Args:
        effect: `(x, u) -> y` for one item.
        count: Number of workers; 0 for calls one after another in the thread of the caller.
        backend: "thread" or "process".
        timeout_s: Seconds after which a process that works on one call is ended; None for any time.
    """

    def __init__(self, effect: AnyEffect, count: int, backend: Backend, timeout_s: float | None) -> None:
        self.count = count
        self._effect, self._backend, self._timeout_s = effect, backend, timeout_s
        self._pool: _Pool | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[AnyEffect, int, Backend, float | None]:
        return self._effect, self.count, self._backend, self._timeout_s

    def __setstate__(self, state: tuple[AnyEffect, int, Backend, float | None]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # workers are not copied: a copy starts its own

    def results(self, tasks: Sequence[Task]) -> list[Tensor]:
        """Audio of each task, in their order.

        Raises:
            TaskError: For the first task that failed; its cause is what the effect raised, or a `WorkerError`.
            RuntimeError: If an effect on threads draws from the global random generators.
            TypeError: If the effect cannot be sent to a process.
        """
        if not tasks:
            return []
        if self.count == 0:
            return [self._here(task) for task in tasks]
        pool = self._started()
        try:
            # Threads share the global generators: what draws from them would depend on the order of the calls.
            with seeded(tasks[0].seed, tasks[0].x) as used:
                done = pool.results(tasks)
                shared = self._backend == "thread" and used()
        except BaseException as error:
            # What an effect raises leaves its worker as it was.
            if not isinstance(error, TaskError) or isinstance(error.__cause__, WorkerError):
                self.close()
            raise
        if shared:
            raise RuntimeError(
                "the effect draws from the global random generators, which threads share: "
                "use backend='process' or workers=0"
            )
        return done

    def _here(self, task: Task) -> Tensor:
        with seeded(task.seed, task.x):
            return _attempt(task, lambda task: call(self._effect, task.x, task.u, task.seed))

    def _started(self) -> _Pool:
        with self._lock:
            if self._pool is None or self._pool.pid != os.getpid():
                # After a fork, the workers of the parent are not those of the child.
                self._pool = _Pool([self._worker(number) for number in range(self.count)])
                weakref.finalize(self, self._pool.close)
            return self._pool

    def _worker(self, number: int) -> _Worker:
        if self._backend == "process":
            return _ProcessWorker(number, self._effect, self._timeout_s)
        return _ThreadWorker(instance(self._effect))

    def close(self) -> None:
        """Ends the workers; the next call starts others."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
