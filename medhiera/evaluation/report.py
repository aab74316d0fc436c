"""A classifier's report on a split: everything that evaluate_cls.py and the end of train_cls.py write.

Stands on the other files of this room, which compute one thing each; figures and cards show its record.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medhiera.evaluation import figures
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.calibration import fit_rescaling, measure_calibration, rescale
from medhiera.evaluation.comparison_results import Comparison
from medhiera.evaluation.exclusive import NO_THRESHOLD, score_calls
from medhiera.evaluation.localization import HeatMapExample
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import (
    CalibrationReport,
    ClassificationReport,
    MeanCalibration,
    ModelChoice,
    OperatingPoints,
    Rescaling,
)
from medhiera.evaluation.subgroups import score_subgroups
from medhiera.evaluation.thresholds import score_thresholds


def report(
    predictions: Predictions,
    validation: Predictions | None,
    bootstrap: Bootstrap,
    *,
    split: str,
    pointing_game: LocalizationReport,
    comparison: Comparison | None = None,
    of_model: ModelChoice | None = None,
) -> ClassificationReport:
    """Every number of a split.

    Args:
        predictions: of the split that is reported: probabilities, with rows.
        validation: another split of the same data, on which thresholds and rescaling are chosen; None takes
            those of the model, if it has any. Labels that exclude each other have neither.
        bootstrap: of patients, behind every interval.
        split: the reported split's name.
        pointing_game: from localization.evaluate_localization, or the reason why it was not played.
        comparison: from comparison.compare_models; None where there is no other model.
        of_model: thresholds and rescaling of the model's record.

    Raises:
        ValueError: the scores are no probabilities, or the predictions have no rows.
    """
    ranking = rank_findings(predictions, bootstrap)
    exclusive = None
    if predictions.is_exclusive:
        exclusive = score_calls(predictions, bootstrap)
        validation = of_model = None  # probabilities that are rescaled one by one no longer sum to 1
        points = OperatingPoints(findings={}, reason=NO_THRESHOLD)
    else:
        points = score_thresholds(predictions, validation, bootstrap, of_model)
    calibration, rescaling = _calibration(predictions, validation, of_model)
    return ClassificationReport(
        **vars(ranking),
        split=split,
        calibration=calibration,
        operating_points=points,
        rescaling=rescaling,
        subgroups=score_subgroups(predictions, bootstrap),
        pointing_game=pointing_game,
        comparison=comparison,
        exclusive=exclusive,
    )


def _calibration(
    predictions: Predictions, validation: Predictions | None, of_model: ModelChoice | None
) -> tuple[CalibrationReport, dict[str, Rescaling | None]]:
    """Calibration as the model is and after rescaling: fitted on validation, or else the model's own."""
    before = measure_calibration(predictions)
    if validation is not None:
        rescaling = fit_rescaling(validation)
    elif of_model is not None:
        rescaling = of_model.rescaling
    else:
        return before, {}
    rescaled = rescale(predictions.scores, rescaling, predictions.finding_names)
    after = measure_calibration(replace(predictions, scores=rescaled))
    findings = {
        name: replace(entry, rescaled_ece=after.findings[name].ece) for name, entry in before.findings.items()
    }
    means = MeanCalibration(mean_ece=after.mean_ece, mean_brier=after.mean_brier)
    return replace(before, findings=findings, rescaled=means), rescaling


def draw(
    result: ClassificationReport,
    predictions: Predictions,
    examples: Sequence[HeatMapExample],
    folder: Path,
    title: str,
    mark: str,
) -> None:
    """All figures of a report that have something to show; those of an earlier one in the folder go first.

    Args:
        result: from `report`.
        predictions: what it was made from.
        examples: heat maps on findings with boxes; may be empty.
        folder: where the PNGs go.
        title: above each.
        mark: at the bottom of each, see plotting.save.
    """
    for name in ("roc", "auroc", "reliability", "subgroups", "heat_maps"):
        (folder / f"{name}.png").unlink(missing_ok=True)
    figures.roc_curves(predictions, result, folder / "roc.png", title=title, mark=mark)
    figures.auroc_points(result, folder / "auroc.png", title=title, mark=mark)
    if figures.has_curve(result.calibration):
        figures.reliability(result.calibration, folder / "reliability.png", title=title, mark=mark)
    if figures.has_dot(result.subgroups):
        figures.subgroup_dots(result.subgroups, folder / "subgroups.png", title=title, mark=mark)
    if examples:
        path = folder / "heat_maps.png"
        figures.heat_map_rows(examples, result.pointing_game, path, title=title, mark=mark)
