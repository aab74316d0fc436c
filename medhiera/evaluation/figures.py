"""The figures of a report: ROC curves, AUROC, reliability, subgroups, heat maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Rectangle
from sklearn.metrics import roc_curve

from medhiera.evaluation.localization import HeatMapExample
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import FEWEST_PATIENTS, Predictions
from medhiera.evaluation.results import (
    CalibrationReport,
    FindingCalibration,
    GroupScore,
    RankingReport,
    SubgroupReport,
)
from medhiera.evaluation.tables import pair_of
from medhiera.formatting import percent
from medhiera.plotting import (
    BLUE,
    GRAY,
    HEAT_OPACITY,
    OKABE_ITO,
    ORANGE,
    heat_colors,
    heat_on_mid_gray,
    save,
    subplots,
)

FEWEST_IMAGES_OF_A_CURVE = 100
"""Below so many images a tenth of them, one dot of a reliability curve, is too few to be a share."""


_FEWEST_INCHES = 4.6
"""Width of a figure of one panel or two, so that title and axis labels find room."""

_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}

_REASON_TEXT: dict[str, Any] = {"va": "center", "fontsize": 8, "color": GRAY, "bbox": _WHITE}
"""Words in the place of a dot, on white: the line of chance runs there."""


def has_curve(calibration: CalibrationReport) -> bool:
    """Whether any finding has enough images for a reliability curve."""
    return any(_images_of(entry) >= FEWEST_IMAGES_OF_A_CURVE for entry in calibration.findings.values())


def _images_of(entry: FindingCalibration) -> int:
    return sum(part.images for part in entry.curve)


def has_dot(subgroups: Mapping[str, SubgroupReport]) -> bool:
    """Whether any group was large enough to be scored."""
    return any(
        entry.mean_auroc is not None for table in subgroups.values() for entry in table.groups.values()
    )


def reliability(calibration: CalibrationReport, path: Path, *, title: str, mark: str = "") -> None:
    """One small panel a finding: share of positives against mean probability, in bins of equally many images.

    Each panel reaches as far as its own values do, for rare findings would otherwise be a dot in a corner.

    Args:
        calibration: from calibration.measure_calibration.
        path: the PNG to write.
        title: above the panels.
        mark: at the bottom, see plotting.save.
    """
    names = list(calibration.findings)
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(max(2.3 * columns, _FEWEST_INCHES), 2.45 * rows + 0.4),
        squeeze=False,
    )
    for index, axis in enumerate(axes.flat):
        if index >= len(names):
            axis.set_axis_off()
            continue
        axis.set_title(names[index].replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_aspect("equal")
        _reliability_panel(axis, calibration.findings[names[index]])
    figure.suptitle(f"{title}: are the probabilities right?", fontsize=11)
    figure.supxlabel(
        "mean probability given\n(ten bins of equally many images; bars: 95 %; dashed: calibrated)",
        fontsize=9,
    )
    figure.supylabel("share of images with the finding", fontsize=9)
    save(figure, path, mark)


def _reliability_panel(axis: Any, entry: FindingCalibration) -> None:
    """One finding's curve with its bars, or why it has none."""
    images = _images_of(entry)
    if images < FEWEST_IMAGES_OF_A_CURVE:
        reason = entry.reason or f"{images} images, too few"
        axis.text(0.5, 0.5, reason, ha="center", va="center", fontsize=8, color=GRAY, wrap=True)
        axis.set_xticks([])
        axis.set_yticks([])
        return
    predicted = [part.predicted for part in entry.curve]
    observed = [part.observed for part in entry.curve]
    highest = [part.interval[1] for part in entry.curve]
    end = min(1.0, 1.05 * max(*predicted, *highest, 0.01))
    axis.plot([0, end], [0, end], color=GRAY, linewidth=0.8, linestyle="--")
    for part in entry.curve:
        axis.plot([part.predicted] * 2, part.interval, color=BLUE, linewidth=0.8, alpha=0.5)
    axis.plot(predicted, observed, color=BLUE, marker="o", markersize=3, linewidth=1.2)
    axis.set_xlim(0, end)
    axis.set_ylim(0, end)
    axis.locator_params(nbins=4)
    axis.text(0.96, 0.04, f"ECE {entry.ece:.3f}", transform=axis.transAxes, ha="right", fontsize=8)


def subgroup_dots(subgroups: Mapping[str, SubgroupReport], path: Path, *, title: str, mark: str = "") -> None:
    """A dot a group with its interval: mean AUROC over the findings that all groups of the attribute share.

    Args:
        subgroups: from subgroups.score_subgroups.
        path: the PNG to write.
        title: above the dots.
        mark: at the bottom, see plotting.save.
    """
    lines: list[tuple[str, str, GroupScore | str]] = []
    for attribute, table in subgroups.items():
        count, total = len(table.findings_in_mean), len(table.findings_in_mean + table.findings_left_out)
        star = "*" if table.findings_left_out else ""
        heading = f"{attribute} ({count} of {total} findings{star})" if total else attribute
        if not table.groups:
            lines.append((heading, "", table.reason or ""))
        lines += [(heading, name, entry) for name, entry in table.groups.items()]
    notes = left_out_notes(subgroups)
    figure, axis = subplots(figsize=(7.5, 1.5 + 0.34 * len(lines) + 0.3 * len(notes)))
    _group_lines(axis, lines)
    groups = [entry for _, _, entry in lines if isinstance(entry, GroupScore)]
    level = "image" if all(entry.patients == entry.images for entry in groups) else "patient"
    scored = {heading for heading, _, entry in lines if isinstance(entry, GroupScore) and not entry.reason}
    advice = "; compare within a color only" if len(scored) > 1 else ""
    axis.set_xlabel(f"mean AUROC, 95 % {level}-level interval{advice}", fontsize=9)
    axis.set_title(title, fontsize=11)
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=7, wrap=True)
    save(figure, path, mark)


def _group_lines(axis: Any, lines: Sequence[tuple[str, str, GroupScore | str]]) -> None:
    """Dots and intervals from top to bottom.

    Args:
        axis: to draw on.
        lines: heading, the group's name, and its numbers or the reason why the attribute has no groups.
    """
    headings = list(dict.fromkeys(heading for heading, _, _ in lines))
    scores = [entry for _, _, entry in lines if isinstance(entry, GroupScore)]
    limits = [limit for score in scores for limit in score.mean_auroc_interval or []] or [0.5, 1.0]
    low, high = min(*limits, 0.5) - 0.03, min(1.0, max(limits) + 0.03)
    ticks = []
    for row, (heading, name, entry) in enumerate(reversed(lines)):
        color = OKABE_ITO[headings.index(heading) % len(OKABE_ITO)]
        if isinstance(entry, str):
            ticks.append(heading)
            axis.text(low + 0.01, row, entry, **_REASON_TEXT)
            continue
        ticks.append(f"{heading}: {name} · {entry.images:,} images")
        if entry.mean_auroc is None:
            axis.text(low + 0.01, row, entry.reason, **_REASON_TEXT)
            continue
        if entry.mean_auroc_interval:
            axis.plot(entry.mean_auroc_interval, [row, row], color=color, linewidth=1.6)
        axis.plot([entry.mean_auroc], [row], "o", color=color, markersize=6, clip_on=False)
        axis.text(1.01, row, f"{entry.mean_auroc:.3f}", va="center", fontsize=8,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    axis.set_yticks(range(len(lines)), ticks, fontsize=8)
    axis.set_xlim(low, high)
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.axvline(0.5, color=GRAY, linewidth=0.8, linestyle="--")
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def left_out_notes(subgroups: Mapping[str, SubgroupReport]) -> list[str]:
    """Which findings are in no group's mean, a line an attribute; none where all are in."""
    notes = [
        f"{attribute}: {', '.join(name.replace('_', ' ') for name in table.findings_left_out)}"
        for attribute, table in subgroups.items()
        if table.findings_left_out
    ]
    why = f"* left out, fewer than {FEWEST_PATIENTS} positive or negative patients in a group:"
    return [why, *notes] if notes else []


def heat_map_rows(
    examples: Sequence[HeatMapExample],
    report: LocalizationReport,
    path: Path,
    *,
    title: str,
    mark: str = "",
    count: int = 8,
) -> None:
    """Pairs of image and overlay with the finding's box, hits and misses alike, evenly through the findings.

    Args:
        examples: from localization.evaluate_localization, at least one.
        report: from the same call.
        path: the PNG to write.
        title: above the rows.
        mark: at the bottom, see plotting.save.
        count: how many pairs at most.
    """
    ordered = sorted(examples, key=lambda example: (example.finding, example.image_id))
    step = max(1.0, len(ordered) / count)
    chosen = [ordered[int(step * number)] for number in range(min(count, len(ordered)))]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = subplots(2 * rows, columns, figsize=(2.3 * columns, 4.9 * rows + 0.9), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, example in enumerate(chosen):
        row, column = 2 * (number // columns), number % columns
        _heat_map_pair(axes[row, column], axes[row + 1, column], example)
    scale = ScalarMappable(Normalize(0, 100), ListedColormap(heat_on_mid_gray()))
    bar = figure.colorbar(scale, ax=axes, location="right", shrink=0.5, aspect=30, pad=0.01)
    bar.set_label(
        "how much the place raises the finding's logit, % of the map's largest\n(colors as on mid gray)",
        fontsize=8,
    )
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(f"{title}: where the classifier looks", fontsize=11)
    figure.supxlabel(
        f"Box: where the finding is. Cross: highest point of the heat map. It lies in a box in "
        f"{percent(report.hit_rate or 0)} % of {report.pairs} cases\n(a random point would in "
        f"{percent(report.chance or 0)} %, the image's center in {percent(report.center or 0)} %). "
        "The map says where, not whether.",
        fontsize=8,
    )
    save(figure, path, mark)


def _heat_map_pair(above: Any, below: Any, example: HeatMapExample) -> None:
    """The image with its boxes, and below it the same with the heat map and its highest point."""
    verdict = "hit" if example.is_hit else "miss"
    above.set_title(
        f"{example.finding.replace('_', ' ')}, p = {example.probability:.2f}: {verdict}", fontsize=8
    )
    for axis in (above, below):
        axis.imshow(example.pixels, cmap="gray", vmin=0, vmax=1)
        for left, top, right, bottom in example.boxes:
            frame = Rectangle(
                (left, top), right - left, bottom - top, fill=False, edgecolor=ORANGE, linewidth=1.4
            )
            axis.add_patch(frame)
    below.imshow(heat_colors(example.heat), alpha=HEAT_OPACITY)
    peak_row, peak_column = divmod(int(example.heat.argmax()), example.heat.shape[1])
    below.plot([peak_column], [peak_row], marker="+", color="cyan", markersize=9, markeredgewidth=1.6)


def roc_curves(
    predictions: Predictions, report: RankingReport, path: Path, *, title: str, mark: str = ""
) -> None:
    """One small ROC panel a finding; those without an AUROC say why.

    Args:
        predictions: of the split.
        report: from metrics.rank_findings for them.
        path: the PNG to write.
        title: above the panels.
        mark: at the bottom, see plotting.save.
    """
    data, pair = list(predictions.columns()), pair_of(report)
    data = data[-1:] if pair else data  # the other curve is the same, turned around
    columns = min(5, len(data))
    rows = -(-len(data) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(max(2.3 * columns, _FEWEST_INCHES), 2.45 * rows),
        squeeze=False,
    )
    for index, axis in enumerate(axes.flat):
        if index >= len(data):
            axis.set_axis_off()
            continue
        finding = data[index]
        entry = report.findings[finding.name]
        axis.set_title(" against ".join(pair[::-1] or [finding.name]).replace("_", " "), fontsize=9)
        axis.set_aspect("equal")
        axis.set_xlim(-0.03, 1.03)  # a curve of AUROC 1 would lie on the frame
        axis.set_ylim(-0.03, 1.03)
        axis.set_xticks([0, 1])
        axis.set_yticks([0, 1])
        axis.tick_params(labelsize=7)
        axis.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle="--")
        if entry.auroc is None:
            axis.text(0.5, 0.5, entry.reason, ha="center", va="center", fontsize=8, color=GRAY, wrap=True)
            continue
        false_rate, true_rate, _ = roc_curve(finding.truth, finding.scores)
        axis.plot(false_rate, true_rate, color=BLUE, linewidth=1.6)
        text = f"AUROC {entry.auroc:.2f}\n{entry.positives} of {entry.positives + entry.negatives}"
        axis.text(0.97, 0.05, text, ha="right", va="bottom", fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("false positive rate", fontsize=9)
    figure.supylabel("true positive rate", fontsize=9)
    save(figure, path, mark)


def auroc_points(report: RankingReport, path: Path, *, title: str, mark: str = "") -> None:
    """AUROC a finding with its 95 % interval, sorted, and their mean; of two exclusive labels one point.

    Args:
        report: from metrics.rank_findings.
        path: the PNG to write.
        title: above the points.
        mark: at the bottom, see plotting.save.
    """
    values = {name: entry.auroc for name, entry in report.findings.items() if entry.auroc is not None}
    missing = [name.replace("_", " ") for name in report.findings if name not in values]
    pair = pair_of(report)
    names = sorted(values, key=lambda name: values[name]) if not pair else [*values][-1:]
    figure, axis = subplots(figsize=(7, 1.5 + 0.32 * (len(names) + 1)))
    lowest = 0.5
    for row, name in enumerate(names):
        limits = report.findings[name].auroc_interval
        if limits:
            axis.plot(limits, [row, row], color=BLUE, linewidth=1.6)
        axis.plot([values[name]], [row], "o", color=BLUE, markersize=6, clip_on=False)
        axis.text(1.01, row, f"{values[name]:.3f}", va="center", fontsize=8,
                  transform=axis.get_yaxis_transform())  # fmt: skip
        lowest = min(lowest, values[name], *(limits or ()))
    if report.mean_auroc is not None and len(names) > 1:
        axis.axvline(report.mean_auroc, color=ORANGE, linewidth=1.4, zorder=0)
        axis.text(
            report.mean_auroc, len(names) - 0.35, f"mean {report.mean_auroc:.3f}",
            color=ORANGE, ha="center", va="bottom", fontsize=9, backgroundcolor="white",
        )  # fmt: skip
    axis.axvline(0.5, color=GRAY, linewidth=0.8, linestyle="--")
    texts = [" against\n".join(pair[::-1] or [name]).replace("_", " ") for name in names]
    ticks = [
        text + "*" * report.findings[name].has_few_cases for text, name in zip(texts, names, strict=True)
    ]
    axis.set_yticks(range(len(names)), ticks, fontsize=9)
    # From chance to perfect, and further to the left only where a finding reaches there.
    axis.set_xlim(lowest - 0.02, 1.0)
    axis.set_ylim(-0.6, len(names) + 0.4)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    level = "image" if report.is_one_image_a_patient else "patient"
    axis.set_xlabel(f"AUROC (point), 95 % {level}-level interval (line), chance (dashed)", fontsize=9)
    axis.set_title(title, fontsize=11)
    starred = any("*" in tick for tick in ticks)
    notes = [f"* fewer than {FEWEST_PATIENTS} positive or negative patients"] if starred else []
    notes += ["no AUROC, one label value only: " + ", ".join(missing)] if missing else []
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=7, wrap=True)
    save(figure, path, mark)
