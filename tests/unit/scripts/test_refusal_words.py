"""A refusal begins with what was typed, and says in plain words what to do."""

import os
import re
import subprocess
import sys

import pytest

from medhiera.command_line import new_parser
from medhiera.errors import UserError
from medhiera.inference.picture_files import find_images


def refused(root, *words, **environment):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "medhiera", *words],
        cwd=root, text=True, capture_output=True,
        env={name: value for name, value in os.environ.items() if "TOKEN" not in name} | environment,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, "\n".join(said), done.stderr


def test_publishing_without_a_token_is_refused_before_anything_is_imported(root, tmp_path):
    status, said, imported = refused(
        root, "publish", str(tmp_path / "nowhere"), "me/model", HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path)
    )
    assert status == 1
    assert said.startswith("medhiera publish: no Hub token; run `hf auth login` or set HF_TOKEN")
    assert " torch\n" not in imported


@pytest.mark.parametrize("command", ["export", "build", "leakage"])
def test_a_refusal_begins_with_what_was_typed(root, tmp_path, command):
    words = {
        "export": [str(tmp_path / "nowhere"), str(tmp_path / "out.onnx")],
        "build": ["--data_dir", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out")],
        "leakage": [str(tmp_path / "nowhere"), str(tmp_path / "b"), "--output_dir", str(tmp_path / "out")],
    }
    status, said, _ = refused(root, command, *words[command])
    assert status == 1
    assert said.startswith(f"medhiera {command}: ") and "there is no such f" in said


def test_an_empty_folder_is_named_in_plain_words(tmp_path):
    with pytest.raises(UserError) as refusal:
        find_images([tmp_path])
    assert str(refusal.value).startswith(f"no image in {tmp_path}; wanted PNG, JPEG, TIFF")
    assert not {"[", "'"} & set(str(refusal.value).replace(str(tmp_path), ""))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--modle", "x"], r"no option --modle; did you mean '--model'\?"),
        (["--model=x", "--", "--modle"], ""),  # a file of this name
        (["--nothing-like-it"], "no option --nothing-like-it\n"),
        (["--tta"], "no option --tta; `medhiera evaluate --tta` scores with each image's mirror image too"),
    ],
)
def test_an_unknown_option_is_named_before_those_that_are_missing(words, said, capsys):
    parser = new_parser("Reads.")
    parser.add_argument("--model", required=True)
    parser.add_argument("files", nargs="*")
    if not said:
        assert parser.parse_args(words).files == ["--modle"]
        return
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert re.search(said, capsys.readouterr().err)
