"""Workers: threads and processes that call an effect, and what becomes of them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import dasp
from dasp.gradients import EffectError, NumpyEffect, spsa
from tests.gradients import black_boxes
from tests.gradients.black_boxes import GAIN, Lasting, Recursive, Slow, gain, noise_of_seed, noise_of_torch, numpy_gain

# A process imports torch before it does anything; the longest wait of these tests.
LIMIT_S = 60


def inputs(items=3, low=0.1, high=0.4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(items, 1, 8, generator=generator, dtype=torch.float64)
    # No view, but a leaf as users make it: of that a view in a forward pass needs a gradient.
    return x, torch.linspace(low, high, items, dtype=torch.float64)[:, None].clone().requires_grad_()


def gradient(estimate, x, u):
    y = estimate(x, u)
    return y.detach(), torch.autograd.grad((y * x).sum(), u)[0]


def alone(effect, **options):
    return spsa(effect, num_draws=2, batched=False, **options)


@pytest.mark.parametrize("effect", [gain, Recursive(), noise_of_seed, NumpyEffect(numpy_gain, 44100, GAIN)])
def test_threads_give_the_same_bits_as_one_call_after_another(effect):
    with spsa(effect, num_draws=2, workers=3) as estimate:
        for got, want in zip(gradient(estimate, *inputs()), gradient(alone(effect), *inputs()), strict=True):
            assert torch.equal(got, want)


def test_threads_work_side_by_side_each_with_an_instance_of_its_own():
    log = []
    with spsa(Slow(log), num_draws=4, workers=4) as estimate:
        gradient(estimate, *inputs())
    assert len(log) == estimate.num_calls == 3 + 3 * 8
    instances = {instance for _, instance in log}
    assert 1 < len(instances) <= 4
    assert threading.get_ident() not in {thread for thread, _ in log}


def test_an_effect_with_state_that_cannot_be_copied_is_refused():
    class Locked(Recursive):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match=r"^spsa: effect has state and cannot be copied .* give it a method copy\(\)"):
        gradient(spsa(Locked(), workers=2), *inputs())


def test_threads_refuse_effects_that_draw_from_the_global_generators():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="global random generators, which threads share: use backend='process'"):
        spsa(noise_of_torch, workers=2)(*inputs())
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_name_the_draw_that_failed_and_go_on_afterwards():
    x, u = inputs(high=0.4995)
    with spsa(black_boxes.raises, workers=2) as estimate:
        y = estimate(x, u)
        with pytest.raises(EffectError, match=r"ArithmeticError: too loud; at draw 1 of 1, .*item \(2,\).* 0.5005"):
            y.sum().backward()
        assert torch.equal(estimate(x, u * 0.5), gain(x, u * 0.5))


def test_threads_end_with_the_estimate():
    estimate = spsa(gain, workers=3)
    estimate(*inputs())
    assert any(thread.name.startswith("effect") for thread in threading.enumerate())
    del estimate
    assert not any(thread.name.startswith("effect") for thread in threading.enumerate())


def test_processes_give_the_same_as_one_call_after_another_and_name_errors_and_dead_workers():
    x = inputs(2)[0]
    with spsa(black_boxes.fragile, num_draws=2, workers=2, backend="process") as estimate:
        serial = alone(black_boxes.fragile)
        for _ in range(2):
            for got, want in zip(gradient(estimate, *inputs()), gradient(serial, *inputs()), strict=True):
                assert torch.equal(got, want)
        with pytest.raises(EffectError, match=r"raised ArithmeticError: too loud; at the forward call, item \(1,\)"):
            estimate(x, torch.tensor([[0.1], [0.6]], dtype=torch.float64))
        dead = r"failed: worker [01] \(process \d+\) died with exit code 7; at the forward call, item \(1,\)"
        with pytest.raises(EffectError, match=dead):
            estimate(x, torch.tensor([[0.1], [0.7]], dtype=torch.float64))
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("effect")]


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_others_begin_anew():
    x, u = inputs(2)
    with spsa(black_boxes.fragile, workers=2, backend="process", timeout_s=2.0) as estimate:
        start = time.monotonic()
        late = r"failed: worker [01] \(process \d+\) did not answer within 2 s and was ended; .*with controls 0.8"
        with pytest.raises(EffectError, match=late):
            estimate(x, torch.tensor([[0.1], [0.8]], dtype=torch.float64))
        assert time.monotonic() - start < LIMIT_S
        assert torch.equal(estimate(x, u), spsa(black_boxes.fragile, batched=False, generator=skipped(1))(x, u))


def test_a_process_that_is_ended_leaves_nothing_behind(tmp_path):
    x, u = inputs(1)
    with spsa(Lasting(tmp_path / "ended"), workers=1, backend="process", timeout_s=0.5) as estimate:
        with pytest.raises(EffectError, match="was ended"):
            estimate(x, u)
        assert (tmp_path / "ended").exists()


def skipped(calls):
    """A generator from which an estimate of seed 0 has taken the seeds of some calls."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(calls):
        torch.randint(2**31, (), generator=generator)
    return generator


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "from dasp.gradients import spsa\n"
        "from tests.gradients.black_boxes import gain\n"
        "spsa(gain, workers=1, backend='process')(torch.zeros(1, 1, 8), torch.zeros(1, 1))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(dasp.__file__).resolve().parent.parent)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 1
    assert "died with exit code 1: a script that uses processes needs" in done.stderr


def test_an_effect_that_cannot_be_pickled_is_refused():
    with pytest.raises(TypeError, match=r"^spsa: effect cannot be sent to a process .*: use backend='thread'"):
        spsa(lambda x, u: x, workers=1, backend="process")(*inputs())
