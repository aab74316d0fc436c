"""The masks experiment's verdicts: only what seeds and patients both show counts as better or worse."""

import numpy as np
import pandas as pd
import pytest
from stage_records import pretraining_record

from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import MAEArguments
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import ReconstructionReport
from medhiera.experiments.arms import HOW_MUCH_MASKED, REGIONS, mask_arms
from medhiera.experiments.budgets import RATIO_BUDGETS
from medhiera.experiments.masks_report import masks_report
from medhiera.experiments.runner import ExperimentRunner
from medhiera.shipped_files import script
from reproduce import EXPERIMENTS

IMAGES = 300


def write_predictions(folder, shift, seed):
    """Scores that share the patients' noise; `shift` is how far the sick stand above."""
    labels = (np.arange(IMAGES) % 3 == 0).astype(np.float64)[:, None]
    shared = np.random.default_rng(0).normal(size=(IMAGES, 1))
    own = np.random.default_rng(seed).normal(size=(IMAGES, 1))
    logits = shared + 0.05 * own + shift * labels
    rows = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(IMAGES)],
            "patient_id": [f"p{n // 2}" for n in range(IMAGES)],
            "sex": None, "age_years": np.nan, "view": None,
        }
    )  # fmt: skip
    folder.mkdir(parents=True)
    scores = 1 / (1 + np.exp(-logits))
    predictions = Predictions(scores, labels, ["Pneumonia"], rows["patient_id"].tolist(), rows)
    predictions.table().to_parquet(folder / "predictions.parquet")


@pytest.fixture
def runner(tmp_path):
    """Contours help the probe in every seed and fine-tuning in some; the rectangle's loss is higher."""
    runner = ExperimentRunner(tmp_path, "DATA", None, {})
    for seed in range(3):
        for region in REGIONS:
            folder = runner.folder(f"mae-{region}", seed)
            folder.mkdir(parents=True)
            loss = 0.7 + 0.001 * seed + (0.05 if region == "rectangle" else 0.0)
            pretraining_record(evaluation=ReconstructionReport(1.2, loss, 0.6, loss + 0.1)).write(folder)
            (folder / "README.md").write_text("card")
            shift = 1.5 + (0.5 if region == "contour" else 0.0)
            write_predictions(runner.folder(f"probe-{region}", seed), shift, seed)
            by_seed = [0.3, -0.3, 0.0][seed] if region == "contour" else 0.0
            write_predictions(runner.folder(f"test-{region}", seed), 2.0 + by_seed, seed)
        write_predictions(runner.folder("test-before", seed), 0.5, seed)
    return runner


def test_so_few_patients_that_equal_models_differ_decide_nothing(runner):
    for path in sorted(runner.output.rglob("predictions.parquet")):
        table = pd.read_parquet(path)
        table.assign(patient_id=[f"p{n // 60}" for n in range(IMAGES)]).to_parquet(path)
    report = masks_report(runner, range(3), "", "no stage 1")
    rows = [line.split(" | ") for line in report.splitlines() if ", AUROC | " in line and " − " in line]
    assert len(rows) == 9 and {row[-1] for row in rows} == {"too few patients |"}
    assert "**Pneumonia: fewer than 10 patients with a positive image" in report
    assert "| masked loss |" in report and report.count("| worse |") == 1  # of images, not of patients


def test_a_verdict_wants_seeds_and_patients(runner):
    report = masks_report(runner, range(3), "a note", "no stage 1 (random)")
    rows = {tuple(line.split(" | ")[:2]): line for line in report.splitlines() if line.startswith("| ")}
    verdict = lambda one, measure: rows[f"| {one}", measure].split(" | ")[-1].rstrip(" |")  # noqa: E731
    assert verdict("contour − none", "linear probe, AUROC") == "better"
    assert verdict("rectangle − none", "linear probe, AUROC") == "undecided"
    assert verdict("contour − none", "fine-tuned, AUROC") == "undecided"
    assert verdict("rectangle − before", "fine-tuned, AUROC") == "better"
    assert verdict("rectangle − none", "masked loss") == "worse"
    assert verdict("contour − rectangle", "masked loss") == "better"
    assert "**a note**" in report and "300 test images of 150 patients" in report
    reached = next(line for line in report.splitlines() if line.startswith("| each chest's contour |"))
    assert reached.startswith("| each chest's contour | 0.7010 (0.6985 to 0.7035) | 0.8010 (")


def test_one_seed_decides_nothing(runner):
    report = masks_report(runner, range(1), "", "no stage 1 (random)")
    assert "better" not in report.split("verdict |")[1] and "worse" not in report.split("verdict |")[1]


@pytest.mark.parametrize("has_stage0", [False, True])
def test_the_arms_differ_in_the_region_alone(has_stage0):
    arms = {arm.name: arm for arm in mask_arms(has_stage0)}
    own = {arms[f"mae-{region}"].arguments for region in REGIONS}
    assert own == {("--mask_region", region) for region in REGIONS}
    for region in REGIONS:
        assert arms[f"mae-{region}"].start == arms["cls-before"].start
        assert arms[f"cls-{region}"].start == arms[f"probe-{region}"].start == f"mae-{region}"
        assert arms[f"test-{region}"].start == f"cls-{region}"
        assert arms[f"cls-{region}"].arguments == arms["cls-before"].arguments


@pytest.mark.parametrize("budget", ["smoke", "paper"])
@pytest.mark.parametrize("has_stage0", [False, True])
def test_mask_ratios_are_arms_of_one_command(tmp_path, budget, has_stage0):
    """What docs/recipe.md lists: .6, .75 and .85, each parsed as the script would."""
    runner = ExperimentRunner(tmp_path, "DATA", str(tmp_path), RATIO_BUDGETS[budget])
    arms = {arm.name: arm for arm in mask_arms(has_stage0, HOW_MUCH_MASKED)}
    ratios = {}
    for name in ("mae-0.6", "mae-0.75", "mae-0.85"):
        command = runner.command(arms[name], 0)
        words = command[command.index(script("train_mae.py")) + 1 :]
        recipe = parse_config(MAEArguments, [*words, "--use_cpu", "true"])
        ratios[name] = (recipe.stage.mask_ratio, recipe.stage.eval_mask_ratio)
        assert arms[name.replace("mae", "cls")].start == arms[name.replace("mae", "probe")].start == name
    assert ratios == {"mae-0.6": (0.6, 0.6), "mae-0.75": (0.75, 0.6), "mae-0.85": (0.85, 0.6)}
    assert "ratios" in EXPERIMENTS
