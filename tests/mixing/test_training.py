"""Recipes, the items and losses of a training, and the loop around them."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import dasp.io
import dasp.mixing
from dasp.gradients.checkpoints import read_checkpoint, write_checkpoint
from dasp.mixing import Controller, ControllerLoss, DeepSetController, Recipe, RecipeError, RecipeItems, train
from dasp.mixing.training import STATE, _Stretch, make_controller, step_size

TINY = """
sample_rate = 16000
[training]
steps = 4
batch_size = 2
validate_every = 2
validation_items = 2
[controller.options]
features = 8
hidden = 8
encoder_options = { channels = 8, blocks = 1, bands = 16 }
[data]
target = 1.0
reference = 1.0
fewest = 2
most = 3
seconds = 0.5
seeds = 3
cached = true
[loss]
audio_from_step = 1
"""

needs_lightning = pytest.mark.skipif(
    find_spec("lightning") is None or find_spec("tensorboard") is None, reason="Lightning is not installed"
)
# Lightning 2.6 calls what torch 2.13 has deprecated, and leaves its log files for the garbage collector.
quiet = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def loop(test):
    for mark in (needs_lightning, *quiet):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def tiny():
    return Recipe.parse(TINY)


def item(recipe, size=2):
    controller = make_controller(recipe)
    items = RecipeItems(recipe, controller.console, 8)
    return controller, next(iter(torch.utils.data.DataLoader(items, size)))


# ---- recipes


@pytest.mark.parametrize("path", sorted((Path(dasp.mixing.__file__).parent / "recipes").glob("*.toml")))
def test_recipes_that_come_with_dasp_can_be_followed(path):
    recipe = Recipe.read(path)
    if recipe.controller.start:
        # It begins from what another recipe has made.
        assert recipe.controller.start == "trained/controller.safetensors"
        recipe = replace(recipe, controller=replace(recipe.controller, start=""))
    controller = make_controller(recipe)
    ControllerLoss(recipe, controller.console)
    assert len(RecipeItems(recipe, controller.console, 3)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "training is missing"),
        ("[training]", "training.steps is missing"),
        ("[training]\nsteps = 0", "training.steps is 0, expected at least 1"),
        ("[training]\nsteps = 1.5", "training.steps is 1.5, expected a whole number"),
        ("[training]\nsteps = true", "training.steps is True, expected a whole number"),
        ("[training]\nsteps = 100\nlearning_rate = 'fast'", "training.learning_rate is 'fast', expected a number"),
        ("[training]\nsteps = 100\nlearning_rate = nan", "training.learning_rate is nan, expected a number"),
        ("[training]\nsteps = 100\nlearning_rate = 0", "training.learning_rate is 0, expected more than 0"),
        ("[training]\nsteps = 100\nstep = 1", "training.step is unknown, expected one of steps,"),
        ("tempo = 1\n[training]\nsteps = 100", "tempo is unknown, expected one of training, controller,"),
        ("training = 3", "training is 3, expected a table"),
        ("[training]\nsteps = 10", "training.validate_every is 100, expected a divisor of training.steps, 10"),
        ("[controller]\nkind = 'rnn'\n[training]\nsteps = 100", "controller.kind is 'rnn', expected one of deep_set"),
        ("[controller]\noptions = 3\n[training]\nsteps = 100", "controller.options is 3, expected a table"),
        ("[data]\ncached = 1\n[training]\nsteps = 100", "data.cached is 1, expected true or false"),
        ("[data]\nfolder = 1\n[training]\nsteps = 100", "data.folder is 1, expected a text"),
        ("[data]\ntarget = 0\n[training]\nsteps = 100", "data.target and data.reference are 0"),
        ("[data]\nfewest = 9\n[training]\nsteps = 100", "data.fewest is 9, expected at most data.most, 8"),
        ("[data]\nreference_dropped = 2\n[training]\nsteps = 100", "data.reference_dropped is 2.0"),
        ("[data]\nseeds = 600000\n[training]\nsteps = 100", "data.validation_seed is 500000: songs to validate on"),
        ("[data]\nown_mixes = true\n[training]\nsteps = 100", "data.own_mixes is set, expected data.folder"),
        ("[loss]\nresolutions = [1.5]\n[training]\nsteps = 100", r"loss.resolutions is \[1.5\], expected a list"),
        ("[loss]\ncontrol_weights = { a = -1 }\n[training]\nsteps = 100", 'loss.control_weights."a" is -1'),
        ("[loss]\ncontrols = 0\naudio_from_step = 5\n[training]\nsteps = 100", "loss.audio_from_step is 5"),
        ("[loss]\ncontrols = 0\nstft = 0\nfeatures = 0\n[training]\nsteps = 100", "expected a weight above 0"),
        ("[training", "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_with_its_key(text, message, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read"):
        Recipe.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[controller.options]\nwidth = 3", "controller.options: .*width"),
        ("[controller.options]\nfeatures = 0", "controller.options: .*features is 0"),
        ("[loss]\ncontrol_weights = { guitar = 1.0 }", "loss: .*'guitar'"),
    ],
)
def test_options_that_do_not_fit_are_recipe_errors(table, message):
    recipe = Recipe.parse(f"[training]\nsteps = 100\n{table}")
    with pytest.raises(RecipeError, match=message):
        ControllerLoss(recipe, make_controller(recipe).console)


def test_references_need_a_controller_that_listens():
    with pytest.raises(RecipeError, match=r"controller\.options\.reference is false"):
        Recipe.parse("[data]\nreference = 1\n[controller.options]\nreference = false\n[training]\nsteps = 100")


# ---- items, loss, step size


def test_items_are_the_same_whoever_draws_them_in_whatever_order(tiny):
    console = make_controller(tiny).console
    first, second = (RecipeItems(tiny, console, 8) for _ in range(2))
    late = second[5]
    for index in (0, 5):
        expected, found = first[index], late if index == 5 else second[index]
        assert torch.equal(expected["tracks"], found["tracks"])
        assert torch.equal(expected["target"], found["target"])
        assert torch.equal(expected["reference"], found["reference"])
    heard = [bool(first[index]["has_reference"]) for index in range(8)]
    assert any(heard)
    assert not all(heard)


def test_a_reference_is_dropped_as_often_as_a_recipe_says(tiny):
    console = make_controller(tiny).console
    data = replace(tiny.data, target=0.0, reference_dropped=1.0)
    dropped = RecipeItems(replace(tiny, data=data), console, 4)
    kept = RecipeItems(replace(tiny, data=replace(data, reference_dropped=0.0)), console, 4)
    assert not any(bool(dropped[i]["has_reference"]) or bool(dropped[i]["reference"].any()) for i in range(4))
    assert all(bool(kept[i]["has_reference"]) for i in range(4))
    assert torch.equal(dropped[1]["target"], kept[1]["target"])


def test_songs_to_validate_on_are_others(tiny):
    console = make_controller(tiny).console
    training, held_out = (RecipeItems(tiny, console, 4, validation) for validation in (False, True))
    seeds = [{s for d in items.sets.values() for s in d.songs.seeds} for items in (training, held_out)]
    assert not seeds[0] & seeds[1]
    assert not torch.equal(training[0]["target"], held_out[0]["target"])


def test_the_loss_of_the_controls_behind_the_target_is_nothing_but_for_references(tiny):
    controller, batch = item(replace(tiny, data=replace(tiny.data, reference=0.0)))
    terms = ControllerLoss(tiny, controller.console)(batch["controls"], batch)
    assert set(terms) == {"controls", "stft", "features", "loss"}
    assert max(float(term) for term in terms.values()) < 1e-3


def test_the_loss_is_the_weighted_sum_of_its_terms(tiny):
    controller, batch = item(tiny)
    loss = ControllerLoss(tiny, controller.console)
    controls = controller(batch["tracks"], batch["mask"])
    terms = loss(controls, batch)
    expected = sum(loss.weights[name] * term for name, term in terms.items() if name != "loss")
    torch.testing.assert_close(terms["loss"], expected)
    assert set(loss(controls, batch, audio=False)) == {"controls", "loss"}


def test_plain_modules_train_in_a_loop_of_ones_own(tiny):
    controller, batch = item(tiny)
    loss = ControllerLoss(tiny, controller.console)
    optimizer = torch.optim.Adam(controller.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        controls = controller(batch["tracks"], batch["mask"], batch["reference"], batch["has_reference"])
        total = loss(controls, batch)["loss"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_the_step_size_rises_and_falls_to_a_hundredth():
    recipe = Recipe.parse("[training]\nsteps = 100\nwarmup_steps = 9")
    sizes = [step_size(recipe)(step) for step in range(101)]
    assert sizes[0] == pytest.approx(0.1)
    assert max(sizes) == sizes[9] == 1.0
    assert sizes[100] == pytest.approx(0.01)
    assert all(a >= b for a, b in pairwise(sizes[9:]))


def test_processes_share_an_epoch_without_an_item_twice():
    parts = [_Stretch(12, rank, 3) for rank in range(3)]
    for epoch in (0, 2):
        for part in parts:
            part.set_epoch(epoch)
        assert sorted(i for part in parts for i in part) == list(range(12 * epoch, 12 * epoch + 12))
        assert [len(part) for part in parts] == [4, 4, 4]


def test_a_recipe_may_begin_from_a_controller(tiny, tmp_path):
    path = tmp_path / "start.safetensors"
    make_controller(tiny).save(path)
    text = f"sample_rate = 16000\n[training]\nsteps = 100\n[controller]\nstart = '{path.as_posix()}'"
    begun, first = make_controller(Recipe.parse(text)), make_controller(tiny)
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in begun.state_dict().items())
    assert begun.config == first.config
    with pytest.raises(RecipeError, match=r"controller\.start has its own"):
        Recipe.parse(f"{text}\noptions = {{ hidden = 3 }}")
    path.unlink()
    with pytest.raises(RecipeError, match=r"controller\.start: .*start\.safetensors"):
        make_controller(Recipe.parse(text))


# ---- the loop


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    if find_spec("lightning") is None:
        pytest.skip("Lightning is not installed")
    folder = tmp_path_factory.mktemp("trained")
    before = torch.get_rng_state()
    notices = []
    controller = train(tiny, folder, progress=False, notify=notices.append)
    assert torch.equal(torch.get_rng_state(), before), "training draws from the global generator"
    return folder, controller, notices


@loop
def test_training_writes_a_controller_a_state_and_logs(trained):
    folder, controller, notices = trained
    assert isinstance(controller, DeepSetController)
    assert not controller.training
    assert [notice.split(":")[0] for notice in notices] == ["step 2 of 4", "step 4 of 4"]
    rows = list(csv.DictReader((folder / "csv" / "version_0" / "metrics.csv").open()))
    assert [float(row["validation/loss"]) for row in rows if row["validation/loss"]]
    assert list((folder / "tensorboard" / "version_0").glob("events*"))
    untrained = make_controller(Recipe.parse(TINY)).state_dict()
    assert any(not torch.equal(value, untrained[name]) for name, value in controller.state_dict().items())


@loop
def test_an_interrupted_training_goes_on_to_the_same_controller(tiny, trained, tmp_path):
    reference = trained[1].state_dict()

    def interrupt(notice):
        if notice.startswith("step 4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, tmp_path, progress=False, notify=interrupt)
    assert (tmp_path / STATE).exists()
    resumed = train(tiny, tmp_path, resume=True, progress=False).state_dict()
    assert all(torch.equal(value, reference[name]) for name, value in resumed.items())
    states = [read_checkpoint(folder / STATE, "dasp.training 1")[0] for folder in (tmp_path, trained[0])]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@loop
def test_a_state_of_another_recipe_is_refused_with_the_key(tiny, trained):
    other = replace(tiny, training=replace(tiny.training, learning_rate=1.0))
    with pytest.raises(RecipeError, match=r"state\.ckpt: was trained with training\.learning_rate = 0\.001, not 1\.0"):
        train(other, trained[0], resume=True, progress=False)


@loop
def test_a_state_holds_tensors_and_text_and_nothing_that_runs(trained):
    tensors, notes = read_checkpoint(trained[0] / STATE, "dasp.training 1")
    assert notes["recipe"]["training"]["steps"] == 4
    assert tensors


@loop
def test_a_damaged_state_is_refused_with_its_name(tiny, tmp_path):
    write_checkpoint(tmp_path / STATE, {"a": torch.zeros(1)}, {}, "dasp.training 1")
    with pytest.raises(ValueError, match=r"state\.ckpt: has no training in it"):
        train(tiny, tmp_path, resume=True, progress=False)


def test_without_lightning_training_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ImportError, match=r"training needs lightning: pip install 'dasp\[train\]'"):
        train(tiny, tmp_path)
    assert not list(tmp_path.iterdir())


# ---- the controller that comes with dasp


MODEL = Path(dasp.mixing.__file__).parent / "models" / "small.safetensors"


@pytest.fixture(scope="module")
def pretrained():
    return Controller.pretrained()


def test_the_controller_that_comes_with_dasp_is_small_and_described():
    assert MODEL.stat().st_size < 5_000_000
    assert "held-out" in MODEL.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize("tracks", [4, 16])
def test_the_controller_that_comes_with_dasp_beats_simple_mixes(tracks, pretrained):
    console = pretrained.console
    songs = dasp.mixing.SynthSongs(range(600_000, 600_100), tracks)
    loss = dasp.mixing.StereoSTFTLoss(resolutions=(2048,))
    data = dasp.mixing.MixDataset(songs, console, "target", 2, seconds=2.0, max_tracks=tracks)
    found, simple = 0.0, 0.0
    for index in range(2):
        it = data[index]
        x, y = it["tracks"][it["mask"]], it["target"]
        with torch.no_grad():
            found += float(loss(console(x, pretrained(x)), y))
        flat = x.sum(0).expand(2, -1)
        simple += float(loss(flat * (y.square().mean() / flat.square().mean()).sqrt(), y))
    assert found < 0.7 * simple


def test_the_controller_that_comes_with_dasp_finds_nearly_the_same_at_another_sample_rate(pretrained):
    song = dasp.mixing.multitrack(700_000, 3.0, names=["kick", "bass", "voice"])
    with torch.no_grad():
        found = pretrained(song.tracks)["track"]
        other = Controller.pretrained(sample_rate=48000)(dasp.io.resample(song.tracks, 44100, 48000))["track"]
    # Half of a hundredth of the range of a control, of which a fader has 72 dB.
    assert (found - other).abs().mean() < 0.005
