"""Data sets in folders: every layout as its publishers have it, read in parts, with errors that name the file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dasp import io
from dasp.mixing import MultitrackFolder

RATE = 8000
SHARED = Path(__file__).parents[3] / "shared" / "multitrack"


def write(path, seed=0, seconds=0.5, channels=2, rate=RATE, subtype="FLOAT"):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    soundfile.write(path, audio.astype(np.float32), rate, subtype=subtype)
    return path


def contents(song):
    return [(track.name, track.instrument, track.tag) for track in song.tracks]


def test_plain_folders_are_songs_of_their_files(tmp_path):
    for name in ("01_Kick.wav", "02 Bass.flac", "mix.wav", "._01_Kick.wav", "notes.txt"):
        if name.endswith(".txt") or name.startswith("."):
            (tmp_path / "one").mkdir(exist_ok=True)
            (tmp_path / "one" / name).write_text("no audio")
        else:
            write(tmp_path / "one" / name, subtype="PCM_16")
    write(tmp_path / "two" / "stems" / "vox.wav")
    write(tmp_path / "two" / "two_mix.wav")
    write(tmp_path / "three" / "gtr.wav")
    (tmp_path / "nothing").mkdir()
    folder = MultitrackFolder(tmp_path)
    assert (folder.layout, len(folder)) == ("plain", 3)
    one, three, two = folder.songs
    assert contents(one) == [("01_Kick", "kick", "drums"), ("02 Bass", "bass", "bass")]
    assert one.mix == tmp_path / "one" / "mix.wav"
    assert (three.name, three.mix) == ("three", None)
    assert contents(two) == [("vox", "voice", "vocals")]
    assert two.mix == tmp_path / "two" / "two_mix.wav"


def test_a_folder_with_tracks_is_one_song(tmp_path):
    write(tmp_path / "kick.wav", channels=1)
    write(tmp_path / "snare.wav", seconds=0.75)
    (song,) = MultitrackFolder(tmp_path).songs
    assert song.name == tmp_path.name
    assert [track.channels for track in song.tracks] == [1, 2]
    assert (song.length, song.sample_rate) == (6000, RATE)


def test_musdb18_hq(tmp_path):
    for split, title in (("train", "A Classic Education - NightOwl"), ("test", "AM Contra - Heart Peripheral")):
        for stem in ("bass", "drums", "other", "vocals", "mixture"):
            write(tmp_path / split / title / f"{stem}.wav")
    folder = MultitrackFolder(tmp_path)
    assert folder.layout == "musdb18"
    assert [(song.split, song.name[:2]) for song in folder.songs] == [("test", "AM"), ("train", "A ")]
    for song in folder.songs:
        assert [track.instrument for track in song.tracks] == ["bass", "drums", "other", "voice"]
        assert song.mix.name == "mixture.wav"


METADATA = """\
album: '[none]'
artist: Liz Nelson
has_bleed: 'no'
# as exported
mix_filename: LizNelson_Rainfall_MIX.wav
producer:
- ''
- "Somebody: Else"
stem_dir: LizNelson_Rainfall_STEMS
stems:
  S01:
    component: melody
    filename: LizNelson_Rainfall_STEM_01.wav
    instrument: female singer
    raw:
      R01:
        filename: LizNelson_Rainfall_RAW_01_01.wav
        instrument: female singer
      R02:
        filename: LizNelson_Rainfall_RAW_01_02.wav
        instrument: vocalists
  S02:
    component: ''
    filename: LizNelson_Rainfall_STEM_02.wav
    instrument:
    - acoustic guitar
    - violin
    raw: {}
  S03:
    filename: LizNelson_Rainfall_STEM_03.wav
    instrument: female singer
title: Rainfall
version: '1.2'
"""


@pytest.mark.parametrize("place", ["", "Audio"])
@pytest.mark.parametrize("described", [True, False])
def test_medleydb(tmp_path, place, described):
    song_folder = tmp_path / place / "LizNelson_Rainfall"
    for number in (1, 2, 3):
        write(song_folder / "LizNelson_Rainfall_STEMS" / f"LizNelson_Rainfall_STEM_0{number}.wav")
    for number in (1, 2):
        write(song_folder / "LizNelson_Rainfall_RAW" / f"LizNelson_Rainfall_RAW_01_0{number}.wav", channels=1)
    write(song_folder / "LizNelson_Rainfall_MIX.wav")
    if described:
        (song_folder / "LizNelson_Rainfall_METADATA.yaml").write_text(METADATA)
    folder = MultitrackFolder(tmp_path)
    assert folder.layout == "medleydb"
    (song,) = folder.songs
    assert song.name == "LizNelson_Rainfall"
    assert song.mix == song_folder / "LizNelson_Rainfall_MIX.wav"
    (raw,) = MultitrackFolder(tmp_path, "medleydb-raw").songs
    if described:
        voice, guitar = ("voice", "vocals"), ("guitar", "harmony")
        assert contents(song) == [
            ("female singer", *voice),
            ("acoustic guitar", *guitar),
            ("female singer 2", *voice),
        ]
        assert contents(raw) == [("female singer", *voice), ("vocalists", "backing voice", "vocals")]
    else:
        assert [track.name for track in song.tracks] == ["S01", "S02", "S03"]
        assert [track.name for track in raw.tracks] == ["R01_01", "R01_02"]
        assert {track.instrument for track in song.tracks} == {"other"}


@pytest.mark.parametrize("place", ["", "moisesdb_v0.1"])
def test_moisesdb(tmp_path, place):
    song_folder = tmp_path / place / "5f3b5d9a-0000-4a4b-8c8d-000000000001"
    data = {
        "song": "Title",
        "artist": "Artist",
        "genre": "rock",
        "stems": [
            {"stemName": "drums", "tracks": [{"id": "a1", "trackType": "kick_drum", "extension": "wav"}]},
            {
                "stemName": "other_keys",
                "tracks": [{"id": "b1", "trackType": "other_sounds_(hapischord,_melotron_etc)", "extension": "wav"}],
            },
            {
                "stemName": "guitar",
                "tracks": [
                    {"id": "c1", "trackType": "distorted_electric_guitar", "extension": "wav"},
                    {"id": "c2", "trackType": "distorted_electric_guitar", "extension": "wav"},
                ],
            },
        ],
    }
    for stem in data["stems"]:
        for track in stem["tracks"]:
            write(song_folder / stem["stemName"] / f"{track['id']}.wav")
    (song_folder / "data.json").write_text(json.dumps(data))
    folder = MultitrackFolder(tmp_path)
    assert folder.layout == "moisesdb"
    (song,) = folder.songs
    assert song.name == f"Artist - Title ({song_folder.name})"
    assert [track.instrument for track in song.tracks] == ["kick", "keys", "guitar", "guitar"]
    assert [track.name for track in song.tracks][2:] == ["distorted_electric_guitar", "distorted_electric_guitar 2"]
    assert song.mix is None
    assert len(folder.excerpt(song, 0.0, 0.1).tracks) == 4


def test_enst_drums(tmp_path):
    for drummer, takes in (("drummer_1", ("001_hits", "030_phrase")), ("drummer_2", ("001_hits",))):
        for take in takes:
            for microphone in ("kick", "snare", "hi-hat", "overhead_L", "overhead_R", "tom_1", "wet_mix", "dry_mix"):
                # Not every take has every microphone.
                if (take, microphone) != ("001_hits", "tom_1"):
                    channels = 2 if microphone.endswith("mix") else 1
                    write(tmp_path / drummer / "audio" / microphone / f"{take}.wav", channels=channels)
        write(tmp_path / drummer / "audio" / "accompaniment" / "030_phrase.wav")
    folder = MultitrackFolder(tmp_path)
    assert folder.layout == "enst-drums"
    assert [(song.name, song.split) for song in folder.songs] == [
        ("drummer_1/001_hits", "drummer_1"),
        ("drummer_1/030_phrase", "drummer_1"),
        ("drummer_2/001_hits", "drummer_2"),
    ]
    assert [track.instrument for track in folder.songs[1].tracks] == [
        *("hihat", "kick", "overheads", "overheads", "snare", "tom")
    ]
    assert len(folder.songs[0].tracks) == 5
    assert folder.songs[0].mix == tmp_path / "drummer_1" / "audio" / "wet_mix" / "001_hits.wav"


def test_an_excerpt_is_that_part_of_the_files(tmp_path):
    paths = [write(tmp_path / "song" / f"{name}.wav", seed) for seed, name in enumerate(("bass", "mix"))]
    folder = MultitrackFolder(tmp_path)
    excerpt = folder.excerpt("song", 0.1, 0.2)
    whole = [torch.from_numpy(soundfile.read(path, dtype="float32")[0].T) for path in paths]
    assert excerpt.sample_rate == RATE
    assert torch.equal(excerpt.tracks[0], whole[0][:, 800:2400])
    assert torch.equal(excerpt.mix, whole[1][:, 800:2400])


def test_tracks_of_other_rates_and_lengths_are_resampled_and_silent_after_their_end(tmp_path):
    write(tmp_path / "song" / "bass.wav", 0)
    write(tmp_path / "song" / "keys.wav", 1)
    fast = write(tmp_path / "song" / "lead.wav", 2, seconds=0.3, rate=11025)
    write(tmp_path / "song" / "mix.wav", 3, channels=1)
    folder = MultitrackFolder(tmp_path)
    (song,) = folder.songs
    assert (song.sample_rate, song.length) == (RATE, 4000)
    excerpt = folder.excerpt(song, 0.2, 0.5)
    tracks, mix = excerpt.tracks, excerpt.mix
    assert [track.shape for track in tracks] == [(2, 4000)] * 3
    assert mix.shape == (2, 4000)
    # The song ends at 0.5 s, the lead at 0.3 s.
    assert not tracks[0][:, 2400:].any()
    assert tracks[0][:, 2399].any()
    audio, rate = io.load(fast)
    expected = io.resample(audio, rate, RATE)[:, 1600:]
    torch.testing.assert_close(tracks[2][:, : expected.shape[-1]], expected, atol=1e-6, rtol=0)
    assert not tracks[2][:, expected.shape[-1] :].any()
    assert folder.excerpt(song, 0.0, 0.1, sample_rate=16000).tracks[0].shape == (2, 1600)


def test_only_headers_are_read_for_lengths_and_only_the_part_for_an_excerpt(tmp_path, monkeypatch):
    path = write(tmp_path / "song" / "bass.wav", seconds=20.0)
    (song,) = (folder := MultitrackFolder(tmp_path)).songs
    frames = []
    read = soundfile.SoundFile.read

    def counted(self, count=-1, *args, **kwargs):
        out = read(self, count, *args, **kwargs)
        frames.append(len(out))
        return out

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert (song.length, song.tracks[0].channels) == (160000, 2)
    assert not frames
    folder.excerpt(song, 10.0, 0.25)
    assert frames == [2000]
    path.unlink()
    assert song.length == 160000


def test_folders_go_to_the_workers_of_a_loader(tmp_path):
    write(tmp_path / "song" / "bass.wav")
    folder = MultitrackFolder(tmp_path)
    again = pickle.loads(pickle.dumps(folder))
    assert again.songs == folder.songs
    assert torch.equal(again.excerpt("song", 0.0, 0.1).tracks[0], folder.excerpt("song", 0.0, 0.1).tracks[0])


def test_missing_folders_unknown_layouts_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        MultitrackFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="layout is 'slakh', expected one of 'auto', 'plain', 'musdb18'"):
        MultitrackFolder(tmp_path, "slakh")
    with pytest.raises(ValueError, match=f"{tmp_path.name} has no songs of any known layout"):
        MultitrackFolder(tmp_path)
    with pytest.raises(ValueError, match="has no songs of the layout 'musdb18'"):
        MultitrackFolder(tmp_path, "musdb18")


def test_files_that_cannot_be_used_are_named(tmp_path):
    write(tmp_path / "a" / "bass.wav")
    write(tmp_path / "a" / "surround.wav", channels=6)
    write(tmp_path / "b" / "bass.wav")
    (tmp_path / "b" / "keys.wav").write_bytes(b"RIFF nothing that follows")
    write(tmp_path / "c" / "bass.wav")
    write(tmp_path / "c" / "mix.wav", channels=3)
    folder = MultitrackFolder(tmp_path)
    with pytest.raises(io.AudioFileError, match=r"a/surround.wav: has 6 channels, expected one or two"):
        folder.excerpt("a", 0.0, 0.1)
    with pytest.raises(io.AudioFileError, match=r"b/keys.wav: not a readable audio file"):
        folder.excerpt("b", 0.0, 0.1)
    with pytest.raises(io.AudioFileError, match=r"c/mix.wav: has 3 channels"):
        folder.excerpt("c", 0.0, 0.1)
    (tmp_path / "c" / "bass.wav").unlink()
    with pytest.raises(io.AudioFileError, match=r"c/bass.wav: does not exist"):
        folder.excerpt("c", 0.0, 0.1)


def test_parts_outside_a_song_are_refused(tmp_path):
    write(tmp_path / "song" / "bass.wav")
    folder = MultitrackFolder(tmp_path)
    for start_s in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"start_s is .*, expected 0 to below 0.500, the length of 'song'"):
            folder.excerpt("song", start_s, 0.1)
    with pytest.raises(ValueError, match="seconds is 0"):
        folder.excerpt("song", 0.0, 0.0)
    with pytest.raises(ValueError, match="has no song 'other'"):
        folder.excerpt("other", 0.0, 0.1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x/data.json", "{", r"x/data.json: is not a description of MoisesDB"),
        ("x/data.json", '{"song": "a"}', r"x/data.json: is not a description of MoisesDB \(KeyError"),
        ("x/x_METADATA.yaml", "title: nothing", r"x_METADATA.yaml: has no stems"),
        ("x/x_METADATA.yaml", "- a", r"x_METADATA.yaml, line 1"),
        ("x/x_METADATA.yaml", "stems:\n\tS01:", r"x_METADATA.yaml, line 2"),
    ],
)
def test_broken_descriptions_are_named(tmp_path, name, text, message):
    write(tmp_path / "x" / "x_STEMS" / "x_STEM_01.wav")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        MultitrackFolder(tmp_path)


def test_the_real_stems_are_one_song():
    if not SHARED.is_dir():
        pytest.skip("the recorded stems are not here")
    (song,) = MultitrackFolder(SHARED).songs
    assert [track.instrument for track in song.tracks] == [
        *("kick", "snare", "hihat", "bass", "guitar", "keys", "strings", "lead")
    ]
    assert song.mix.stem == "reference_mix"
