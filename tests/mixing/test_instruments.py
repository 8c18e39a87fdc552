"""What names of tracks mean, as the data sets write them."""

from __future__ import annotations

import pytest

from dasp.mixing.instruments import FAMILIES, recognise


@pytest.mark.parametrize(
    ("instrument", "names"),
    [
        ("kick", ["kick", "Kick_In", "01_KickOut", "bass drum", "kick drum", "BD"]),
        ("snare", ["snare", "04 Snare Top", "snare_drum"]),
        ("hihat", ["hi-hat", "HiHat", "hihat", "HH"]),
        ("tom", ["tom_1", "toms", "Tom2"]),
        ("overheads", ["overhead_L", "overheads", "cymbal", "cymbals", "OH"]),
        ("percussion", ["claps", "a-tonal percussion (claps, shakers, congas, cowbell etc)", "tambourine", "bongo"]),
        ("drums", ["drums", "drum set", "drum machine", "full acoustic drumkit"]),
        ("bass", ["bass", "electric bass", "double bass", "bass_guitar", "bass synthesizer (moog etc)"]),
        ("guitar", ["acoustic guitar", "distorted electric guitar", "05_EGtr", "banjo", "lap_steel_guitar", "GTR"]),
        ("keys", ["piano", "electric piano", "synthesizer", "grand_piano", "tack piano"]),
        ("organ", ["electronic organ", "organ, electric organ", "accordion"]),
        ("pad", ["synth pad"]),
        ("lead", ["synth lead", "lead"]),
        ("strings", ["violin section", "string section", "cello (solo)"]),
        ("brass", ["trumpet", "french horn", "brass section", "trombone section"]),
        ("wind", ["flute", "alto saxophone", "clarinet section", "bass clarinet", "bassoon"]),
        ("voice", ["vocals", "male singer", "lead female singer", "LeadVox", "male rapper"]),
        ("backing voice", ["background vocals", "BGV", "backing voice", "human choir", "vocalists"]),
        ("other", ["Main System", "other", "fx/processed sound", "", "17"]),
    ],
)
def test_names_of_data_sets_are_recognised(instrument, names):
    assert {name: recognise(name) for name in names} == dict.fromkeys(names, instrument)
    assert instrument in FAMILIES


def test_every_instrument_is_recognised_by_its_own_name():
    assert [recognise(name) for name in FAMILIES] == list(FAMILIES)
