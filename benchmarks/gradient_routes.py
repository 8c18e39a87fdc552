"""Ways to a gradient, compared where the true one is known: `python -m benchmarks.gradient_routes`.

An effect with hidden settings has made a target of a recording.  Each route looks for the settings by the same descent
from the same start: automatic differentiation, finite differences, SPSA with 1, 4 and 16 draws, and a trained proxy of
the effect as such, as a half hybrid and as a full hybrid.  The effects are dasp's equaliser, its compressor and the two
in a chain, of which the gradient is known, and a chain of pedalboard's, of which nothing is.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

import dasp.modules as M
from benchmarks import report
from benchmarks.proxy import SAMPLE_RATE, excerpts, songs
from benchmarks.tables import Record, Table
from dasp.gradients import (
    EffectChain,
    NeuralProxy,
    PedalboardEffect,
    TrainingProgress,
    finite_difference,
    hybrid,
    spsa,
    train_proxy,
)
from dasp.mixing import MultiResolutionSTFTLoss, multitrack

Callback: TypeAlias = Callable[[Tensor, Tensor], Tensor]

SCHEMA = 1
"""Changes with the meaning of the JSON's fields."""

ROUTES = ("AD", "FD", "SPSA 1", "SPSA 4", "SPSA 16", "proxy", "half", "full")
# Songs that no proxy was trained on.
_FIRST_SONG = 100
# Where between start and target gradients are compared with the true one, and how often one that is random.
_PLACES = (0.0, 0.25, 0.5, 0.75)
_REPEATS = 8
# The losses of a run are written down so often.
_POINTS = 20


@dataclass(frozen=True)
class Size:
    """How much is done: the whole comparison, or a quick one that shows that all of it works."""

    samples: int = 49152
    steps: int = 200
    learning_rate: float = 0.02
    proxy_songs: int = 20
    proxy_steps: int = 1200
    proxy_batch: int = 8
    proxy_samples: int = 16384


QUICK = Size(samples=32768, steps=50, learning_rate=0.05, proxy_songs=2, proxy_steps=40, proxy_batch=4)


@dataclass(frozen=True)
class Stage:
    """One effect of a task, and how many controls it has."""

    effect: Callback
    num_controls: int
    channels: int = 1
    # pedalboard's take one item at a time, and two threads of them at once.
    workers: int = 0


@dataclass(frozen=True)
class Task:
    """Effects in a row whose settings are looked for; `differentiable` if torch sees through them."""

    name: str
    stages: dict[str, Stage]
    start: Tensor
    differentiable: bool = True

    @property
    def channels(self) -> int:
        """Channels of the audio."""
        return next(iter(self.stages.values())).channels

    def through(self, effects: Sequence[Callback]) -> Callback:
        """Effects in the place of those of the stages, in a row."""
        counts = [stage.num_controls for stage in self.stages.values()]

        def chain(x: Tensor, u: Tensor) -> Tensor:
            for effect, own in zip(effects, u.split(counts, -1), strict=True):
                x = effect(x, own)
            return x

        return chain

    @property
    def effect(self) -> Callback:
        """The effects in a row."""
        first, *others = (stage.effect for stage in self.stages.values())
        return self.through([first, *others]) if others else first

    def routes(self) -> tuple[str, ...]:
        """The routes that lead there."""
        return ROUTES if self.differentiable else ROUTES[1:]


def tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of these names, without that of pedalboard where it is not installed."""
    equalizer, compressor = M.ParametricEQ(SAMPLE_RATE), M.Compressor(SAMPLE_RATE)
    stages = {
        "equaliser": Stage(equalizer.process_normalized, equalizer.num_controls),
        "compressor": Stage(compressor.process_normalized, compressor.num_controls),
    }
    starts = {"equaliser": equalizer.flat().detach(), "compressor": compressor.flat().detach()}
    found = [Task(name, {name: stages[name]}, starts[name]) for name in stages]
    found.append(Task("chain", stages, torch.cat(list(starts.values()))))
    try:
        plugins = plugin_chain()
    except ImportError as error:
        print(f"without plug-ins: {error}", file=sys.stderr)
    else:
        stage = Stage(plugins, plugins.num_controls, channels=2, workers=2)
        found.append(Task("plug-ins", {"plug-ins": stage}, torch.full((plugins.num_controls,), 0.5), False))
    return [task for task in found if task.name in names]


def plugin_chain() -> EffectChain:
    """Three effects of pedalboard with twelve controls."""
    reverb = ["room_size", "damping", "wet_level", "dry_level", "width"]
    return EffectChain(
        PedalboardEffect("Compressor", SAMPLE_RATE),
        PedalboardEffect("PeakFilter", SAMPLE_RATE),
        PedalboardEffect("Reverb", SAMPLE_RATE, reverb),
    )


@cache
def recording(seed: int, samples: int, channels: int) -> Tensor:
    """A stretch of a synthetic song, `(1, channels, samples)`, that peaks near full scale."""
    tracks = multitrack(_FIRST_SONG + seed, samples / SAMPLE_RATE + 2, SAMPLE_RATE).tracks[..., -samples:]
    if channels == 2:
        pan = torch.linspace(0.2, 0.8, len(tracks))[:, None, None]
        tracks = torch.cat([(1 - pan) * tracks, pan * tracks], -2)
    mix = tracks.sum(0, keepdim=True)
    return 0.9 * mix / mix.abs().amax()


def train(task: Task, size: Size) -> dict[str, tuple[NeuralProxy, dict[str, Any]]]:
    """A proxy of each stage, and what its training took and reached."""
    trained = {}
    audio = songs(range(size.proxy_songs)) if task.stages else torch.empty(0)
    for name, stage in task.stages.items():
        proxy = NeuralProxy(stage.num_controls, stage.channels, stage.channels)
        source = audio if stage.channels == 1 else torch.cat([audio, audio.roll(1, 0)], 1)
        start = time.perf_counter()

        def show(progress: TrainingProgress, name: str = name) -> None:
            if progress.validation_loss is not None:
                print(f"  proxy of {name}: step {progress.step}, {progress.validation_loss:.3f}", file=sys.stderr)

        result = train_proxy(
            stage.effect,
            proxy,
            excerpts(source, size.proxy_batch, size.proxy_samples),
            steps=size.proxy_steps,
            batch_size=size.proxy_batch,
            samples=size.proxy_samples,
            validate_every=max(1, size.proxy_steps // 4),
            on_step=show,
        )
        trained[name] = (
            proxy,
            {
                "stage": name,
                "seconds": time.perf_counter() - start,
                "calls": size.proxy_batch * result.steps,
                "distance_over_identity": result.best_loss / result.identity_loss,
            },
        )
    return trained


class Way:
    """A route to the gradient of a task, and how often it has called the effect."""

    def __init__(self, route: str, task: Task, proxies: Sequence[NeuralProxy], seed: int) -> None:
        self.calls = 0
        self._route, self._estimate = route, None
        workers = max(stage.workers for stage in task.stages.values())
        if route == "FD":
            self._estimate = finite_difference(task.effect, 1e-3, generator=seed, workers=workers)
        elif route.startswith("SPSA"):
            draws = int(route.split()[1])
            self._estimate = spsa(task.effect, 1e-3, draws, generator=seed, workers=workers)
        if self._estimate is not None:
            self.function: Callback = self._estimate
        elif route == "AD":
            self.function = task.effect
        else:
            stages = zip(task.stages.values(), proxies, strict=True)
            mode = "full" if route == "full" else "proxy" if route == "proxy" else "half"
            self.function = task.through([hybrid(stage.effect, proxy, mode) for stage, proxy in stages])

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """The audio of a step, with a gradient."""
        # A proxy, and a half hybrid in training, leave the effect alone.
        self.calls += self._route in ("AD", "full")
        return self.function(x, u)

    def close(self) -> None:
        """Ends workers, and counts the calls of an estimate."""
        if self._estimate is not None:
            self.calls = self._estimate.num_calls
            self._estimate.close()


def descend(task: Task, route: str, proxies: Sequence[NeuralProxy], seed: int, size: Size) -> dict[str, dict[str, Any]]:
    """Looks for hidden settings; returns what was found at which cost.

    A half hybrid descends as its proxy does, and lets the effect be heard in the end: "proxy" gives both.
    """
    x, target_u = _hidden(task, seed, size)
    loss = MultiResolutionSTFTLoss()
    with torch.no_grad():
        reference = loss.reference(task.effect(x, target_u))
    u = task.start.expand(1, -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([u], lr=size.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.steps)
    way = Way(route, task, proxies, seed)
    heard = {"proxy": way.function, "half": task.effect} if route == "proxy" else {route: task.effect}
    curves: dict[str, list[float]] = {name: [] for name in heard}

    def listen() -> None:
        with torch.no_grad():
            for name, effect in heard.items():
                curves[name].append(float(loss(effect(x, u.clamp(0, 1)), reference)))

    seconds = 0.0
    for step in range(size.steps):
        if step % max(1, size.steps // _POINTS) == 0:
            listen()
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(way(x, M.project(u)), reference).backward()
        optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - start
    way.close()
    listen()
    with torch.no_grad():
        first = float(loss(task.effect(x, task.start.expand(1, -1)), reference))
    return {
        name: {
            "start_db": first,
            "final_db": curve[-1],
            "left": curve[-1] / first,
            "error": float((u.detach().clamp(0, 1) - target_u).abs().mean()),
            "start_error": float((task.start - target_u).abs().mean()),
            "seconds": seconds,
            "calls": way.calls,
            "curve_db": curve,
        }
        for name, curve in curves.items()
    }


def _hidden(task: Task, seed: int, size: Size) -> tuple[Tensor, Tensor]:
    """A recording, and the settings that are looked for."""
    generator = torch.Generator().manual_seed(seed)
    target_u = 0.1 + 0.8 * torch.rand(1, len(task.start), generator=generator)
    return recording(seed, size.samples, task.channels), target_u


def cosines(
    task: Task, routes: Sequence[str], proxies: Sequence[NeuralProxy], seed: int, size: Size
) -> dict[str, float]:
    """The mean cosine of the gradient of each route to the true one, on the way from start to target.

    Where nobody knows the true one, finite differences stand for it.
    """
    x, target_u = _hidden(task, seed, size)
    loss = MultiResolutionSTFTLoss()
    with torch.no_grad():
        reference = loss.reference(task.effect(x, target_u))

    def gradient(way: Way, place: float) -> Tensor:
        u = torch.lerp(task.start.expand(1, -1), target_u, place).requires_grad_()
        loss(way(x, u), reference).backward()
        if u.grad is None:
            raise RuntimeError(f"{task.name}: no gradient")
        return u.grad.flatten()

    ways = {route: Way(route, task, proxies, seed) for route in {*routes, "AD" if task.differentiable else "FD"}}
    true = [gradient(ways["AD" if task.differentiable else "FD"], place) for place in _PLACES]
    means = {}
    for route in routes:
        repeats = _REPEATS if route.startswith("SPSA") else 1
        found = [
            torch.cosine_similarity(gradient(ways[route], place), wanted, 0)
            for place, wanted in zip(_PLACES, true, strict=True)
            for _ in range(repeats)
        ]
        means[route] = float(torch.stack(found).mean())
    for way in ways.values():
        way.close()
    return means


def compare(chosen: Sequence[Task], routes: Sequence[str], seeds: Sequence[int], size: Size) -> dict[str, Any]:
    """Everything: for each task and route, figures with a value for each seed."""
    rows, trainings, known = [], [], {}
    for task in chosen:
        wanted = [route for route in task.routes() if route in routes]
        if set(wanted) & {"proxy", "half", "full"}:
            missing = Task(task.name, {k: v for k, v in task.stages.items() if k not in known}, task.start)
            for name, (proxy, training) in train(missing, size).items():
                known[name] = proxy
                trainings.append(training)
        proxies = [known[name] for name in task.stages if name in known]
        alike = [cosines(task, wanted, proxies, seed, size) for seed in seeds]
        for descended in dict.fromkeys("proxy" if route == "half" else route for route in wanted):
            runs = [descend(task, descended, proxies, seed, size) for seed in seeds]
            for route in runs[0].keys() & set(wanted):
                cosine = [found[route] for found in alike] if task.differentiable or route != "FD" else None
                row = {name: [run[route][name] for run in runs] for name in runs[0][route]}
                row["curve_db"] = [statistics.median(values) for values in zip(*row["curve_db"], strict=True)]
                rows.append({"task": task.name, "controls": len(task.start), "route": route, "cosine": cosine, **row})
                print(f"{task.name}, {route}: {_spread(rows[-1]['left'], 100)} % of the loss left", file=sys.stderr)
    rows.sort(key=lambda row: ([task.name for task in chosen].index(row["task"]), ROUTES.index(row["route"])))
    return {"rows": rows, "proxies": trainings}


def tables(document: Record) -> list[Table]:
    """For each task its routes, with the medians over the seeds and the least and the largest in brackets."""
    header = ("route", "loss left", "controls off by", "cosine", "seconds", "calls")
    made = []
    for task, group in groupby(document["rows"], lambda row: row["task"]):
        rows = list(group)
        lines = [
            (
                row["route"],
                f"{_spread(row['left'], 100)} %",
                f"{_spread(row['error'], 100)} %",
                "" if row["cosine"] is None else f"{statistics.fmean(row['cosine']):.2f}",
                f"{statistics.median(row['seconds']):.1f}",
                f"{statistics.median(row['calls']):.0f}",
            )
            for row in rows
        ]
        start = (
            f"at the start {statistics.median(rows[0]['start_db']):.1f} dB, "
            f"controls off by {100 * statistics.median(rows[0]['start_error']):.0f} %"
        )
        made.append(Table(f"{task}, {rows[0]['controls']} controls; {start}", header, lines))
    if document["proxies"]:
        lines = [
            (row["stage"], f"{row['distance_over_identity']:.2f}", f"{row['seconds']:.0f}", str(row["calls"]))
            for row in document["proxies"]
        ]
        made.append(Table("training of the proxies", ("effect", "distance over identity", "seconds", "calls"), lines))
    return made


def _spread(values: Sequence[float], factor: float) -> str:
    """The median, with the least and the largest."""
    return f"{factor * statistics.median(values):.1f} ({factor * min(values):.1f} to {factor * max(values):.1f})"


def complaints(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What cannot be if the routes are right, however short the runs."""
    found = []
    for row in rows:
        name, cosine, left = f"{row['task']}, {row['route']}", row["cosine"], statistics.fmean(row["left"])
        if row["route"] in ("AD", "FD", "SPSA 16") and not left < 0.8:
            found.append(f"{name}: {100 * left:.0f} % of the loss is left, expected less than 80 %")
        if row["route"] == "FD" and cosine is not None and not min(cosine) > 0.98:
            found.append(f"{name}: cosine {min(cosine):.3f} to the true gradient, expected more than 0.98")
        if row["route"].startswith("SPSA"):
            # With one draw sqrt(2 / (pi P)); K draws give K of P directions at random, about sqrt(K / (K + P)).
            draws = int(row["route"].split()[1])
            least = 0.5 * math.sqrt(draws / (draws + row["controls"]))
            if not statistics.fmean(cosine) > least:
                found.append(f"{name}: cosine {statistics.fmean(cosine):.3f}, expected more than {least:.3f}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status, 1 if a route does what it cannot if it is right."""
    names = ("equaliser", "compressor", "chain", "plug-ins")
    parser = argparse.ArgumentParser("python -m benchmarks.gradient_routes", description=__doc__)
    parser.add_argument("--task", nargs="+", choices=names, default=names)
    parser.add_argument("--route", nargs="+", choices=ROUTES, default=ROUTES)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--learning-rate", type=float, help="that of the first step, on the scale of the controls")
    parser.add_argument("--quick", action="store_true", help="short runs of one seed, to see that all works")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    base = QUICK if options.quick else Size()
    size = base if options.learning_rate is None else replace(base, learning_rate=options.learning_rate)
    seeds = options.seeds if options.seeds is not None else range(1 if options.quick else 5)
    start = time.perf_counter()
    environment = report.environment()
    found = compare(tasks(options.task), options.route, seeds, size)
    seconds = time.perf_counter() - start
    print("\n\n".join(table.markdown() for table in tables(found)))
    print(f"\n{seconds:.0f} s")
    run = {"seeds": list(seeds), "seconds": seconds, **asdict(size)}
    if options.json is not None:
        report.write_json(options.json, {"schema": SCHEMA, "run": run, "environment": environment, **found})
    wrong = complaints(found["rows"])
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
