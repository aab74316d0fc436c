"""What a training script refuses before it imports anything that takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from medhiera.config.before_imports import refuse_early
from medhiera.config.parser import parse_config
from medhiera.config.report_arguments import ReportArguments
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.errors import UserError


@pytest.fixture
def data(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "mine.yaml").write_text("image_sise: 224")
    (tmp_path / "no.yaml").write_text("data_dir: imges\nmax_steps: 4")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["cls_smok", "--data_dir", "images"], "no recipe at cls_smok; did you mean 'cls_smoke'"),
        (
            ["mine.yaml", "--data_dir", "images"],
            "mine.yaml: unknown key 'image_sise'; did you mean 'image_si",
        ),
        (["cls_smoke", "--data-dr=images"], "unknown key 'data-dr'; did you mean 'data_dir'"),
        (["mae_small", "--data_dir", "images"], r"mae_small.yaml is a recipe of another stage; .* cls_512, "),
        (["configs/report_smoke.yaml"], "report_smoke.yaml is a recipe of another stage"),
        (["--lr", "0.1"], "unknown key 'lr'; did you mean 'learning_rate'"),
        (["--batch-size", "4"], "unknown key 'batch-size'; did you mean 'per_device_train_batch_size'"),
        (["--data_dir", "imges"], r"--data_dir imges: there is no such folder; did you mean images\?"),
        (["no.yaml"], r"--data_dir imges: there is no such folder; did you mean images\?"),
        (
            ["--data-dir=images", "--model_name_or_path", "./runs/stage1"],
            "--model_name_or_path ./runs/stage1",
        ),
    ],
)
def test_a_fault_is_told_before_pytorch_is_imported(data, words, wanted):
    with pytest.raises(UserError, match=wanted):
        refuse_early(ClassificationArguments, words)


@pytest.mark.parametrize(
    ("stage", "word", "hint"),
    [
        (ClassificationArguments, "--freeze_encoder", "; --encoder_rate 0 freezes the encoder"),
        (
            MAEArguments,
            "--freeze_encoder",
            "; stage 1 trains its encoder; in stage 2 --encoder_rate 0 freezes it",
        ),
        (ReportArguments, "--freeze-backbone=true", "; --encoder_rate 0 freezes the encoder"),
        (
            ClassificationArguments,
            "--class_weights",
            "; classes have no weights: --prior_bias true, --loss as",
        ),
        (ClassificationArguments, "--focal_gamma", "; classes have no weights: --prior_bias true, --loss as"),
        (ClassificationArguments, "--lora_r", r"; a classifier's adapters: docs/transformers.md#adapters"),
        (ReportArguments, "--lora_r", r"; did you mean 'lora_rank'\?"),
        (MAEArguments, "--seeds", "; a run has one --seed"),
        (ClassificationArguments, "--tta", "; `medhiera evaluate --tta`"),
    ],
)
def test_what_is_not_there_by_any_name_is_said(data, stage, word, hint):
    with pytest.raises(UserError, match=hint):
        refuse_early(stage, ["--data_dir", "images", word, "1"])


def test_a_run_without_a_recipe_is_warned_of(data, caplog):
    refuse_early(ClassificationArguments, ["--data_dir", "images", "--output_dir", "out"])
    assert "no recipe is named: transformers' own defaults hold" in caplog.text


def test_a_recipe_behind_the_options_is_told_where_it_belongs(data):
    with pytest.raises(UserError, match="mine.yaml stands among the options: the recipe comes first"):
        parse_config(ClassificationArguments, ["--data_dir", "images", "--output_dir", "out", "mine.yaml"])


def test_all_mistyped_folders_are_told_at_once(data):
    with pytest.raises(UserError) as told:
        refuse_early(
            MAEArguments, ["--data_dir", "./imgs", "--teacher", "./vit", "--model_name_or_path", "./a"]
        )
    assert [line[:8] for line in str(told.value).splitlines()[1:]] == ["  - --da", "  - --mo", "  - --te"]


@pytest.mark.parametrize(
    ("stage", "recipe"),
    [(MAEArguments, "mae_modern"), (ClassificationArguments, "cls_rsna"), (ReportArguments, "report_modern")],
)
def test_what_the_parser_takes_is_not_refused(data, stage, recipe):
    words = [
        "--data_dir",
        "images",
        "--output_dir",
        "out",
        "--no_dataloader_pin_memory",
        "--weight-decay",
        "-0.0",
    ]
    words += ["--gradient_checkpointing", "true", "--use_cpu=true"]
    refuse_early(stage, [recipe, *words])
    parse_config(stage, [recipe, *words, "--per_device_train_batch_size", "2"])


def test_no_word_before_the_imports(root):
    """The script itself, whose refusal must not wait for PyTorch."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "train_mae.py", "mae_smoke", "--data_dir", "./nowhere"],
        cwd=root, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--data_dir ./nowhere: there is no such folder" in done.stderr
    imported = {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line
    }
    assert "yaml" in imported and not imported & {"torch", "transformers", "datasets"}
    assert not Path(root, "nowhere").exists()
