"""Numbers that no build can be made with are refused before any file is looked for, by command and Python."""

import logging
import os
import sys

import pytest

from dataset_scripts import Cocktail, write_phantom_cohort
from dataset_scripts.__main__ import main
from dataset_scripts.errors import UserError

WRONG = [
    ("stored_size", -5, "stored_size is -5; wanted a whole number from 0 to 65535"),
    ("stored_size", 10**30, "wanted a whole number from 0 to 65535"),
    ("slices_per_volume", 0, "slices_per_volume is 0; wanted a whole number from 1 to 10000"),
    ("max_bad_fraction", float("nan"), "max_bad_fraction is nan; wanted a share from 0 to 1"),
    ("max_bad_fraction", -0.1, "max_bad_fraction is -0.1; wanted a share from 0 to 1"),
    ("max_bad_fraction", float("inf"), "max_bad_fraction is inf"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_number_out_of_range_is_refused(name, value, message, tmp_path, caplog):
    with pytest.raises(UserError, match=message):
        Cocktail(data_dir=tmp_path / "nowhere", **{name: value})
    words = ["--data_dir", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out")]
    with caplog.at_level(logging.ERROR):
        assert main([*words, f"--{name}={value}"]) == 1
    assert message in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are text")
@pytest.mark.parametrize("name", ["data_dir", "contours"])
def test_a_folder_whose_own_name_is_no_text(name, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/R\xf6ntgen")
    with pytest.raises(UserError, match=rf"{name} is .*R\\xf6ntgen, of bytes that are no UTF-8"):
        Cocktail(**{"data_dir": tmp_path, name: folder})


def test_the_commands_own_numbers(tmp_path, caplog):
    words = ["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--num_proc", "0"]) == 1
    assert "num_proc is 0; wanted a whole number from 1 to 4096" in caplog.text


@pytest.mark.parametrize("fraction", [0, 1, -1, float("nan")])
def test_a_share_of_held_out_patients_that_holds_none_or_all_out(fraction, tmp_path):
    with pytest.raises(UserError, match="validation_fraction is .*; wanted a share between 0 and 1"):
        Cocktail(data_dir=tmp_path, validation_fraction=fraction)


@pytest.mark.parametrize(
    "wrong", [{"patients": -1}, {"image_size": 10**9}, {"seed": -1}, {"seed": sys.maxsize}]
)
def test_a_cohort_that_cannot_be_drawn(wrong, tmp_path):
    with pytest.raises(ValueError, match="give at least 8 patients and 32 pixels"):
        write_phantom_cohort(tmp_path / "new", **wrong)
