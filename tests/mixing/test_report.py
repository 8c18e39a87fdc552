"""The report of a mix as one page."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch

import dasp.functional as F
import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole
from dasp.mixing.reporting import report

RATE = 44100
HOSTILE = [
    "a\"><script>alert('x')</script>\x1b[2J\u202e",
    "</pre></script>\n=cmd()`$(id)`",
    "🥁" * 3 + "x" * 300,
    "&lt;b&gt; {{ 7 * 7 }}",
]


def tracks(samples=RATE, count=4):
    generator = torch.Generator().manual_seed(0)
    swing = torch.linspace(0, 40, samples).sin().abs()
    noise = [torch.randn(1 + n % 2, samples, generator=generator) for n in range(count)]
    # What coding leaves out is not there from the start.
    return [0.1 * (1 + n) * swing * F.lowpass(x, RATE, 4000.0) for n, x in enumerate(noise)]


@pytest.fixture(scope="module")
def console():
    return DifferentiableMixingConsole(RATE)


@pytest.fixture(scope="module")
def page(console):
    stems = tracks()
    controls = console.random_controls(4, torch.Generator().manual_seed(1))
    reference = 0.2 * torch.stack([stems[0][0], stems[1][1]])
    return report(console, controls, HOSTILE, stems, reference, losses=[3.0, 2.0, 1.5], title="<i>A & B</i>")


def recordings(page):
    found = re.findall(r'<script type="text/plain" class="audio" data-key="(.)">([A-Za-z0-9+/=]+)</script>', page)
    return {key: soundfile.read(io.BytesIO(base64.b64decode(text)))[0].T for key, text in found}


def test_players_hold_stems_mix_and_reference_equally_loud_without_clipping(page):
    heard = recordings(page)
    assert list(heard) == ["A", "B", "R"]
    levels = [float(F.integrated_loudness(torch.from_numpy(audio.copy()), RATE)) for audio in heard.values()]
    assert np.ptp(levels) < 0.3  # what coding changes
    assert max(np.abs(audio).max() for audio in heard.values()) <= 1


def test_hostile_names_are_text_and_nothing_else(page):
    assert "<script>alert" not in page
    assert "<i>A" not in page
    assert "{{ 7 * 7 }}" in page
    assert "49" not in re.findall(r"<h3[^>]*>(.*?)</h3>", page)[3]
    shown = [html.unescape(name) for name in re.findall(r"<h3[^>]*>(.*?)</h3>", page, flags=re.DOTALL)]
    assert shown == [*HOSTILE, "reverb", "master"]


def test_halves_of_characters_are_question_marks(console):
    # Of files whose names are no text.
    page = report(console, console.default_controls(1), ["a\udcff"], tracks(count=1), title="\ud800")
    page.encode("utf-8")
    assert '<h3 title="a?">a?</h3>' in page
    assert "<title>?</title>" in page


@pytest.mark.parametrize(("rate", "heard"), [(88200, 44100), (96000, 48000), (192000, 48000)])
def test_players_of_high_rates_hold_as_little_as_others(rate, heard):
    console = DifferentiableMixingConsole(rate)
    tone = 0.1 * torch.sin(2 * np.pi * 1000 / rate * torch.arange(rate))[None]
    page = report(console, console.default_controls(1), ["x"], [tone])
    (text, _) = re.findall(r'class="audio" data-key=".">([A-Za-z0-9+/=]+)<', page)
    assert len(text) < 60_000
    x, found = soundfile.read(io.BytesIO(base64.b64decode(text)))
    assert found == heard
    spectrum = np.abs(np.fft.rfft(x[: heard // 2, 0]))
    assert 2 * spectrum.argmax() == 1000


def test_only_the_script_of_the_page_may_run(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy)
    assert policy.startswith("default-src 'none'")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http:" not in page
    assert "https:" not in page


def test_the_json_of_the_page_is_the_description(page, console):
    text = re.search(r'<pre id="json" tabindex="0">(.*?)</pre>', page, flags=re.DOTALL)[1]
    controls = console.random_controls(4, torch.Generator().manual_seed(1))
    assert json.loads(html.unescape(text)) == json.loads(json.dumps(console.describe(controls, HOSTILE)))


def test_every_strip_has_what_its_processors_have():
    console = DifferentiableMixingConsole(
        RATE,
        strip=M.Chain(M.Expander(RATE), M.Gain(RATE)),
        groups={"drums": M.Chain(M.ParametricEQ(RATE))},
        buses={},
        master=M.Chain(M.Distortion(RATE)),
    )
    stems = [track.mean(0, keepdim=True).expand(2, -1) for track in tracks(count=2)]
    page = report(console, console.default_controls(2), ["x", "y"], stems)
    assert [key for key, _ in recordings(page).items()] == ["A", "B"]
    assert page.count('aria-label="Fader of') == 2
    assert page.count("Level out over level in, expander") == 2
    assert page.count("Response of the equaliser") == 1
    assert "distortion" in page
    assert "Loss over" not in page


def test_gain_reduction_is_the_least_gain_of_each_stretch(console):
    stretch = -(-RATE // 240)
    # A burst begins in the middle of a stretch, in which the gain is 0 dB before it.
    loud = torch.zeros(1, RATE)
    loud[:, 100 * stretch + stretch // 2 : 101 * stretch] = 0.9
    values = console.denormalize(console.default_controls(1))
    values["track"]["compressor"]["ratio"] = torch.tensor([20.0])
    values["track"]["compressor"]["attack_ms"] = torch.tensor([0.1])
    page = report(console, console.normalize(values), ["x"], [loud])
    path = re.search(r'over time, compressor of x"><path class="b" d="M([^"]*)"', page)[1]
    places = [float(point.split()[1]) for point in path.split(" L")]
    static = 0.95 * (24 + 20 * np.log10(0.9))  # threshold -24 dB
    assert places[99] == 0
    assert places[100] == pytest.approx(min(100.0, 100 * static / 18), abs=2)
    assert places[-1] < 20


def test_of_long_songs_the_loudest_stretch_is_heard(console, monkeypatch):
    monkeypatch.setattr("dasp.mixing.reporting.LONGEST_S", 2.0)
    stems = tracks(6 * RATE, 1)
    stems[0][:, : 3 * RATE] *= 0.1
    page = report(console, console.default_controls(1), ["x"], stems)
    assert all(abs(audio.shape[-1] - 2 * RATE) < 3000 for audio in recordings(page).values())
    begin, end = re.search(r"measured from (\d+) to (\d+) s", page).groups()
    assert int(begin) >= 3
    assert int(end) - int(begin) == 2


def test_silence_is_reported_as_such(console):
    page = report(console, console.default_controls(1), ["x"], [torch.zeros(1, RATE)])
    assert page.count("<td>none</td>") >= 4


def test_a_report_shows_how_an_impulse_response_decays():
    # 60 dB in half of the 0.4 s: a straight line from the top to the middle of the box, and nothing beyond.
    time = torch.arange(round(0.4 * RATE)) / RATE
    response = (10 ** (-3 * time / 0.2)).expand(2, -1).contiguous()
    console = DifferentiableMixingConsole(
        RATE, buses={"room": M.Chain(M.ConvolutionReverb(RATE, impulse_response=response))}
    )
    page = report(console, console.default_controls(1), ["x"], tracks(count=1))
    assert "energy left, 0 to -60 dB over 0.40 s" in page
    path = re.search(
        r'Decay of the impulse response of convolution_reverb of room"><path class="b" d="M([^"]*)"', page
    )[1]
    places = np.array([[float(number) for number in point.split()] for point in path.split(" L")])
    x, y = places.T
    np.testing.assert_allclose(y, np.minimum(2 * x, 100), atol=0.2)


def test_names_that_are_not_as_many_as_tracks_are_refused(console):
    with pytest.raises(ValueError, match="report: got 1 names and 4 tracks"):
        report(console, console.default_controls(4), ["x"], tracks())


def test_a_browser_finds_nothing_to_complain_about(page, tmp_path):
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("there is no chromium")
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}"]
    done = subprocess.run([browser, *flags, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120)
    assert 'data-key="R"' in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr
