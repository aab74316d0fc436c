"""The paper's experiments as data: arms, what each starts from, and one run of the scripts for each.

Stands above the two scripts, which it starts as processes, and below reproduce.py. A run is finished when its
card is there; an interrupted one goes on from its checkpoint.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medhiera.checkpoints import newest_whole

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent

STAGE0 = "stage 0"
"""Where an arm starts that needs ImageNet weights."""


class RunFailedError(RuntimeError):
    """A script ended with an error; its own message stands above."""


@dataclass(frozen=True)
class Arm:
    """One line of a figure.

    Attributes:
        name: its folder.
        label: in figures and tables.
        script: train_mae.py or train_cls.py.
        start: STAGE0, the name of a train_mae.py arm, or None for random weights.
        words: its own options of the script.
        as_long_as: an arm whose number of optimiser steps it takes.
    """

    name: str
    label: str
    script: str
    start: str | None = None
    words: tuple[str, ...] = ()
    as_long_as: str | None = None


def ablation_arms(has_stage0: bool) -> list[Arm]:
    """The arms of the paper's Fig. 4 (pre-training) and Fig. 1 (classification), and two it lacks.

    The two: the cocktail with its leak, to see what the leak buys, and ChestX-ray14 alone for as many steps
    as the cocktail takes, to compare at equal compute.

    Args:
        has_stage0: ImageNet weights are there; without them their arms are left out.
    """
    mae, cls, nih = "train_mae.py", "train_cls.py", ("--sources", "ChestX-ray14")
    start, origin = (STAGE0, "ImageNet") if has_stage0 else (None, "random")
    arms = [
        Arm("mae-cocktail", f"{origin} → cocktail", mae, start),
        Arm("mae-chestxray14", f"{origin} → ChestX-ray14", mae, start, nih),
        Arm("mae-leak", f"{origin} → cocktail with its leak", mae, start, ("--allow_leakage", "true")),
        Arm(
            "mae-chestxray14-long",
            f"{origin} → ChestX-ray14, the cocktail's steps",
            mae,
            start,
            nih,
            "mae-cocktail",
        ),
    ]
    if has_stage0:
        arms.append(Arm("mae-random-cocktail", "random → cocktail", mae))
    arms.append(Arm("cls-random", "random", cls))
    if has_stage0:
        arms.append(Arm("cls-imagenet", "ImageNet MAE", cls, STAGE0))
    return arms + [
        Arm("cls-chestxray14", "MAE on ChestX-ray14", cls, "mae-chestxray14"),
        Arm("cls-cocktail", "MAE on the cocktail", cls, "mae-cocktail"),
        Arm("cls-leak", "MAE on the cocktail with its leak", cls, "mae-leak"),
        Arm("cls-chestxray14-long", "MAE on ChestX-ray14, the cocktail's steps", cls, "mae-chestxray14-long"),
    ]


def explode_arms(has_stage0: bool, learning_rate: float) -> list[Arm]:
    """Fig. 5: the same pre-training at learning rates that are right, ten and a hundred times too high.

    Args:
        has_stage0: start from ImageNet weights; else from a run of our own at the right rate.
        learning_rate: the right one.
    """
    arms = [] if has_stage0 else [Arm("before", "before", "train_mae.py")]
    start = STAGE0 if has_stage0 else "before"
    return arms + [
        Arm(
            f"rate-{factor}",
            f"learning rate {factor * learning_rate:g}",
            "train_mae.py",
            start,
            ("--learning_rate", str(factor * learning_rate)),
        )
        for factor in (1, 10, 100)
    ]


@dataclass(frozen=True)
class Laboratory:
    """Where the runs lie and what they share.

    Attributes:
        output: a folder for each arm and seed goes below it.
        data_dir: as the scripts take it.
        stage0: folder or Hub id of ImageNet MAE weights, or None.
        words: options of each script, by its name; the recipe first.
    """

    output: Path
    data_dir: str
    stage0: str | None
    words: Mapping[str, tuple[str, ...]]

    def folder(self, arm: str, seed: int) -> Path:
        """Where one run writes."""
        return self.output / arm / f"seed{seed}"

    def metrics(self, arm: str, seed: int) -> dict[str, Any] | None:
        """The record of a finished run; None where it is not finished."""
        folder = self.folder(arm, seed)
        if not (folder / "README.md").is_file():
            return None
        record: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return record

    def command(self, arm: Arm, seed: int) -> list[str]:
        """What a user would type for this run."""
        folder = self.folder(arm.name, seed)
        words = [*self.words[arm.script], "--data_dir", self.data_dir, "--output_dir", str(folder)]
        words += ["--build_dir", str(self.output / "cocktail"), "--seed", str(seed), *arm.words]
        if arm.start is not None:
            source = self.stage0 if arm.start == STAGE0 else str(self.folder(arm.start, seed))
            assert source is not None, f"{arm.name} needs stage 0"
            words += ["--model_name_or_path", source]
        if arm.as_long_as is not None:
            longer = self.metrics(arm.as_long_as, seed)
            assert longer is not None, f"{arm.name} comes after {arm.as_long_as}"
            words += ["--max_steps", str(longer["training"]["steps"])]
        if newest_whole(folder) is not None:
            words += ["--resume_from_checkpoint", "true"]
        return [sys.executable, "-W", "ignore", arm.script, *words]

    def run(self, arm: Arm, seed: int) -> bool:
        """Run one arm with one seed, or go on with it; False where it was finished before.

        Raises:
            RunFailedError: the script failed.
        """
        if self.metrics(arm.name, seed) is not None:
            return False
        folder = self.folder(arm.name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with (folder / "printed.txt").open("a", encoding="utf-8") as log:
            done = subprocess.run(
                self.command(arm, seed), cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        if done.returncode:
            printed = folder / "printed.txt"
            said = printed.read_text(encoding="utf-8").strip().splitlines()[-8:]
            raise RunFailedError(
                f"{arm.name} with seed {seed} ended with exit code {done.returncode}; {printed} ends so:\n  "
                + "\n  ".join(said)
            )
        return True


def run_all(laboratory: Laboratory, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
    """Run every arm with every seed, in order; what is finished is skipped.

    Raises:
        RunFailedError: a script failed; the finished runs stay, the same command goes on.
    """
    total, number = len(arms) * len(seeds), 0
    for seed in seeds:
        for arm in arms:
            number += 1
            logger.info("[%d/%d] %s, seed %d: %s", number, total, arm.name, seed, arm.label)
            if not laboratory.run(arm, seed):
                logger.info("        finished before, skipped")
