"""Audio files: what is read, what is refused and how, and outputs that are whole or not there."""

import math
import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dasp import io
from dasp.io import (
    AudioFileError,
    OutputExistsError,
    TrackReader,
    atomic,
    find_stems,
    inspect,
    load,
    load_excerpt,
    load_tracks,
    resample,
    save,
    writer,
)


def tone(samples: int = 1000, channels: int = 2) -> torch.Tensor:
    t = torch.arange(samples) / 48000
    return torch.stack([0.5 / (c + 1) * torch.sin(2 * math.pi * 440 * t) for c in range(channels)])


@pytest.fixture
def wav(tmp_path: Path) -> bytearray:
    """A valid stereo PCM_16 file of 1000 frames with its header of 44 bytes."""
    path = tmp_path / "valid.wav"
    soundfile.write(path, tone().T.numpy(), 48000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    assert len(data) == 4044
    return data


def patched(data: bytearray, offset: int, form: str, value: int) -> bytes:
    data = bytearray(data)
    struct.pack_into(form, data, offset, value)
    return bytes(data)


def refusal(path: Path) -> str:
    """The text with which a file is refused: one line that names it."""
    with pytest.raises(AudioFileError) as caught:
        load(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    return text


MUTATIONS = {
    "empty": lambda d: b"",
    "random": lambda d: np.random.default_rng(0).bytes(4096),
    "header only": lambda d: bytes(d[:44]),
    "part of the header": lambda d: bytes(d[:40]),
    "sample rate 0": lambda d: patched(d, 24, "<I", 0),
    "sample rate 2^32 - 1": lambda d: patched(d, 24, "<I", 2**32 - 1),
    "no channels": lambda d: patched(d, 22, "<H", 0),
    "65535 channels": lambda d: patched(d, 22, "<H", 65535),
    "no bits": lambda d: patched(d, 34, "<H", 0),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_malformed_file_is_refused(name, wav, tmp_path):
    path = tmp_path / "bad.wav"
    path.write_bytes(MUTATIONS[name](wav))
    refusal(path)


def test_half_a_file_is_read_with_a_notice(wav, tmp_path):
    path = tmp_path / "half.wav"
    path.write_bytes(wav[: len(wav) // 2])
    notices: list[str] = []
    audio = load(path, notices.append)
    assert audio.samples.shape == (2, 494)
    assert len(notices) == 1
    assert "half.wav: is truncated" in notices[0]


@pytest.mark.parametrize("suffix", ["aiff", "w64", "rf64", "mp3"])
def test_truncation_is_noticed_in_other_formats(suffix, tmp_path):
    path = tmp_path / f"half.{suffix}"
    save(path, tone(48000), 48000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    notices: list[str] = []
    assert 0 < load(path, notices.append).samples.shape[1] < 48000
    assert len(notices) == 1


def test_truncated_flac_is_refused(tmp_path):
    path = tmp_path / "half.flac"
    save(path, tone(48000), 48000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refusal(path)


def test_data_size_that_lies_is_clamped(wav, tmp_path):
    path = tmp_path / "lies.wav"
    path.write_bytes(patched(wav, 40, "<I", 0xFFFFFFF0))
    assert load(path).samples.shape == (2, 1000)


def test_whole_files_give_no_notice(wav, tmp_path):
    notices: list[str] = []
    for suffix in ("wav", "w64", "rf64", "flac", "aiff", "ogg", "opus", "mp3"):
        path = tmp_path / f"whole.{suffix}"
        save(path, tone(), 48000, notify=notices.append)
        load(path, notices.append)
    piped = tmp_path / "piped.wav"
    piped.write_bytes(patched(wav, 4, "<I", 2**32 - 1))
    load(piped, notices.append)
    assert notices == []


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mutation_is_read_or_refused(data, wav, tmp_path):
    mutated = bytearray(wav)
    for _ in range(data.draw(st.integers(1, 6))):
        mutated[data.draw(st.integers(0, 47))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutated.wav"
    path.write_bytes(bytes(mutated[: data.draw(st.integers(0, len(mutated)))]))
    with suppress(AudioFileError):
        assert torch.isfinite(load(path).samples).all()


@pytest.mark.parametrize(
    ("bad", "frame", "channel", "word"),
    [(math.nan, 0, 1, "NaN"), (math.inf, 0, 2, "infinite"), (-math.inf, 700, 2, "infinite"), (math.nan, 999, 1, "NaN")],
)
def test_first_sample_that_is_not_finite_is_named(bad, frame, channel, word, tmp_path):
    samples = tone().T.numpy().copy()
    samples[frame, channel - 1] = bad
    samples[999, 1] = math.nan
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, 1000, subtype="FLOAT")
    assert f"sample {frame} ({frame / 1000:.3f} s) of channel {channel} is {word}" in refusal(path)


def test_double_beyond_float32_is_refused(tmp_path):
    path = tmp_path / "huge.wav"
    soundfile.write(path, np.full((8, 1), 1e300), 48000, subtype="DOUBLE")
    assert "infinite" in refusal(path)


def test_what_is_no_file_is_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "missing.wav")
    folder = tmp_path / "folder.wav"
    folder.mkdir()
    assert "is a directory" in refusal(folder)
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    assert "no regular file" in refusal(pipe)
    loop = tmp_path / "loop.wav"
    loop.symlink_to(loop)
    refusal(loop)
    with pytest.raises(AudioFileError, match="null"):
        load("a\0b.wav")


@pytest.mark.parametrize(
    ("channels", "rate", "text"), [(65, 48000, "65 channels"), (1, 400_000, "400000 Hz"), (1, 48000, "no samples")]
)
def test_limits_are_named(channels, rate, text, tmp_path):
    path = tmp_path / "limit.wav"
    soundfile.write(path, np.zeros((0 if "no" in text else 8, channels)), rate)
    assert text in refusal(path)


def test_formats_beyond_the_list_are_refused(tmp_path):
    path = tmp_path / "sneaky.wav"
    soundfile.write(path, np.zeros((8, 1)), 48000, format="VOC", subtype="PCM_16")
    assert "is a VOC file" in refusal(path)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("flac", None, 2**-24),
        ("aiff", "PCM_24", 2**-23),
        ("w64", None, 0),
        ("rf64", None, 0),
        ("wav", None, 0),
        ("wav", "DOUBLE", 0),
        ("wav", "PCM_16", 2**-15),
        # Lossy: the tone is there at -30 dB of its level, away from the ends.
        ("ogg", "VORBIS", 0.015),
        ("opus", None, 0.015),
        ("ogg", "OPUS", 0.015),
        ("mp3", None, 0.02),
    ],
)
def test_round_trip(suffix, subtype, tolerance, tmp_path):
    x = tone(48000)
    path = tmp_path / f"round.{suffix}"
    save(path, x, 48000, subtype)
    y, sample_rate = load(path)
    assert sample_rate == 48000
    assert y.dtype == torch.float32
    assert y.is_contiguous()
    assert y.shape == x.shape
    inner = slice(4000, -4000) if suffix in ("ogg", "opus", "mp3") else slice(None)
    assert (x - y)[:, inner].abs().max() <= tolerance


def test_long_vorbis_file_is_written(tmp_path):
    path = tmp_path / "long.ogg"
    save(path, torch.zeros(1, 4_000_000), 8000)
    assert load(path).samples.shape == (1, 4_000_000)


def test_clipping_is_noticed_and_float_does_not_clip(tmp_path):
    x = torch.tensor([[1.5, -1.5, 0.5]])
    notices: list[str] = []
    save(tmp_path / "float.wav", x, 48000, notify=notices.append)
    assert notices == []
    assert torch.equal(load(tmp_path / "float.wav").samples, x)
    save(tmp_path / "integer.wav", x, 48000, "PCM_16", notify=notices.append)
    assert len(notices) == 1
    assert "integer.wav: 2 of 3 samples clipped, the peak was +3.5 dBFS" in notices[0]
    assert load(tmp_path / "integer.wav").samples.abs().max() <= 1


def test_save_refuses_what_does_not_fit(tmp_path):
    x = tone()
    for name, bad, rate, subtype, text in (
        ("a.txt", x, 48000, None, "no suffix"),
        ("a.wav", x, 48000, "VORBIS", "subtype is 'VORBIS'"),
        ("a.opus", x, 44100, None, "8000, 12000"),
        ("a.wav", x[0], 48000, None, "channels"),
        ("a.wav", x[None], 48000, None, "channels, samples"),
        ("a.wav", x * math.nan, 48000, None, "NaN"),
    ):
        with pytest.raises(ValueError, match=text):
            save(tmp_path / name, bad, rate, subtype)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept_without_force(tmp_path):
    path = tmp_path / "mix.wav"
    save(path, tone(10), 48000)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"mix\.wav: exists already"):
        save(path, tone(20), 48000)
    assert path.read_bytes() == before
    save(path, tone(20), 48000, force=True)
    assert load(path).samples.shape == (2, 20)
    assert os.listdir(tmp_path) == ["mix.wav"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_folder_as_it_was(error, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("before")

    def interrupted() -> None:
        with atomic(path, force=True) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.json"]


def test_output_appears_whole(tmp_path):
    path = tmp_path / "report.json"
    with atomic(path) as temporary:
        temporary.write_text("{}")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        assert not path.exists()
    assert path.read_text() == "{}"
    assert os.listdir(tmp_path) == ["report.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_output_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "report.json"

    def overtaken() -> None:
        with atomic(path) as temporary:
            temporary.write_text("mine")
            path.write_text("theirs")

    with pytest.raises(OutputExistsError):
        overtaken()
    assert path.read_text() == "theirs"


def test_output_is_written_through_a_link(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    with atomic(link) as temporary:
        temporary.write_text("text")
    assert link.is_symlink()
    assert target.read_text() == "text"


def test_output_must_be_a_regular_file_in_a_folder(tmp_path):
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(OutputExistsError, match="not a regular file"), atomic(path, force=True):
            pass
    with pytest.raises(FileNotFoundError, match=r"missing/a\.txt"), atomic(tmp_path / "missing" / "a.txt"):
        pass


NAMES = ["with space", "Gitarre ä", "-dash", 'quote\'s "x"', "~", "日本", "new\nline", "a'b`c", "...dots", "-"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_file_names_are_written_read_and_found(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.wav")
    save(path, tone(), 48000)
    assert torch.equal(load(path).samples, tone())
    ((found, where),) = find_stems([path])
    assert where == path
    assert found.isprintable()
    path.write_bytes(b"")
    with pytest.raises(AudioFileError) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("rate", "target"), [(44100, 48000), (48000, 44100), (44100, 96000), (96000, 44100)])
def test_resampling_is_exact_to_100_db(rate, target):
    def signal(sample_rate: int, samples: int) -> torch.Tensor:
        t = torch.arange(samples, dtype=torch.float64) / sample_rate
        return (0.5 * torch.sin(2 * math.pi * 997 * t) + 0.3 * torch.sin(2 * math.pi * 15000 * t))[None]

    y = resample(signal(rate, rate), rate, target)
    wanted = signal(target, target)
    assert y.shape == wanted.shape
    error = (y - wanted)[:, 4000:-4000]
    snr_db = 10 * math.log10(float(wanted.square().mean() / error.square().mean()))
    assert snr_db > 110


def test_resampling_removes_what_would_alias():
    t = torch.arange(96000, dtype=torch.float64) / 96000
    y = resample(torch.sin(2 * math.pi * 23000 * t)[None], 96000, 44100)
    # 120 dB by design of the filter.
    assert y[:, 4000:-4000].abs().max() < 10 ** (-115 / 20)


@given(
    samples=st.integers(0, 300), rates=st.lists(st.sampled_from([8000, 44100, 48000, 96000]), min_size=2, max_size=2)
)
@settings(max_examples=40, deadline=None)
def test_resampled_length_is_exact(samples, rates):
    x = torch.zeros(2, 3, samples)
    rate, target = rates
    y = resample(x, rate, target)
    assert y.shape == (2, 3, -(-samples * target // rate))
    assert y.dtype == x.dtype


def test_resampling_refuses_rates_that_are_not_whole():
    with pytest.raises(TypeError, match="whole number"):
        resample(tone(), 44100.5, 48000)
    with pytest.raises(ValueError, match="above 0"):
        resample(tone(), 44100, 0)


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        save(folder / name, tone(), 48000)


def test_stems_of_a_folder_are_sorted_and_named(tmp_path):
    touch(tmp_path, "10_keys.wav", "2_bass.flac", "1_kick.WAV", ".hidden.wav")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder.wav").mkdir()
    stems = find_stems(tmp_path)
    assert [name for name, _ in stems] == ["1_kick", "2_bass", "10_keys"]
    assert stems[0][1] == tmp_path / "1_kick.WAV"


def test_equal_names_are_numbered_and_equal_files_are_one(tmp_path):
    touch(tmp_path / "a", "kick.wav", "kick.flac", "Kick 2.wav")
    touch(tmp_path / "b", "KICK.wav")
    stems = find_stems([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "kick.wav"])
    assert [name for name, _ in stems] == ["Kick 2", "kick", "kick 3", "KICK 4"]
    assert len({name.casefold() for name, _ in stems}) == 4


def test_names_are_short_printable_and_not_empty(tmp_path):
    names = [
        name for name, _ in find_stems([tmp_file(tmp_path, n) for n in ("x" * 200, "a\tb\x1b[31m", "  ", "\u202ex")])
    ]
    assert names == ["x" * 120, "a_b_[31m", "track", "_x"]


def tmp_file(folder: Path, stem: str) -> Path:
    path = folder / f"{stem}.wav"
    path.touch()
    return path


def test_no_stems_is_an_error(tmp_path):
    for paths in (tmp_path, [], tmp_path / "missing"):
        with pytest.raises(AudioFileError, match=r"no audio files|does not exist"):
            find_stems(paths)


def test_tracks_get_one_rate_and_length_and_it_is_said(tmp_path):
    save(tmp_path / "a.wav", tone(48000), 48000)
    save(tmp_path / "b.wav", tone(24000, 1), 24000)
    save(tmp_path / "c.wav", tone(24000, 1), 48000)
    notices: list[str] = []
    names, tracks, sample_rate = load_tracks(find_stems(tmp_path), notify=notices.append)
    assert names == ["a", "b", "c"]
    assert sample_rate == 48000
    assert [tuple(t.shape) for t in tracks] == [(2, 48000), (1, 48000), (1, 48000)]
    assert tracks[2][:, 24000:].abs().max() == 0
    assert [n.split(": ")[1] for n in notices] == ["resampled from 24000 to 48000 Hz", "padded from 0.50 to 1.00 s"]

    notices.clear()
    tracks = load_tracks(find_stems(tmp_path), 24000, 12000, notices.append).tracks
    assert {t.shape[1] for t in tracks} == {12000}
    assert len(notices) == 4


def test_tracks_of_many_channels_are_refused(tmp_path):
    save(tmp_path / "surround.wav", tone(10, 6), 48000)
    with pytest.raises(AudioFileError, match=r"surround\.wav: has 6 channels"):
        load_tracks(find_stems(tmp_path))
    with pytest.raises(AudioFileError, match="no stems"):
        load_tracks([])


def noise(samples: int, channels: int = 1, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def read_in_blocks(stems, size, sample_rate=None, notify=lambda notice: None):
    with TrackReader(stems, sample_rate, notify) as reader:
        blocks = list(reader.blocks(size))
    assert all(len({track.shape[-1] for track in tracks}) == 1 for tracks in blocks)
    assert {tracks[0].shape[-1] for tracks in blocks[:-1]} <= {size}
    return [torch.cat(track, -1) for track in zip(*blocks, strict=True)]


@pytest.mark.parametrize("size", [1, 777, 4000, 10**6])
def test_tracks_in_blocks_are_those_that_are_loaded(size, tmp_path):
    length = 50 if size == 1 else 12000
    save(tmp_path / "a.wav", noise(length, 2), 16000)
    save(tmp_path / "b.flac", noise(2 * length, 1, 1), 44100)
    save(tmp_path / "c.wav", noise(length // 3, 2, 2), 8000)
    save(tmp_path / "d.aiff", noise(length // 4 + 1, 1, 3), 16000)
    stems = find_stems(tmp_path)
    said, told = [], []
    names, tracks, rate = load_tracks(stems, notify=said.append)
    blocks = read_in_blocks(stems, size, notify=told.append)
    assert (names, rate) == (["a", "b", "c", "d"], 16000)
    assert [tuple(block.shape) for block in blocks] == [(channels, length) for channels in (2, 1, 2, 1)]
    for block, track, (_, path) in zip(blocks, tracks, stems, strict=True):
        samples, own_rate = load(path)
        whole = resample(samples, own_rate, rate)
        assert torch.equal(block, torch.nn.functional.pad(whole, (0, length - whole.shape[-1])))
        assert torch.equal(track, block)
    assert sorted(said) == sorted(told)
    assert len(told) == 5


@pytest.mark.parametrize("suffix", ["wav", "w64", "rf64", "flac", "aiff", "ogg", "opus", "mp3"])
def test_every_format_is_read_in_blocks(suffix, tmp_path):
    save(tmp_path / f"x.{suffix}", noise(30000, 2), 48000)
    (track,) = read_in_blocks(find_stems(tmp_path), 1001)
    assert torch.equal(track, load(tmp_path / f"x.{suffix}").samples)


@pytest.mark.parametrize("rates", [(44100, 48000), (96000, 44100), (22050, 44100), (48000, 8000), (8000, 8001)])
@pytest.mark.parametrize("size", [999, 8000, 65536])
def test_resampling_in_blocks_is_that_of_the_whole(rates, size, tmp_path, monkeypatch):
    x = noise(70001, 2)
    save(tmp_path / "x.wav", x, rates[0])
    monkeypatch.setattr(io, "_RESAMPLED", size)
    (track,) = read_in_blocks(find_stems(tmp_path), 5000, rates[1])
    assert torch.equal(track, resample(x, *rates))


@pytest.mark.parametrize("rates", [(44100, 48000), (96000, 44100), (22050, 44100), (48000, 8000), (8000, 8000)])
def test_an_excerpt_is_that_part_of_the_whole_resampled(rates, tmp_path):
    x = noise(20001, 2)
    save(tmp_path / "x.wav", x, rates[0])
    whole = resample(x, *rates)
    length = whole.shape[-1]
    for start, samples in ((0, 100), (1, 77), (2345, 1000), (length - 50, 100), (length + 10, 20), (500, 0)):
        part = load_excerpt(tmp_path / "x.wav", start, samples, rates[1])
        expected = torch.nn.functional.pad(whole, (0, 200))[:, start : start + samples]
        assert torch.equal(part, expected)


def test_an_excerpt_has_the_rate_of_the_file_by_default(tmp_path):
    save(tmp_path / "x.flac", noise(1000, 1), 32000, "PCM_24")
    assert inspect(tmp_path / "x.flac") == (1, 1000, 32000)
    assert torch.equal(load_excerpt(tmp_path / "x.flac", 10, 20), load(tmp_path / "x.flac").samples[:, 10:30])


def test_mistakes_of_excerpts_are_named(tmp_path):
    x = noise(100, 1)
    x[0, 50] = torch.nan
    soundfile.write(tmp_path / "x.wav", x.T.numpy(), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="start, samples are -1, 5"):
        load_excerpt(tmp_path / "x.wav", -1, 5)
    with pytest.raises(TypeError, match=r"sample rate is 8000\.5"):
        load_excerpt(tmp_path / "x.wav", 0, 5, 8000.5)  # type: ignore[arg-type]
    with pytest.raises(AudioFileError, match=r"x\.wav: sample 50 .* is NaN"):
        load_excerpt(tmp_path / "x.wav", 40, 20)
    assert load_excerpt(tmp_path / "x.wav", 0, 20).isfinite().all()
    for function in (inspect, lambda path: load_excerpt(path, 0, 1)):
        with pytest.raises(AudioFileError, match=r"y\.wav: does not exist"):
            function(tmp_path / "y.wav")


def test_each_reading_of_blocks_begins_at_the_beginning(tmp_path):
    save(tmp_path / "a.wav", noise(1000), 8000)
    with TrackReader(find_stems(tmp_path)) as reader:
        first = next(reader.blocks(300))[0]
        again = [tracks[0] for tracks in reader.blocks(400)]
        assert torch.equal(torch.cat(again, -1), noise(1000))
        assert torch.equal(first, again[0][:, :300])
        with pytest.raises(ValueError, match="TrackReader: size is 0, expected at least 1"):
            next(reader.blocks(0))


def test_what_cannot_be_streamed_is_refused_before_anything_is_read(tmp_path):
    save(tmp_path / "a.wav", noise(100), 8000)
    save(tmp_path / "b.wav", noise(100, 3), 8000)
    with pytest.raises(AudioFileError, match=r"b\.wav: has 3 channels"):
        TrackReader(find_stems(tmp_path))
    with pytest.raises(AudioFileError, match="no stems"):
        TrackReader([])


def test_a_sample_that_is_not_finite_is_named_in_later_blocks(tmp_path):
    samples = noise(5000, 2).T.numpy().copy()
    samples[4321, 1] = math.nan
    soundfile.write(tmp_path / "bad.wav", samples, 1000, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"sample 4321 \(4\.321 s\) of channel 2 is NaN"):
        read_in_blocks(find_stems(tmp_path), 1000)


def test_truncation_is_noticed_in_blocks_and_the_rest_is_silent(tmp_path):
    save(tmp_path / "a.wav", noise(20000), 8000)
    save(tmp_path / "b.w64", noise(20000, seed=1), 8000)
    path = tmp_path / "b.w64"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    notices: list[str] = []
    _, half = read_in_blocks(find_stems(tmp_path), 3000, notify=notices.append)
    assert half.shape == (1, 20000)
    assert not half[:, 10000:].any()
    assert any("b.w64: is truncated" in notice for notice in notices)


@pytest.mark.parametrize("suffix", ["wav", "w64", "rf64", "flac", "aiff", "ogg", "opus", "mp3"])
def test_blocks_write_what_one_call_writes(suffix, tmp_path):
    x = noise(200_000, 2)
    whole, blocks = tmp_path / f"whole.{suffix}", tmp_path / f"blocks.{suffix}"
    save(whole, x, 48000)
    with writer(blocks, 2, 48000) as write:
        for block in x.split([1, 100_000, 0, 99_999], -1):
            write(block)
        assert not blocks.exists()
    assert torch.equal(load(blocks).samples, load(whole).samples)
    if suffix not in ("ogg", "opus"):  # Their streams have random serial numbers.
        assert blocks.read_bytes() == whole.read_bytes()


def test_clipping_is_counted_over_all_blocks(tmp_path):
    notices: list[str] = []
    with writer(tmp_path / "x.flac", 1, 8000, notify=notices.append) as write:
        for level in (1.25, 0.5, -2.0):
            write(torch.full((1, 10), level))
    assert len(notices) == 1
    assert "x.flac: 20 of 30 samples clipped, the peak was +6.0 dBFS" in notices[0]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_between_blocks_leaves_nothing(error, tmp_path):
    path = tmp_path / "x.wav"

    def interrupted() -> None:
        with writer(path, 1, 8000) as write:
            write(noise(100_000))
            raise error

    with pytest.raises(error):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_blocks_that_cannot_be_written_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    def attempt(block: torch.Tensor, suffix: str = "wav") -> None:
        with writer(tmp_path / f"x.{suffix}", 2, 8000) as write:
            write(noise(100, 2))
            write(block)

    with pytest.raises(ValueError, match=r"block has shape \(1, 9\), expected \(2, samples\)"):
        attempt(noise(9))
    with pytest.raises(ValueError, match=r"x\.wav: not written, the audio has NaN or infinite samples"):
        attempt(noise(9, 2) * math.inf)
    with pytest.raises(TypeError, match="block has type"):
        attempt(torch.zeros(2, 9, dtype=torch.int16))
    monkeypatch.setattr(io, "_MAX_BYTES", {"WAV": 5000})
    with pytest.raises(ValueError, match=r"x\.wav: not written, it gets too long for its format"):
        attempt(noise(1000, 2))
    assert os.listdir(tmp_path) == []
    attempt(noise(1000, 2), "w64")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(file: soundfile.SoundFile, samples: np.ndarray) -> None:
        # What soundfile does when less was written than it was given.
        raise AssertionError

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(OSError, match=r"x\.wav: cannot be written \(is the disk full\?\)"):
        save(tmp_path / "x.wav", noise(100), 8000)
    assert os.listdir(tmp_path) == []
