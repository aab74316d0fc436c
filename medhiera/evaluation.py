"""A classifier's report on a split: everything that evaluate_cls.py and the end of train_cls.py write.

Stands on metrics, calibration, operating_points, subgroups and pointing_game; figures and
cards show its record.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from medhiera import evaluation_figures, figures
from medhiera.calibration import fit_rescaling, measure_calibration, rescale
from medhiera.metrics import rank_findings
from medhiera.operating_points import RULES, apply_thresholds, choose_thresholds
from medhiera.pointing_game import Shown
from medhiera.resampling import Floats
from medhiera.subgroups import groups_of, score_subgroups

logger = logging.getLogger(__name__)

LABEL_SUFFIX = " (label)"


@dataclass(frozen=True)
class Predictions:
    """What a model said of a split, and what is true.

    Attributes:
        probabilities: (images, findings).
        labels: (images, findings); 1, 0 or NaN.
        rows: the columns `image_id`, `patient_id`, `sex`, `age_years` and `view` of the images.
    """

    probabilities: Floats
    labels: Floats
    rows: pd.DataFrame

    @classmethod
    def of(cls, rows: Dataset, probabilities: Floats) -> "Predictions":
        """Join a model's outputs with the rows they were made from, in their order."""
        columns = ["image_id", "patient_id", "sex", "age_years", "view"]
        table = pd.DataFrame({column: list(rows[column]) for column in columns})
        labels = np.array(rows["labels"], dtype=np.float64)
        return cls(np.asarray(probabilities, dtype=np.float64), labels, table)

    def table(self, names: Sequence[str]) -> pd.DataFrame:
        """One row an image: who it is, a column of probabilities a finding, then one of labels a finding."""
        chances = pd.DataFrame(self.probabilities, columns=list(names))
        labels = pd.DataFrame(self.labels, columns=[f"{name}{LABEL_SUFFIX}" for name in names])
        return pd.concat([self.rows, chances, labels], axis=1)


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
    groups = groups_of(*(_without_nan(test.rows[column]) for column in ("sex", "age_years", "view")))
    result["subgroups"] = score_subgroups(
        test.probabilities, test.labels, names, groups, patients, bootstrap_resamples, seed
    )
    return result


def _without_nan(column: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in column]


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


def read_predictions(path: Path, names: Sequence[str], image_ids: Sequence[str]) -> Floats:
    """Another model's probabilities for the same images, from its predictions.parquet.

    Args:
        path: as evaluate_cls.py wrote it.
        names: the findings wanted, in order.
        image_ids: the images wanted, in order.

    Returns:
        (images, findings).

    Raises:
        ValueError: no such file, or it lacks a finding or an image.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name the predictions.parquet of another evaluate_cls.py run")
    table = pd.read_parquet(path)
    absent = [name for name in ["image_id", *names] if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {absent[0]!r}; wanted predictions of the same findings")
    table = table.set_index("image_id")
    missing = [image for image in image_ids if image not in table.index]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(image_ids)} images, such as {missing[0]}; both models must "
            "be evaluated on the same split"
        )
    return np.asarray(table.loc[list(image_ids), list(names)], dtype=np.float64)
