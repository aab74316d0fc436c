"""Finished runs of benchmarks.small_result, as far as its plan and its report read them."""

from dataclasses import replace

import numpy as np
import pandas as pd
from stage_records import SOME_REPORT, classification_record

from benchmarks.small_laboratory import Laboratory
from benchmarks.small_plan import FULL, classifier_arm
from benchmarks.small_score import SPLITS, write
from medhiera.evaluation.predictions import Predictions

RATES = FULL.rates


def laboratory(folder, budget=FULL):
    return Laboratory(folder, folder / "task", folder / "cocktail", "TEACHER", budget)


def write_run(lab, arm, seed, auroc):
    """A finished classifier's folder, as far as the plan reads it."""
    folder = lab.folder(arm.name, seed)
    folder.mkdir(parents=True)
    classification_record(replace(SOME_REPORT, mean_auroc=auroc)).write(folder)
    (folder / "README.md").write_text("done")


def predictions(seed, skill, images=40):
    """Scores of one finding that rank better the greater the skill."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 2.0
    scores = 1 / (1 + np.exp(-skill * (labels - 0.5) - generator.normal(size=images)))
    names = [f"image folder/{number}" for number in range(images)]
    rows = pd.DataFrame({"image_id": names, "patient_id": names, "sex": "", "age_years": np.nan, "view": ""})
    return Predictions(scores[:, None], labels[:, None], ["Pneumonia"], names, rows)


def finish(lab, contestant, share, skills, best=RATES[2]):
    """All of one line of the plan.

    Args:
        skills: of each seed's predictions.
        best: the rate that its sweep chooses.
    """
    tried = [rate for rate in lab.budget.rates[1:-1] if rate != best]
    for rate in [*tried, best]:
        write_run(lab, classifier_arm(contestant, share, rate), 0, 0.8 + 0.1 * (rate == best))
    arm = classifier_arm(contestant, share, best)
    for seed in range(share.seeds):
        if seed:
            write_run(lab, arm, seed, 0.8)
        write(lab.scores(arm.name, seed), {split: predictions(seed, skills[seed]) for split in SPLITS})


def finish_probe(lab, name, skill):
    """A pre-training's probe."""
    write(lab.scores(f"probe-{name}", 0), {split: predictions(0, skill) for split in SPLITS})
