"""Runs a case: every library on the same inputs, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.cases import Case, Inputs
from benchmarks.measure import errors_db, peak_memory, time_and_memory_of_one_call, times
from benchmarks.oracles import Array
from benchmarks.peers import Peer, Subject, differentiable
from benchmarks.report import Row

_BUDGET_S, _QUICK_BUDGET_S = 0.6, 0.02


def run(case: Case, peers: Sequence[Peer], quick: bool) -> list[Row]:
    """The rows of a case, dasp first; a library that raises an error has a row that says so."""
    return _swept(case, peers) if case.sweep else _timed(case, peers, quick)


def _makers(case: Case, peers: Sequence[Peer]) -> Iterator[tuple[str, Callable[[Inputs], Subject]]]:
    """Each library that takes part, and what makes its subject."""

    def ours(inputs: Inputs) -> Subject:
        subject = differentiable(case.library, case.ours(inputs), {"x": inputs.x, **inputs.tensors})
        return subject if case.gradients else replace(subject, backward=None)

    yield case.library, ours
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
    budget_s, least = (_QUICK_BUDGET_S, 3) if quick else (_BUDGET_S, 5)
    calls = [subject.forward for _, subject in ready]
    for (index, _), call, timing in zip(ready, calls, times(calls, case.samples, budget_s, least), strict=True):
        rows[index] = replace(rows[index], forward=timing, memory_forward=peak_memory(call))
    trained = [(index, subject.backward) for index, subject in ready if subject.backward is not None]
    timings = times([call for _, call in trained], case.samples, budget_s, least)
    for (index, call), timing in zip(trained, timings, strict=True):
        rows[index] = replace(rows[index], forward_backward=timing, memory_forward_backward=peak_memory(call))
    return rows


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
