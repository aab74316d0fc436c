"""The numbers of an evaluation as lines of text, for the log and the demo's summary."""

from collections.abc import Iterable, Sequence

from medhiera.evaluation.bootstrap import Difference
from medhiera.evaluation.comparison_results import Comparison, FindingComparison, MeanComparison
from medhiera.evaluation.exclusive import ExclusiveReport
from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.evaluation.probe_results import ProbeFit
from medhiera.evaluation.results import (
    ClassificationReport,
    Interval,
    MeanScores,
    OperatingPoints,
    RankingReport,
)
from medhiera.formatting import threshold_text, value_text


def format_table(report: RankingReport) -> list[str]:
    """A plain-text table: a line a finding, then the means.

    Args:
        report: intervals and values may be missing.
    """
    lines = [f"{'finding':<20} AUROC     95 % interval    AP        95 % interval    positives of images"]
    for name, entry in report.findings.items():
        images = f"{entry.positives} of {entry.positives + entry.negatives}"
        if entry.auroc is None or entry.average_precision is None:
            lines.append(f"{name.replace('_', ' '):<20} {'–':<9} {entry.reason:<43} {images}")
            continue
        star = "*" if entry.has_few_cases else " "
        numbers = f"{entry.auroc:.3f}{star}    {value_text(entry.auroc_interval):<16} "
        numbers += f"{entry.average_precision:.3f}{star}    {value_text(entry.average_precision_interval)}"
        lines.append(f"{name.replace('_', ' '):<20} {numbers:<53} {images}")
    means: list[tuple[str, MeanScores]] = [("all", report), ("diseases", report.diseases)]
    if report.diseases.findings_in_mean == report.findings_in_mean:
        means.pop()
    if pair_of(report):
        means = []  # each has the same
    lines += [_mean_line(word, mean, report) for word, mean in means]
    return lines + [f"* {sentence}" for sentence in few_cases(report)] + without_interval(report)


def without_interval(report: RankingReport) -> list[str]:
    """A sentence where a value has no interval although patients were resampled; else none.

    Args:
        report: whose log, table or card says it.
    """
    limits: list[Interval] = []
    for entry in report.findings.values():
        if entry.auroc is not None:
            limits += [entry.auroc_interval, entry.average_precision_interval]
    for means in (report, report.diseases):
        if means.mean_auroc is not None:
            limits += [means.mean_auroc_interval, means.mean_average_precision_interval]
    if isinstance(report, ClassificationReport):
        groups = (group for table in report.subgroups.values() for group in table.groups.values())
        limits += [group.mean_auroc_interval for group in groups if group.mean_auroc is not None]
        if report.exclusive is not None and report.exclusive.balanced_accuracy is not None:
            limits.append(report.exclusive.balanced_accuracy_interval)
    if not report.bootstrap_resamples or None not in limits:
        return []
    return ["no interval: every resample gives the same value, which does not make it certain"]


def few_cases(report: RankingReport) -> list[str]:
    """A sentence where too few patients have a finding, or are without it, for an interval; else none.

    Args:
        report: whose log, table or card says it.
    """
    few = [name for name, entry in report.findings.items() if entry.has_few_cases and entry.auroc is not None]
    if not few:
        return []
    fewest = min(
        min(report.findings[name].positive_patients, report.findings[name].negative_patients) for name in few
    )
    return [
        f"{', '.join(few).replace('_', ' ')}: fewer than {FEWEST_PATIENTS} patients with a positive image, "
        f"or with a negative one ({fewest} at the least), are too few for an interval worth reading, however "
        "narrow it is: trust neither these values nor their intervals, nor a mean with them"
    ]


def pair_of(report: RankingReport) -> list[str]:
    """Two labels that exclude each other, whose AUROC is one number; none where there are others."""
    exclusive = report.exclusive if isinstance(report, ClassificationReport) else None
    return [] if exclusive is None else exclusive.pair


def _mean_line(word: str, mean: MeanScores, report: RankingReport) -> str:
    """The line of one mean, starred where a finding in it is."""
    is_shaky = any(report.findings[name].has_few_cases for name in mean.findings_in_mean)
    label = f"mean of {word} {len(mean.findings_in_mean)}{'*' if is_shaky else ''}"
    if mean.mean_auroc is None or mean.mean_average_precision is None:
        return f"{label:<20} {mean_as_text(mean)}"
    numbers = f"{mean.mean_auroc:.3f}     {value_text(mean.mean_auroc_interval):<16} "
    numbers += f"{mean.mean_average_precision:.3f}     {value_text(mean.mean_average_precision_interval)}"
    return f"{label:<20} {numbers}"


def mean_as_text(means: MeanScores) -> str:
    """The mean AUROC and its interval, or why there is none."""
    if means.mean_auroc is None:
        return "–    (no finding has both present and absent images)"
    return f"{means.mean_auroc:.3f} (95 % interval: {value_text(means.mean_auroc_interval)})"


def chance_warning(means: RankingReport, where: str) -> list[str]:
    """A sentence where the interval of the mean AUROC (without one, the mean) is not above chance; else none.

    Args:
        means: that are judged.
        where: begins the sentence: "On the test split".
    """
    if means.mean_auroc is None:
        return []
    low, high = means.mean_auroc_interval or (means.mean_auroc, means.mean_auroc)
    if low > 0.5:
        return []
    said = f"{where} the {'' if pair_of(means) else 'mean '}AUROC is {mean_as_text(means)}: "
    if all(means.findings[name].has_few_cases for name in means.findings_in_mean):
        return [f"{said}of too few patients to judge the model by"]
    if high < 0.5:
        return [
            f"{said}below 0.5, so it ranks worse than chance; do not use it, and look whether labels are "
            "swapped"
        ]
    return [f"{said}it cannot be told from 0.5, which a model that knows nothing reaches"]


def call_lines(report: ExclusiveReport | None) -> list[str]:
    """A plain-text table of what each label's images are called; nothing where labels may occur together.

    Args:
        report: intervals and values may be missing.
    """
    if report is None:
        return []
    chance = _number(report.accuracy_of_commonest)
    lines = [
        f"accuracy of the most probable label {_number(report.accuracy)} "
        f"({value_text(report.accuracy_interval)}); of the commonest label alone {chance}",
        f"balanced accuracy {_number(report.balanced_accuracy)} "
        f"({value_text(report.balanced_accuracy_interval)})",
        f"{'label':<20} recall    95 % interval    precision 95 % interval    called",
    ]
    for name, entry in report.labels.items():
        called = ", ".join(f"{other} {images}" for other, images in entry.called.items())
        lines.append(
            f"{name.replace('_', ' '):<20} "
            f"{_number(entry.recall):<9} {value_text(entry.recall_interval):<16} "
            f"{_number(entry.precision):<9} {value_text(entry.precision_interval):<16} {called}"
        )
    return [*lines, ""]


def few_labels_lines(fit: ProbeFit) -> list[str]:
    """A plain-text table: what a linear probe reaches with few labels.

    Args:
        fit: with few_labels, or without: then there is no line.
    """
    if not fit.few_labels:
        return []
    lines = ["few labels            mean AUROC   95 % interval     of draws          findings  images"]
    for each in fit.few_labels:
        label = f"{each.shots} + {each.shots} patients" if each.shots else f"{100 * (each.share or 0):g} %"
        if each.mean_auroc is None:
            lines.append(f"{label:<21} –            {each.reason or mean_as_text(each)}")
            continue
        drawn = f"{min(each.draw_aurocs):.3f} to {max(each.draw_aurocs):.3f}"
        images = sorted({min(each.train_images), max(each.train_images)})
        numbers = f"{each.mean_auroc:.3f}        {value_text(each.mean_auroc_interval):<17} {drawn:<17}"
        findings = len(each.findings_in_mean)
        lines.append(f"{label:<21} {numbers} {findings:<9} {' to '.join(map(str, images))}")
    scored = [each.mean_auroc_interval for each in fit.few_labels if each.mean_auroc is not None]
    note = "; none where every resample gives the same value" if None in scored and any(scored) else ""
    return [*lines, f"intervals: of the mean over draws, {fit.intervals_over} resampled{note}"]


def sensitivity_lines(points: OperatingPoints) -> list[str]:
    """A plain-text table: sensitivity and specificity at Youden's threshold; nothing without thresholds.

    Args:
        points: intervals and values may be missing.
    """
    if points.reason is not None:
        return []
    lines = [
        f"{_at_thresholds(points)} (largest sum of sensitivity and specificity):",
        f"{'finding':<20} threshold sensitivity 95 % interval    specificity 95 % interval",
    ]
    for name, entry in points.findings.items():
        label, point = f"{name.replace('_', ' '):<20}", entry.youden
        if point is None:
            lines.append(f"{label} –         {entry.reason}")
            continue
        cells = f"{_number(point.sensitivity):<11} {value_text(point.sensitivity_interval):<16} "
        cells += f"{_number(point.specificity):<11} {value_text(point.specificity_interval)}"
        lines.append(f"{label} {threshold_text(point.threshold):<9} {cells}".rstrip())
    return [*lines, ""]


def _at_thresholds(points: OperatingPoints) -> str:
    """Where the thresholds come from, as a table begins."""
    images = "" if points.validation_images is None else f"{points.validation_images} "
    if points.are_the_models:
        return f"at the model's own thresholds, chosen on the {images}validation images of its training"
    return f"at thresholds chosen on {images}validation images"


def threshold_lines(points: OperatingPoints) -> list[str]:
    """A plain-text table: accuracy and F1 at the threshold with the largest F1 on validation.

    Args:
        points: intervals and values may be missing.
    """
    if points.reason is not None:
        return [f"no thresholds: {points.reason}"]
    lines = [
        f"{_at_thresholds(points)} (largest F1):",
        f"{'finding':<20} threshold accuracy  95 % interval    none called  F1        95 % interval    "
        "all called",
    ]
    for name, entry in points.findings.items():
        label, point = f"{name.replace('_', ' '):<20}", entry.best_f1
        if point is None:
            lines.append(f"{label} –         {entry.reason}")
            continue
        rows = (
            (point.accuracy, point.accuracy_interval, entry.accuracy_of_none),
            (point.f1, point.f1_interval, entry.f1_of_all),
        )
        cells = [
            f"{_number(value):<9} {value_text(limits):<16} {_number(trivial):<12}"
            for value, limits, trivial in rows
        ]
        lines.append(f"{label} {threshold_text(point.threshold):<9} {' '.join(cells)}".rstrip())
    if (mean := points.means.get("best_f1")) is not None and mean.f1 is not None:
        count = "" if mean.findings_in_mean is None else f" of {len(mean.findings_in_mean)}"
        lines.append(f"{f'mean{count}':<30} {_number(mean.accuracy):<39} {_number(mean.f1)}")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def comparison_lines(comparison: Comparison) -> list[str]:
    """A plain-text table of two models' differences."""
    columns = "AUROC     95 % interval      bootstrap p ", "AP        95 % interval      bootstrap p"
    lines = [f"{'difference of':<20} {' '.join(columns)}"]
    for name, entry in comparison.findings.items():
        label = f"{name.replace('_', ' '):<20}"
        lines.append(f"{label} {difference_text(entry) or f'–         {entry.reason}'}")
    means = {"all": comparison.mean, "diseases": comparison.diseases}
    for word, mean in means.items():
        if mean is not None:
            lines.append(f"{f'mean of {word}':<20} {difference_text(mean)}")
    return [*lines, *few_compared([*comparison.findings.values(), *means.values()])]


def difference_text(
    compared: FindingComparison | MeanComparison, measures: Sequence[str] = ("auroc", "average_precision")
) -> str:
    """Differences side by side, each with its interval and p-value; starred where patients are too few."""
    parts, star = [], "*" if compared.has_few_cases else " "
    for measure in measures:
        one: Difference | None = getattr(compared, measure)
        if one is not None:
            limits = "none" if one.interval is None else "{:+.3f} to {:+.3f}".format(*one.interval)
            p_value = "–" if one.p_value is None else f"{one.p_value:.3f}"
            parts.append(f"{one.difference:+.3f}{star}   {limits:<18} {p_value:<12}")
    return " ".join(parts).rstrip()


def few_compared(rows: Iterable[FindingComparison | MeanComparison | None]) -> list[str]:
    """The footnote of starred differences; none where no row has a star."""
    if not any(row is not None and row.has_few_cases for row in rows):
        return []
    return [
        f"* a finding with fewer than {FEWEST_PATIENTS} patients with a positive image, or with a negative "
        "one: too few for a p-value; trust neither the difference nor its interval"
    ]
