"""A classifier's report on a split: everything that evaluate_cls.py and the end of train_cls.py write.

Stands on the other files of this room, which compute one thing each; figures and cards show its record.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medhiera.evaluation import figures
from medhiera.evaluation import figures as evaluation_figures
from medhiera.evaluation.calibration import fit_rescaling, measure_calibration, rescale
from medhiera.evaluation.localization import Shown
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions, without_nan
from medhiera.evaluation.subgroups import groups_of, score_subgroups
from medhiera.evaluation.thresholds import RULES, apply_thresholds, choose_thresholds


def report(
    names: Sequence[str],
    test: Predictions,
    validation: Predictions | None,
    bootstrap_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every number of a split.

    Args:
        names: of the findings, one per column.
        test: the split that is reported.
        validation: another split of the same data, on which thresholds and rescaling are chosen; None leaves
            both out.
        bootstrap_resamples: of patients, behind every interval.
        seed: of the resampling.

    Returns:
        What metrics.rank_findings returns, and `calibration` (as the model is, and `rescaled`),
        `operating_points`, `subgroups`; fit for JSON.
    """
    patients = test.rows["patient_id"].tolist()
    result = rank_findings(test.probabilities, test.labels, names, patients, bootstrap_resamples, seed)
    result["calibration"] = measure_calibration(test.probabilities, test.labels, names)
    if validation is None:
        reason = "no validation split to choose thresholds on"
        result["operating_points"] = {"findings": {}, "reason": reason}
        result["rescaling"] = {}
    else:
        chosen = choose_thresholds(validation.probabilities, validation.labels, names)
        applied = apply_thresholds(
            chosen, test.probabilities, test.labels, names, patients, bootstrap_resamples, seed
        )
        result["operating_points"] = {
            "findings": applied,
            "validation_images": len(validation.labels),
        } | _mean_rates(applied)
        result["rescaling"] = fit_rescaling(validation.probabilities, validation.labels, names)
        repaired = rescale(test.probabilities, result["rescaling"], names)
        after = measure_calibration(repaired, test.labels, names)
        result["calibration"]["rescaled"] = {key: after[key] for key in ("mean_ece", "mean_brier")}
        for name, entry in after["findings"].items():
            if "ece" in entry:
                result["calibration"]["findings"][name]["rescaled_ece"] = entry["ece"]
    groups = groups_of(*(without_nan(test.rows[column]) for column in ("sex", "age_years", "view")))
    result["subgroups"] = score_subgroups(
        test.probabilities, test.labels, names, groups, patients, bootstrap_resamples, seed
    )
    return result


def _mean_rates(applied: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean sensitivity and specificity over findings, by rule."""
    known = [entry for entry in applied.values() if "reason" not in entry]
    means: dict[str, Any] = {}
    for rule in RULES:
        means[rule] = {}
        for measure in ("sensitivity", "specificity"):
            values = [entry[rule][measure] for entry in known if entry[rule][measure] is not None]
            means[rule][measure] = float(np.mean(values)) if values else None
    return {"means": means}


def draw(
    record: Mapping[str, Any],
    names: Sequence[str],
    test: Predictions,
    shown: Sequence[Shown],
    folder: Path,
    title: str,
) -> None:
    """All figures of a report.

    Args:
        record: from `report`, with `pointing_game` where it was played.
        names: of the findings.
        test: the split.
        shown: heat maps on findings with boxes; may be empty.
        folder: where the PNGs go.
        title: above each.
    """
    figures.roc_curves(test.probabilities, test.labels, record, folder / "roc.png", title=title)
    figures.auroc_bars(record, folder / "auroc.png", title=title)
    evaluation_figures.reliability(record["calibration"], folder / "reliability.png", title=title)
    evaluation_figures.subgroup_dots(record["subgroups"], folder / "subgroups.png", title=title)
    if shown:
        evaluation_figures.heat_map_rows(
            shown, record["pointing_game"], folder / "heat_maps.png", title=title
        )
