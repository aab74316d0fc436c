"""Arms come after what they start from, commands are what a user would type, and failures are told."""

import json

import pytest

from medhiera.checkpoints import seal
from medhiera.experiments import STAGE0, Arm, Laboratory, RunFailedError, ablation_arms, explode_arms, run_all

WORDS = {"train_mae.py": ("mae.yaml",), "train_cls.py": ("cls.yaml",)}


def finish(laboratory, arm, seed, steps=7):
    folder = laboratory.folder(arm, seed)
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"training": {"steps": steps}}))
    (folder / "README.md").write_text("card")


@pytest.mark.parametrize("has_stage0", [False, True])
@pytest.mark.parametrize("arms", [ablation_arms, lambda has: explode_arms(has, 1e-4)])
def test_what_an_arm_starts_from_comes_before_it(arms, has_stage0):
    seen = set()
    for arm in arms(has_stage0):
        assert arm.start in seen | {None} | ({STAGE0} if has_stage0 else set())
        assert arm.as_long_as is None or arm.as_long_as in seen
        assert arm.name not in seen
        seen.add(arm.name)


def test_the_paper_has_three_and_four_arms_and_we_two_more_of_each():
    scripts = [arm.script for arm in ablation_arms(has_stage0=True)]
    assert (scripts.count("train_mae.py"), scripts.count("train_cls.py")) == (3 + 2, 4 + 2)


def test_a_command_says_all(tmp_path):
    laboratory = Laboratory(tmp_path, "DATA", "ORG/STAGE0", WORDS)
    finish(laboratory, "long", 3, steps=41)
    arm = Arm("short", "short", "train_mae.py", STAGE0, ("--sources", "A"), as_long_as="long")
    command = " ".join(laboratory.command(arm, 3))
    for words in ("train_mae.py mae.yaml --data_dir DATA", "--seed 3", "--sources A", "--max_steps 41"):
        assert words in command
    assert "--model_name_or_path ORG/STAGE0" in command and "resume" not in command
    checkpoint = laboratory.folder("short", 3) / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    assert "resume" not in " ".join(laboratory.command(arm, 3))  # half written: not to be gone on from
    seal(checkpoint)
    assert "--resume_from_checkpoint true" in " ".join(laboratory.command(arm, 3))


def test_a_later_arm_starts_from_the_same_seed(tmp_path):
    laboratory = Laboratory(tmp_path, "DATA", None, WORDS)
    command = laboratory.command(Arm("cls", "cls", "train_cls.py", "mae"), 1)
    assert str(tmp_path / "mae" / "seed1") in command


def test_finished_runs_are_skipped_and_a_failure_shows_its_message(tmp_path):
    laboratory = Laboratory(tmp_path, str(tmp_path / "nothing"), None, {"train_mae.py": ("no.yaml",)})
    finish(laboratory, "done", 0)
    run_all(laboratory, [Arm("done", "done", "train_mae.py")], [0])
    with pytest.raises(RunFailedError, match=r"exit code 1.*\n.*no recipe at no.yaml"):
        run_all(laboratory, [Arm("new", "new", "train_mae.py")], [0])
