"""What `--help` of each command prints: a description and a word for every option."""

import importlib
import inspect
import re

import pytest

COMMANDS = [
    "dataset_scripts.__main__",
    "dataset_scripts.leakage.__main__",
    "dataset_scripts.phantom.__main__",
    "demo",
    "demo_report",
    "evaluate_cls",
    "evaluate_report",
    "medhiera.hub.imagenet_stage",
    "medhiera.hub.model_card",
    "medhiera.hub.publish",
    "medhiera.inference.onnx_export",
    "modeling_hiera_mae.convert",
    "predict",
    "probe",
    "reproduce",
    "space.bundle",
]


def unexplained(text):
    """Options and arguments that a help text lists without a word about them."""
    listed = re.split(r"\n(?:positional arguments|options):\n", text)[1:]
    entries = [entry for part in listed for entry in re.split(r"^  (?=\S)", part, flags=re.M)[1:]]
    assert entries
    return [entry for entry in entries if not re.search(r"(?: {2,}|\n {10,})\S", entry)]


def test_an_option_without_a_word_is_noticed():
    text = "\noptions:\n  -h, --help  show\n  --seed SEED\n  --a_long_name A\n                        word\n"
    assert [entry.strip() for entry in unexplained(text)] == ["--seed SEED"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name, capsys):
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert unexplained(text) == []
    assert not re.search(r"\bStands\b|\bLast arrow\b", text)  # the map of the code helps no one who types
    for line in (inspect.getdoc(module) or "").splitlines():
        if line.startswith("    ") and "__doc__" in inspect.getsource(module.main):
            assert line.rstrip() in text, "an example stands on a line of its own"
