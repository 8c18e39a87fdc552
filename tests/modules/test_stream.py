"""Processing in blocks: a stream equals one call on the whole."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import dasp.modules as M
from tests.cases import assert_close

RATE = 44100


def strip():
    # No control on a bound, where the sign of a gradient decides whether it passes, which may differ between blocks.
    return M.Chain(
        M.ParametricEQ(RATE, gain_db=6.0),
        M.Peaking(RATE, gain_db=-4.0),
        M.Peaking(RATE, gain_db=5.0, frequency_hz=3000.0),
        M.Compressor(RATE, threshold_db=-30.0, makeup_gain_db=3.0),
        M.Gain(RATE, gain_db=-2.0),
        M.StereoPanner(RATE, pan=0.3),
        M.NoiseShapedReverb(RATE, decay_s=0.06, mix=0.4, pre_delay_ms=5.0),
    )


def audio(samples=3000):
    return torch.randn(2, 1, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sizes", [[3000], [1, 2999], [500, 0, 1700, 800], [300] * 10])
def test_a_stream_of_a_strip_equals_the_whole_with_gradients_across_blocks(sizes):
    chain, x = strip().double(), audio()
    stream = M.Stream(chain)
    results = []
    for process in (
        lambda x: chain.process(x, {name: stage.controls() for name, stage in chain.stages().items()}),
        lambda x: torch.cat([stream(block) for block in x.split(sizes, -1)], -1),
    ):
        inputs = [x.clone().requires_grad_(), *chain.parameters()]
        y = process(inputs[0])
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        results.append((y.detach(), *torch.autograd.grad(y, inputs, weights)))
    for got, want in zip(*results, strict=True):
        # A gradient is a sum over the audio, whose terms round relative to their own size.
        assert_close(got, want, 1e-12, 10.0)


def test_a_stream_of_a_processor_forgets_when_it_is_reset():
    stream, x = M.Stream(M.Compressor(RATE, threshold_db=-30.0)), audio(200)
    first = stream(x)
    assert not torch.equal(stream(x), first)
    assert set(stream.state) == {"smoothed_gain"}
    stream.reset()
    assert torch.equal(stream(x), first)


def test_gradients_end_where_a_stream_is_detached():
    stream = M.Stream(M.Lowpass(RATE, frequency_hz=200.0))
    first, second = (audio(50).requires_grad_() for _ in range(2))
    stream(first)
    stream.detach()
    y = stream(second)
    assert torch.autograd.grad(y.sum(), [first, second], allow_unused=True)[0] is None


def test_what_a_stream_remembers_is_copied_and_pickled_but_no_parameter():
    stream, x = M.Stream(strip()), audio(100).float()
    with torch.no_grad():
        stream(x)
        copies = [copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]
        want = stream(x)
        assert all(torch.equal(other(x), want) for other in copies)
    assert set(stream.state_dict()) == {f"module.{name}" for name in strip().state_dict()}


def test_stages_of_one_kind_have_states_of_their_own():
    stream = M.Stream(strip())
    stream(audio(10).float())
    assert {"peaking.zi", "peaking_2.zi"} <= set(stream.state)


def test_what_is_no_processor_is_refused():
    with pytest.raises(TypeError, match="Stream: module is a Linear, expected a Processor or a Chain"):
        M.Stream(torch.nn.Linear(1, 1))


def test_blocks_of_other_channels_are_refused():
    stream = M.Stream(M.Lowpass(RATE))
    stream(torch.zeros(1, 10))
    with pytest.raises(ValueError, match="lowpass: state 'zi' has shape"):
        stream(torch.zeros(2, 10))
