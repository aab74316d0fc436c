"""How often a run validates and saves, and how long its workers live."""

from pathlib import Path

import pytest
from transformers import TrainerState

from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import MAEArguments

CONFIGS = Path(__file__).resolve().parents[4] / "configs"


def read(tmp_path, *words):
    own = ["--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    return parse_config(MAEArguments, [*words, *own]).training


@pytest.mark.parametrize("words", [["mae_modern.yaml"], ["mae_features.yaml", "--teacher", "t"]])
def test_the_modern_pretraining_validates_and_saves_twenty_times(words, tmp_path):
    """Each epoch would be eighty times, which at a GPU's speed is a large share of the run."""
    name, *rest = words
    training = read(tmp_path, str(CONFIGS / name), *rest)
    assert (training.eval_strategy, training.save_strategy) == ("steps", "steps")
    state = TrainerState(max_steps=80 * 437)
    state.compute_steps(training, state.max_steps)
    assert state.eval_steps == state.save_steps == 4 * 437


@pytest.mark.parametrize(
    ("words", "is_kept"),
    [("", False), ("--dataloader_num_workers 2", True),
     ("--dataloader_num_workers 2 --dataloader_persistent_workers false", False)],
)  # fmt: skip
def test_workers_live_for_all_epochs_unless_told_otherwise(words, is_kept, tmp_path):
    training = read(tmp_path, *words.split())
    assert training.dataloader_persistent_workers == is_kept
