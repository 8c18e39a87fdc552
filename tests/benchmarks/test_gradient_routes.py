"""The comparison of the ways to a gradient."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gradient_routes as routes

RESULTS = json.loads((Path(__file__).parents[2] / "docs" / "gradient_routes.json").read_text())
TINY = routes.Size(samples=4096, steps=4, proxy_songs=1, proxy_steps=1, proxy_batch=1, proxy_samples=2048)


@pytest.fixture(scope="module")
def found():
    (task,) = routes.tasks(["compressor"])
    return routes.compare([task], routes.ROUTES, [0], TINY)


def row(found, route):
    return next(row for row in found["rows"] if row["route"] == route)


def test_every_route_of_a_task_has_a_row(found):
    assert [row["route"] for row in found["rows"]] == list(routes.ROUTES)
    assert [training["stage"] for training in found["proxies"]] == ["compressor"]


def test_calls_are_those_of_the_methods(found):
    calls = {row["route"]: row["calls"][0] for row in found["rows"]}
    forward = 4
    assert calls["AD"] == calls["full"] == forward
    assert calls["FD"] == forward * (1 + 2 * 6)
    assert calls["SPSA 16"] == forward * (1 + 2 * 16)
    assert calls["proxy"] == calls["half"] == 0


def test_finite_differences_have_the_direction_of_the_true_gradient(found):
    assert row(found, "AD")["cosine"] == pytest.approx([1])
    assert row(found, "FD")["cosine"] == pytest.approx([1], abs=0.02)


def test_a_half_hybrid_descends_as_its_proxy_and_is_heard_as_the_effect(found):
    half, proxy, full = (row(found, route) for route in ("half", "proxy", "full"))
    assert half["error"] == proxy["error"]
    assert half["final_db"] != proxy["final_db"]
    assert half["curve_db"][0] == full["curve_db"][0] == full["start_db"][0]


def test_wrong_routes_are_named():
    rows = [
        {"task": "t", "route": "AD", "controls": 9, "left": [0.9, 0.9], "cosine": [1.0, 1.0]},
        {"task": "t", "route": "FD", "controls": 9, "left": [0.1, 0.1], "cosine": [0.99, 0.5]},
        {"task": "t", "route": "SPSA 4", "controls": 9, "left": [0.1, 0.1], "cosine": [-0.1, 0.2]},
        {"task": "t", "route": "full", "controls": 9, "left": [2.0, 2.0], "cosine": [-0.5, -0.5]},
    ]
    assert [text.split(":")[0] for text in routes.complaints(rows)] == ["t, AD", "t, FD", "t, SPSA 4"]


def test_the_results_of_the_documentation_are_of_a_whole_run():
    assert RESULTS["schema"] == routes.SCHEMA
    assert RESULTS["run"]["steps"] == routes.Size().steps
    assert RESULTS["run"]["seeds"] == list(range(5))
    assert {row["task"] for row in RESULTS["rows"]} == {"equaliser", "compressor", "chain", "plug-ins"}
    assert not routes.complaints(RESULTS["rows"])


def test_the_tables_show_every_row():
    made = routes.tables(RESULTS)
    assert sum(len(table.lines) for table in made) == len(RESULTS["rows"]) + len(RESULTS["proxies"])
