"""The figures of a report: ROC curves, AUROC, reliability, subgroups, heat maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from medhiera.evaluation.localization import Shown
from medhiera.plotting import BLUE, GRAY, OKABE_ITO, ORANGE, save


def reliability(calibration: Mapping[str, Any], path: Path, *, title: str) -> None:
    """One small panel a finding: share of positives against mean probability, in bins of equally many images.

    Each panel reaches as far as its own values do, for rare findings would otherwise be a dot in a corner.

    Args:
        calibration: what calibration.measure_calibration returned.
        path: the PNG to write.
        title: above the panels.
    """
    names = list(calibration["findings"])
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.3 * columns, 2.45 * rows + 0.4), squeeze=False, layout="constrained"
    )
    for index, axis in enumerate(axes.flat):
        if index >= len(names):
            axis.set_axis_off()
            continue
        entry = calibration["findings"][names[index]]
        axis.set_title(names[index].replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_aspect("equal")
        if "reason" in entry:
            axis.text(0.5, 0.5, entry["reason"], ha="center", va="center", fontsize=8, color=GRAY, wrap=True)
            axis.set_xticks([])
            axis.set_yticks([])
            continue
        predicted = [part["predicted"] for part in entry["curve"]]
        observed = [part["observed"] for part in entry["curve"]]
        highest = [part["interval"][1] for part in entry["curve"]]
        end = min(1.0, 1.05 * max(*predicted, *highest, 0.01))
        axis.plot([0, end], [0, end], color=GRAY, linewidth=0.8, linestyle="--")
        for part in entry["curve"]:
            axis.plot([part["predicted"]] * 2, part["interval"], color=BLUE, linewidth=0.8, alpha=0.5)
        axis.plot(predicted, observed, color=BLUE, marker="o", markersize=3, linewidth=1.2)
        axis.set_xlim(0, end)
        axis.set_ylim(0, end)
        axis.locator_params(nbins=4)
        axis.text(0.96, 0.04, f"ECE {entry['ece']:.3f}", transform=axis.transAxes, ha="right", fontsize=8)
    figure.suptitle(f"{title}: are the probabilities right?", fontsize=11)
    figure.supxlabel(
        "mean probability given (ten parts of equally many images; bars: 95 %; dashed: calibrated)",
        fontsize=9,
    )
    figure.supylabel("share of images with the finding", fontsize=9)
    save(figure, path)


def subgroup_dots(subgroups: Mapping[str, Any], path: Path, *, title: str) -> None:
    """A dot a group with its interval: mean AUROC over the findings that all groups of the attribute share.

    Args:
        subgroups: what subgroups.score_subgroups returned.
        path: the PNG to write.
        title: above the dots.
    """
    lines: list[tuple[str, str, Mapping[str, Any]]] = []
    for attribute, table in subgroups.items():
        count = len(table["findings_in_mean"])
        heading = f"{attribute} ({count} findings)" if count else attribute
        if not table["groups"]:
            lines.append((heading, "", {"reason": table["reason"]}))
        lines += [(heading, name, entry) for name, entry in table["groups"].items()]
    figure, axis = plt.subplots(figsize=(7, 1.5 + 0.34 * len(lines)), layout="constrained")
    headings = list(dict.fromkeys(heading for heading, _, _ in lines))
    limits = [v for *_, entry in lines for v in entry.get("mean_auroc_interval") or []] or [0.5, 1.0]
    low, high = min(*limits, 0.5) - 0.03, min(1.0, max(limits) + 0.03)
    for row, (heading, _, entry) in enumerate(reversed(lines)):
        color = OKABE_ITO[headings.index(heading) % len(OKABE_ITO)]
        if entry.get("mean_auroc") is None:
            axis.text(low + 0.01, row, entry["reason"], va="center", fontsize=8, color=GRAY)
            continue
        if entry["mean_auroc_interval"]:
            axis.plot(entry["mean_auroc_interval"], [row, row], color=color, linewidth=1.6)
        axis.plot([entry["mean_auroc"]], [row], "o", color=color, markersize=6)
        axis.text(1.01, row, f"{entry['mean_auroc']:.3f}", va="center", fontsize=8,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    ticks = []
    for heading, name, entry in reversed(lines):
        images = f" · {entry['images']:,} images" if "images" in entry else ""
        ticks.append(f"{heading}: {name}{images}" if name else heading)
    axis.set_yticks(range(len(lines)), ticks, fontsize=8)
    axis.set_xlim(low, high)
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.axvline(0.5, color=GRAY, linewidth=0.8, linestyle="--")
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("mean AUROC, 95 % patient-level interval; compare within a colour only", fontsize=9)
    axis.set_title(title, fontsize=11)
    save(figure, path)


def heat_map_rows(
    shown: Sequence[Shown], game: Mapping[str, Any], path: Path, *, title: str, count: int = 8
) -> None:
    """Pairs of image and overlay with the finding's box, hits and misses alike, evenly through the findings.

    Args:
        shown: from pointing_game.play.
        game: its record.
        path: the PNG to write.
        title: above the rows.
        count: how many pairs at most.
    """
    ordered = sorted(shown, key=lambda one: (one.finding, one.image_id))
    step = max(1.0, len(ordered) / count)
    chosen = [ordered[int(step * number)] for number in range(min(count, len(ordered)))]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=(2.3 * columns, 4.9 * rows + 0.9), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for number, one in enumerate(chosen):
        row, column = 2 * (number // columns), number % columns
        verdict = "hit" if one.is_hit else "miss"
        axes[row, column].set_title(
            f"{one.finding.replace('_', ' ')}, p = {one.probability:.2f}: {verdict}", fontsize=8
        )
        for axis in (axes[row, column], axes[row + 1, column]):
            axis.imshow(one.pixels, cmap="gray", vmin=0, vmax=1)
            for left, top, right, bottom in one.boxes:
                frame = Rectangle(
                    (left, top), right - left, bottom - top, fill=False, edgecolor=ORANGE, linewidth=1.4
                )
                axis.add_patch(frame)
        axes[row + 1, column].imshow(one.heat, cmap="inferno", vmin=0, vmax=1, alpha=0.55 * one.heat**0.5)
        peak_row, peak_column = divmod(int(one.heat.argmax()), one.heat.shape[1])
        axes[row + 1, column].plot(
            [peak_column], [peak_row], marker="+", color="cyan", markersize=9, markeredgewidth=1.6
        )
    figure.suptitle(f"{title}: where the classifier looks", fontsize=11)
    figure.supxlabel(
        f"Box: where the finding is. Cross: highest point of the heat map. It lies in a box in "
        f"{game['hit_rate']:.0%} of {game['pairs']} cases\n(a random point would in {game['chance']:.0%}, "
        f"the image's centre in {game['centre']:.0%}). The map says where, not whether.",
        fontsize=8,
    )
    save(figure, path)


def roc_curves(
    scores: NDArray[Any], labels: NDArray[Any], evaluation: Mapping[str, Any], path: Path, *, title: str
) -> None:
    """One small ROC panel a finding; those without an AUROC say why.

    Args:
        scores: (images, findings).
        labels: (images, findings); 1, 0 or NaN.
        evaluation: what metrics.rank_findings returned for them.
        path: the PNG to write.
        title: above the panels.
    """
    names = list(evaluation["findings"])
    columns = 5
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.3 * columns, 2.45 * rows), squeeze=False, layout="constrained"
    )
    for index, axis in enumerate(axes.flat):
        if index >= len(names):
            axis.set_axis_off()
            continue
        entry = evaluation["findings"][names[index]]
        axis.set_title(names[index].replace("_", " "), fontsize=9)
        axis.set_aspect("equal")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.set_xticks([0, 1])
        axis.set_yticks([0, 1])
        axis.tick_params(labelsize=7)
        axis.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle="--")
        if entry["auroc"] is None:
            axis.text(0.5, 0.5, entry["reason"], ha="center", va="center", fontsize=8, color=GRAY, wrap=True)
            continue
        is_annotated = ~np.isnan(labels[:, index])
        false_rate, true_rate, _ = roc_curve(labels[is_annotated, index], scores[is_annotated, index])
        axis.plot(false_rate, true_rate, color=BLUE, linewidth=1.6)
        text = (
            f"AUROC {entry['auroc']:.2f}\n{entry['positives']} of {entry['positives'] + entry['negatives']}"
        )
        axis.text(0.97, 0.05, text, ha="right", va="bottom", fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("false positive rate", fontsize=9)
    figure.supylabel("true positive rate", fontsize=9)
    save(figure, path)


def auroc_bars(evaluation: Mapping[str, Any], path: Path, *, title: str) -> None:
    """AUROC a finding with its 95 % interval, sorted, and the mean.

    Args:
        evaluation: what metrics.rank_findings returned.
        path: the PNG to write.
        title: above the bars.
    """
    entries = {name: entry for name, entry in evaluation["findings"].items() if entry["auroc"] is not None}
    missing = [
        name.replace("_", " ") for name, entry in evaluation["findings"].items() if entry["auroc"] is None
    ]
    names = sorted(entries, key=lambda name: entries[name]["auroc"])
    figure, axis = plt.subplots(figsize=(7, 1.4 + 0.32 * (len(names) + 1)), layout="constrained")
    for row, name in enumerate(names):
        entry = entries[name]
        axis.barh(row, entry["auroc"], color=BLUE, height=0.7)
        if entry["interval"]:
            low, high = entry["interval"]
            axis.plot([low, high], [row, row], color="black", linewidth=1.2)
        axis.text(1.01, row, f"{entry['auroc']:.3f}", va="center", fontsize=8)
    if evaluation["mean_auroc"] is not None:
        axis.axvline(evaluation["mean_auroc"], color=ORANGE, linewidth=1.4)
        axis.text(
            evaluation["mean_auroc"], len(names) - 0.35, f"mean {evaluation['mean_auroc']:.3f}",
            color=ORANGE, ha="center", va="bottom", fontsize=9, backgroundcolor="white",
        )  # fmt: skip
    axis.axvline(0.5, color=GRAY, linewidth=0.8, linestyle="--")
    ticks = [name.replace("_", " ") + ("*" if entries[name]["is_rare"] else "") for name in names]
    axis.set_yticks(range(len(names)), ticks, fontsize=9)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.6, len(names) + 0.4)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("AUROC (bar), 95 % patient-level interval (line), chance (dashed)", fontsize=9)
    axis.set_title(title, fontsize=11)
    notes = ["* fewer than ten positive or negative images"] if any("*" in tick for tick in ticks) else []
    notes += ["no AUROC, one label value only: " + ", ".join(missing)] if missing else []
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=7, wrap=True)
    save(figure, path)
