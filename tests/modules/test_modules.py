"""Modules derived from declarations, and chains of them."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch

import dasp
import dasp.functional as F
import dasp.modules as M

RATE = 44100


@pytest.fixture
def x():
    return 0.3 * torch.randn(2, 1, 2000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def chain():
    return M.Chain(M.ParametricEQ(RATE), M.Compressor(RATE, threshold_db=-30.0), M.StereoPanner(RATE, pan=0.3))


def test_controls_are_those_given_and_defaults_elsewhere(x):
    module = M.Compressor(RATE, threshold_db=-30.0, ratio=8.0, link="mean")
    expected = F.compressor(x, RATE, threshold_db=-30.0, ratio=8.0, link="mean")
    # Normalised controls are rounded to float32.
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


def test_exact_controls_are_those_given_without_the_rounding_of_parameters():
    module = M.Gain(RATE, gain_db=0.0)
    assert module.exact().dtype == torch.float64
    assert float(module.denormalize(module.exact())["gain_db"]) == pytest.approx(0.0, abs=1e-13)
    assert abs(float(module.denormalize(module.flat().double().detach())["gain_db"])) > 1e-7
    with torch.no_grad():
        module.gain_db_normalized.fill_(0.3)
    assert torch.equal(module.exact(), module.flat().double())
    chain = M.Chain(module, M.ParametricEQ(RATE))
    torch.testing.assert_close(chain.exact(), chain.flat().double(), atol=1e-7, rtol=0)


def test_a_processor_without_controls_and_with_latency_stands_in_a_chain(x):
    def lookahead(x: torch.Tensor, sample_rate: float, samples: int = 3) -> torch.Tensor:
        return torch.nn.functional.pad(x, (samples, 0))[..., : x.shape[-1]]

    dasp.processor(linear=True)(lookahead)
    try:

        class Lookahead(M.Processor, function=lookahead):
            @property
            def latency(self):
                return self.options["samples"]

        chain = M.Chain(Lookahead(RATE), M.Gain(RATE), Lookahead(RATE, samples=5))
        assert chain.latency == 8
        assert (chain.num_controls, chain.flat().shape, chain.exact().shape) == (1, (1,), (1,))
        u = chain.normalize({"gain": {"gain_db": torch.tensor([0.0, 24.0], dtype=torch.float64)}})
        y = chain.process_normalized(x.double(), u)
        torch.testing.assert_close(y[0, ..., 8:], x[0, ..., :-8].double(), atol=1e-12, rtol=0)
        assert not y[..., :8].any()
    finally:
        del dasp.PROCESSORS["lookahead"]
    assert M.Compressor(RATE).latency == M.Chain(M.Compressor(RATE)).latency == 0


def test_signature_is_that_of_the_function():
    assert str(inspect.signature(M.Expander)).startswith("(sample_rate, *, threshold_db=-40.0, ratio=2.0")


def test_learning_finds_a_threshold(x):
    target = F.compressor(x, RATE, threshold_db=-40.0)
    module = M.Compressor(RATE, threshold_db=-20.0)
    adam = torch.optim.Adam([module.threshold_db_normalized], lr=0.01)
    for _ in range(120):
        adam.zero_grad()
        (module(x) - target).square().mean().backward()
        adam.step()
    assert module.controls()["threshold_db"].item() == pytest.approx(-40.0, abs=1.0)


def test_a_control_that_starts_on_a_bound_leaves_it_and_never_goes_beyond(x):
    target = F.distortion(x, RATE, drive_db=12.0)
    module = M.Distortion(RATE)
    assert module.controls()["drive_db"].item() == 0.0
    adam = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        adam.zero_grad()
        (module(x) - target).square().mean().backward()
        adam.step()
    assert module.controls()["drive_db"].item() == pytest.approx(12.0, abs=1.0)
    module = M.Distortion(RATE)
    (-(module(x).square().mean())).backward()
    assert module.drive_db_normalized.grad.item() < 0
    (module(x).square().mean()).backward()
    module.zero_grad()
    (module(x).square().mean()).backward()
    assert module.drive_db_normalized.grad.item() == 0


def test_project_clamps_and_lets_gradients_pass_inward_only():
    u = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], requires_grad=True)
    assert M.project(u).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    (up,) = torch.autograd.grad(M.project(u).sum(), u)
    (down,) = torch.autograd.grad(-M.project(u).sum(), u)
    # A descent step goes against the gradient: -1 leads up, which is inward from below.
    assert up.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert down.tolist() == [-1.0, -1.0, -1.0, 0.0, 0.0]


def test_process_normalized_is_process_with_denormalized_controls(x):
    module = M.Peaking(RATE)
    u = torch.rand(2, module.num_controls, generator=torch.Generator().manual_seed(1))
    controls = module.denormalize(u)
    assert torch.equal(module.process_normalized(x, u), F.peaking(x, RATE, **controls))
    torch.testing.assert_close(module.normalize(controls), u, atol=1e-6, rtol=0)
    assert module.control_names == ["frequency_hz", "gain_db", "q"]


def test_repr_is_in_physical_units():
    assert repr(M.Gain(RATE, gain_db=-6.0)) == "Gain(sample_rate=44100, gain_db=-6)"
    assert "frequency_hz=[80, 200, 600, 2000, 5000, 1e+04]" in repr(M.ParametricEQ(RATE))


def test_bands_follow_the_option_that_names_them(x):
    module = M.ParametricEQ(RATE, kinds=("highpass", "peaking"), frequency_hz=[50.0, 900.0], gain_db=[0.0, 3.0])
    assert module.num_controls == 6
    assert module.control_names[:2] == ["frequency_hz[0]", "frequency_hz[1]"]
    expected = F.parametric_eq(x, RATE, [50.0, 900.0], [0.0, 3.0], kinds=("highpass", "peaking"))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


def test_signals_are_buffers(x):
    response = torch.tensor([[0.0, 0.0, 1.0]])
    module = M.ConvolutionReverb(RATE, impulse_response=response)
    assert "impulse_response" in module.state_dict()
    torch.testing.assert_close(module(x)[..., 2:], x[..., :-2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [8000, 16000, 192000])
def test_every_module_can_be_made_at_every_rate(rate):
    for cls in M.Processor.__subclasses__():
        signals = {name: torch.ones(1, 1) for name in cls.spec.signals}
        channels = cls.spec.channels[0] if cls.spec.channels else 2
        audio = torch.randn(*([2] if cls.spec.tracks else []), channels, 100)
        assert torch.isfinite(cls(rate, **signals)(audio)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_move_to_other_types(chain, x, dtype):
    expected = chain(x)
    moved = chain.to(dtype)(x.to(dtype))
    assert moved.dtype == dtype
    # Half types round the audio and the controls.
    tolerance = 0.1 if dtype != torch.float64 else 1e-5
    assert (moved.float() - expected).abs().max() <= tolerance * expected.abs().max()


def test_pickle_deepcopy_and_state_dict_give_the_same_module(chain, x):
    expected = chain(x)
    assert torch.equal(pickle.loads(pickle.dumps(chain))(x), expected)
    assert torch.equal(copy.deepcopy(chain)(x), expected)
    other = M.Chain(M.ParametricEQ(RATE), M.Compressor(RATE), M.StereoPanner(RATE))
    other.load_state_dict(chain.state_dict(), strict=True)
    assert torch.equal(other(x), expected)


def test_a_chain_is_its_processors_one_after_the_other(chain, x):
    expected = x
    for stage in chain:
        expected = stage(expected)
    assert torch.equal(chain(x), expected)
    u = torch.rand(2, chain.num_controls, generator=torch.Generator().manual_seed(2))
    expected = x
    for stage, part in zip(chain, u.split([stage.num_controls for stage in chain], -1), strict=True):
        expected = stage.process_normalized(expected, part)
    assert torch.equal(chain.process_normalized(x, u), expected)


def test_a_chain_has_one_flat_vector(chain):
    assert chain.num_controls == 18 + 6 + 1 == len(chain.control_names) == chain.flat().shape[0]
    assert chain.control_names[-1] == "stereo_panner.pan"
    controls = chain.denormalize(chain.flat())
    assert controls["compressor"]["threshold_db"].item() == pytest.approx(-30.0, abs=1e-4)
    torch.testing.assert_close(chain.normalize(controls), chain.flat(), atol=1e-6, rtol=0)


def test_stages_of_one_kind_are_numbered():
    chain = M.Chain(M.Peaking(RATE), M.Highpass(RATE), M.Peaking(RATE))
    assert list(chain.stages()) == ["peaking", "highpass", "peaking_2"]


def test_a_chain_compiles_whole(chain, x):
    compiled = torch.compile(chain, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), chain(x), atol=1e-6, rtol=1e-5)


def exported(module, arguments, dynamic):
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, arguments, dynamic_shapes=dynamic), file)
    file.seek(0)
    return torch.export.load(file).module()


def test_a_chain_is_exported_for_any_batch_and_length_with_its_parameters(chain, x):
    batch, samples = torch.export.Dim("batch", min=1), torch.export.Dim("samples", min=1)
    program = exported(chain, (x,), ({0: batch, 2: samples},))
    for audio in (x, x[:1, :, :77], x.repeat(3, 1, 2)):
        torch.testing.assert_close(program(audio), chain(audio), atol=1e-6, rtol=1e-5)
    assert set(program.state_dict()) == set(chain.state_dict())
    with torch.no_grad():
        for module in (program, chain):
            for parameter in module.parameters():
                parameter.fill_(0.4)
    torch.testing.assert_close(program(x), chain(x), atol=1e-6, rtol=1e-5)


def make(cls):
    return cls(RATE, **{name: torch.randn(1, 20) for name in cls.spec.signals})


def audio_for(cls, batch, samples):
    channels = cls.spec.channels[0] if cls.spec.channels else 2
    return torch.randn(batch, *([3] if cls.spec.tracks else []), channels, samples)


@pytest.mark.slow
@pytest.mark.parametrize("cls", M.Processor.__subclasses__())
def test_every_module_is_exported_and_compiles_whole(cls):
    module = make(cls)
    x = audio_for(cls, 2, 100)
    batch, samples = torch.export.Dim("batch", min=1), torch.export.Dim("samples", min=1)
    program = exported(module, (x,), ({0: batch, x.ndim - 1: samples},))
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((2, 100), (5, 333), (3, 7)):
        x = audio_for(cls, *size)
        expected = module(x)
        torch.testing.assert_close(program(x), expected, atol=1e-6, rtol=1e-5)
        got = compiled(x)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
        parameters = list(module.parameters())
        for grads in zip(*(torch.autograd.grad(y.sum(), parameters) for y in (got, expected)), strict=True):
            torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: M.Gain(0), ValueError, "sample_rate is 0"),
        (lambda: M.Gain("fast"), TypeError, "sample_rate is a str"),
        (lambda: M.Gain(RATE, volume=1), TypeError, "unknown argument volume"),
        (lambda: M.Gain(RATE, gain_db=99.0), ValueError, "gain_db is 99.0, expected -48 to 24 dB"),
        (lambda: M.Gain(RATE, gain_db=[1.0, 2.0]), ValueError, r"gain_db has shape \(2,\), expected \(\)"),
        (lambda: M.ParametricEQ(RATE, q=[1.0]), ValueError, r"q has shape \(1,\), expected \(\) or \(6,\)"),
        (lambda: M.ConvolutionReverb(RATE), TypeError, "impulse_response is missing"),
        (lambda: M.Chain(), ValueError, "at least one processor"),
        (lambda: M.Chain(torch.nn.Identity()), TypeError, "a stage is a Identity"),
        (lambda: M.Chain(M.Gain(RATE), M.Gain(48000)), ValueError, "sample_rate differs"),
        (lambda: M.Chain(M.Gain(RATE)).split(torch.zeros(2)), ValueError, r"u has shape \(2,\), expected 1"),
        (lambda: M.Chain(M.Gain(RATE)).normalize({"pan": {}}), ValueError, "pan is not a stage"),
        (lambda: M.Gain(RATE).denormalize(torch.zeros(2)), ValueError, r"u has shape \(2,\), expected 1"),
        (lambda: M.Gain(RATE).normalize({"level": 1.0}), ValueError, "level is not a control"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_every_subclass_is_public():
    # Those that tests have made may still be there.
    for cls in (cls for cls in M.Processor.__subclasses__() if cls.__module__.startswith("dasp.")):
        assert cls.__name__ in M.__all__
        assert dasp.PROCESSORS[cls.spec.name].function is cls.function


def test_a_part_of_a_chain_is_a_chain_of_the_same_stages():
    chain = M.Chain(M.Gain(RATE), M.Compressor(RATE), M.StereoPanner(RATE))
    part = chain[1:]
    assert isinstance(part, M.Chain)
    assert list(part) == [chain[1], chain[2]]
    with pytest.raises(ValueError, match="expected at least one processor"):
        chain[:0]
