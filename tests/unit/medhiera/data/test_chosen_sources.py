"""Which sources stage 2 learns from by itself, and what it says of the others."""

import math

from datasets import Dataset

from medhiera.data.selection import choose_sources

CHEST, COVIDX = "ChestX-ray14", "COVIDx CXR-3"


def test_labelled_sources_that_are_not_learned_are_named(caplog):
    sources = [CHEST] * 300 + ["BraTS 2020"] * 20 + [COVIDX] * 80
    known, unknown = [1.0, math.nan], [math.nan, math.nan]
    labels = [known] * 300 + [unknown] * 20 + [known] * 60 + [unknown] * 20
    rows = Dataset.from_dict({"source": sources, "labels": labels})
    with caplog.at_level("INFO"):
        assert choose_sources(rows, None) == [CHEST]
        assert (
            "learns from ChestX-ray14 alone, 300 of 400 images; left out although labelled: COVIDx CXR-3 60; "
            "--sources ChestX-ray14 'COVIDx CXR-3' takes all of them"
        ) in caplog.text
        caplog.clear()
        assert (
            choose_sources(rows, [COVIDX]) == [COVIDX]
            and choose_sources(rows.select(range(300, 400)), None) is None
        )
        assert choose_sources(rows.select(range(320)), []) == [CHEST] and not caplog.text
