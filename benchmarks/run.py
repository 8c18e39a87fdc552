"""Runs a case: every library on the same inputs, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks import roofline
from benchmarks.cases import OURS, Case, Inputs
from benchmarks.measure import Call, errors_db, peak_memory, time_and_memory_of_one_call, times
from benchmarks.oracles import Array
from benchmarks.peers import Peer, Subject, differentiable
from benchmarks.row import Row

_BUDGET_S, _QUICK_BUDGET_S = 0.6, 0.02


def run(case: Case, peers: Sequence[Peer], quick: bool) -> list[Row]:
    """The rows of a case, dasp first; a library that raises an error has a row that says so."""
    if case.points:
        try:
            return _scaled(case, quick)
        except Exception as error:  # As everywhere: it is the result.
            return [_failure(case, OURS, error)]
    return _swept(case, peers) if case.sweep else _timed(case, peers, quick)


def ours(case: Case, inputs: Inputs) -> Subject:
    """What dasp does in a case."""
    return differentiable(OURS, case.ours(inputs), {"x": inputs.x, **inputs.tensors})


def _makers(case: Case, peers: Sequence[Peer]) -> Iterator[tuple[str, Callable[[Inputs], Subject]]]:
    """Each library that takes part, and what makes its subject."""
    yield OURS, partial(ours, case)
    for peer in peers:
        for adapter in peer.adapters(case.subject):
            yield peer.name, adapter


def _exact(case: Case, inputs: Inputs) -> Array:
    if case.exact is not None:
        return case.exact(inputs)
    tensors = {name: tensor.double() for name, tensor in inputs.tensors.items()}
    with torch.no_grad():
        return np.asarray(case.ours(inputs)(inputs.x.double(), **tensors).numpy(), np.float64)


def _errors_db(subject: Subject, case: Case, inputs: Inputs, exact: Array) -> Array | None:
    """The error of each item; None where there is nothing to compare with."""
    if not subject.comparable:
        return None
    return errors_db(subject.output(), exact if subject.exact is None else subject.exact())


def _failure(case: Case, library: str, error: Exception) -> Row:
    return Row(case, library, note=f"failed: {type(error).__name__}: {error}".splitlines()[0])


def _timed(case: Case, peers: Sequence[Peer], quick: bool) -> list[Row]:
    (inputs,) = case.make(case.shape)
    exact = _exact(case, inputs)
    rows: list[Row] = []
    ready: list[tuple[int, Subject]] = []
    for library, make in _makers(case, peers):
        try:
            subject = make(inputs)
            if subject.once and quick:
                continue
            row = _first_calls(case, subject, inputs, exact)
        except Exception as error:  # Whatever a library raises is its result.
            rows.append(_failure(case, library, error))
            continue
        if not subject.once:
            ready.append((len(rows), subject))
        rows.append(row)
    budget_s, least = _effort(quick)
    calls = [subject.forward for _, subject in ready]
    copies = [roofline.copy_to_existing(inputs.x), roofline.copy_to_fresh(inputs.x)] if case.bound_by_memory else []
    timings = times([*calls, *copies], case.samples, budget_s, least)
    for (index, _), call, timing in zip(ready, calls, timings[: len(calls)], strict=True):
        rows[index] = replace(rows[index], forward=timing, memory_forward=peak_memory(call))
    if copies and not rows[0].failed:
        rows[0] = replace(rows[0], **_bound(case, inputs), copy=timings[-2], copy_to_fresh=timings[-1])
    trained = [(index, subject.backward) for index, subject in ready if subject.backward is not None]
    timings = times([call for _, call in trained], case.samples, budget_s, least)
    for (index, call), timing in zip(trained, timings, strict=True):
        rows[index] = replace(rows[index], forward_backward=timing, memory_forward_backward=peak_memory(call))
    return rows


def _effort(quick: bool) -> tuple[float, int]:
    """The time to spend on each call in seconds, and the least number of measurements."""
    return (_QUICK_BUDGET_S, 3) if quick else (_BUDGET_S, 5)


def _bound(case: Case, inputs: Inputs) -> dict[str, int]:
    """The bytes that a call must move, as fields of a row."""
    read, written = [inputs.x, *inputs.tensors.values()], [ours(case, inputs).forward()]
    return {
        "bytes_forward": roofline.bytes_moved(read, written, backward=False),
        "bytes_forward_backward": roofline.bytes_moved(read, written, backward=True),
    }


def _scaled(case: Case, quick: bool) -> list[Row]:
    """A row for each point; the points take turns."""
    rows = [Row(replace(case, shape=point.shape), OURS, threads=point.threads) for point in case.points]
    subjects = [ours(case, *case.make(point.shape)) for point in case.points]
    samples = [row.case.samples for row in rows]
    before = torch.get_num_threads()
    try:
        for field, calls in (
            ("forward", [subject.forward for subject in subjects]),
            ("forward_backward", [subject.backward for subject in subjects]),
        ):
            threaded = [
                _with_threads(call, point.threads or before) for call, point in zip(calls, case.points, strict=True)
            ]
            timings = times(threaded, samples, *_effort(quick))
            rows = [replace(row, **{field: timing}) for row, timing in zip(rows, timings, strict=True)]
    finally:
        torch.set_num_threads(before)
    return rows


def _with_threads(call: Call, threads: int) -> Call:
    def threaded() -> None:
        torch.set_num_threads(threads)
        call()

    return threaded


def _first_calls(case: Case, subject: Subject, inputs: Inputs, exact: Array) -> Row:
    """The row with its error; for a subject that is run once, with its time and memory too."""
    row = Row(case, subject.library, note=subject.note)
    if subject.once:
        call = subject.forward if subject.backward is None else subject.backward
        timing, memory = time_and_memory_of_one_call(call, case.samples)
        if subject.backward is None:
            return replace(row, forward=timing, memory_forward=memory)
        return replace(row, forward_backward=timing, memory_forward_backward=memory)
    errors = _errors_db(subject, case, inputs, exact)
    if subject.backward is not None:
        subject.backward()
    return row if errors is None else replace(row, error_db=float(errors.max()))


def _swept(case: Case, peers: Sequence[Peer]) -> list[Row]:
    errors: dict[str, list[Array]] = {}
    rows: dict[str, Row] = {}
    for inputs in case.make(case.shape):
        exact = _exact(case, inputs)
        for library, make in _makers(case, peers):
            if rows.get(library, Row(case, library)).failed:
                continue
            try:
                subject = make(inputs)
                found = _errors_db(subject, case, inputs, exact)
            except Exception as error:  # As above.
                rows[library] = _failure(case, library, error)
                continue
            if found is not None:
                errors.setdefault(library, []).append(found)
                rows[library] = Row(case, subject.library, note=subject.note)
    for library, row in rows.items():
        if not row.failed:
            every = np.concatenate(errors[library])
            rows[library] = replace(row, error_db=float(every.max()), median_error_db=float(np.median(every)))
    return list(rows.values())
