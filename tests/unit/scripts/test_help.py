"""What `--help` of each command prints, before anything that takes seconds is imported."""

import ast
import re
import subprocess
import sys

import pytest

from medhiera import __version__
from medhiera.__main__ import COMMANDS as SUBCOMMANDS
from medhiera.shipped_files import SCRIPTS

COMMANDS = [
    "dataset_scripts.__main__",
    "dataset_scripts.build.chest_contour",
    "dataset_scripts.leakage.__main__",
    "dataset_scripts.phantom.__main__",
    "dataset_scripts.phantom.contour_training",
    "demo",
    "demo_report",
    "embed",
    "evaluate_cls",
    "evaluate_report",
    "medhiera.device",
    "medhiera.evaluation.captions",
    "medhiera.evaluation.report_baselines",
    "medhiera.hub.imagenet_stage",
    "medhiera.hub.model_card",
    "medhiera.hub.publish",
    "medhiera.inference.onnx_export",
    "medhiera.space.app",
    "medhiera.space.bundle",
    "modeling_hiera_mae.convert",
    "predict",
    "probe",
    "reproduce",
    "train_cls",
    "train_mae",
    "train_report",
]

SLOW = {
    "torch",
    "transformers",
    "datasets",
    "sklearn",
    "scipy",
    "matplotlib",
    "pandas",
    "gradio",
    "optuna",
    "timm",
}


def unexplained(text):
    """Options and arguments that a help text lists without a word about them."""
    listed = re.split(r"^\S.*:\n(?=  \S)", text, flags=re.MULTILINE)[1:]
    entries = [entry for part in listed for entry in re.split(r"^  (?=\S)", part, flags=re.M)[1:]]
    assert entries
    return [entry for entry in entries if not re.search(r"(?: {2,}|\n {10,})\S", entry)]


def test_an_option_without_a_word_is_noticed():
    text = "\noptions:\n  -h, --help  show\n  --seed SEED\n  --a_long_name A\n                        word\n"
    assert [entry.strip() for entry in unexplained(text)] == ["--seed SEED"]


def ask(root, *words):
    """What a command prints, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *words, "--help"], cwd=root, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line)
    return done.stdout, {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_at_once(name, root):
    text, imported = ask(root, name)
    assert "argparse" in imported and imported & SLOW == set()
    assert unexplained(text) == []
    assert not re.search(r"\bStands\b|\bLast arrow\b", text)  # the map of the code helps no one who types
    source = (root / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    for line in (ast.get_docstring(ast.parse(source)) or "").splitlines():
        if line.startswith("    ") and "__doc__" in source:
            assert line.rstrip() in text, "an example stands on a line of its own"


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_a_subcommand_is_one_of_these_commands(name, root):
    target = SUBCOMMANDS[name][0]
    module = target.removesuffix(".py")
    assert module in COMMANDS or f"{module}.__main__" in COMMANDS
    text, imported = ask(root, "medhiera", name)
    assert imported & SLOW == set()
    assert text.startswith(f"usage: medhiera {name} ")
    if target.endswith(".py"):
        assert (SCRIPTS / target).is_file()
    own_name = f"python {target}" if target.endswith(".py") else f"python -m {target} "
    assert own_name not in text, "examples are what can be typed here"


def test_a_subcommands_error_names_what_was_typed(root):
    done = subprocess.run(
        [sys.executable, "-m", "medhiera", "leakage", "A", "B"], cwd=root, text=True, capture_output=True
    )
    assert "medhiera leakage: error: the following arguments are required: --output_dir" in done.stderr


def test_the_list_of_commands_says_what_each_does(root):
    text, _ = ask(root, "medhiera")
    for name, (_, purpose) in SUBCOMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(purpose)}$", text, re.MULTILINE)
    assert f"medhiera {__version__}" in text


def test_a_word_that_is_no_command_is_answered(root):
    done = subprocess.run(
        [sys.executable, "-m", "medhiera", "trian-mae"], cwd=root, text=True, capture_output=True
    )
    assert done.returncode == 1
    assert "no command 'trian-mae'; did you mean 'train-mae'? wanted one of train-mae, " in done.stderr
