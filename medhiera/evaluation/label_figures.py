"""The label-efficiency figure: AUROC over how many labels were learned.

`probe.py` and experiments/labels_report.py draw it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medhiera.evaluation.probe_results import FewLabels, ProbeFit
from medhiera.plotting import OKABE_ITO, save, subplots


def label_efficiency(
    starts: Mapping[str, Mapping[float, Sequence[float]]],
    intervals: Mapping[str, Mapping[float, Sequence[float] | None]],
    ticks: Mapping[float, str],
    path: Path,
    *,
    title: str,
    note: str = "",
    labels_axis: str = "labels learned, and training images",
    legend: str = "started from",
    mark: str = "",
) -> None:
    """AUROC over how many labels were learned, on a logarithmic axis: one line a start.

    Args:
        starts: label → share → AUROC, one a seed or draw.
        intervals: label → share → of the mean over seeds; None where there is none.
        ticks: share → its text below the axis.
        path: the PNG to write.
        title: above the axes.
        note: below the axes.
        labels_axis: what the shares are of.
        legend: what the lines are.
        mark: at the bottom, see plotting.save.
    """
    figure, axis = subplots(figsize=(7.5, 4.5))
    for index, (label, by_share) in enumerate(starts.items()):
        color, shares = OKABE_ITO[index % len(OKABE_ITO)], sorted(by_share)
        aside = 1.12 ** (index - (len(starts) - 1) / 2)  # side by side, so that no bar hides another
        places = [share * aside for share in shares]
        means = np.array([np.mean(by_share[share]) for share in shares])
        limits = [intervals[label][share] for share in shares]
        ends = np.array([(mean, mean) if at is None else at for mean, at in zip(means, limits, strict=True)])
        bars = np.abs(ends.T - means)
        axis.errorbar(
            places, means, yerr=bars, color=color, marker="o", capsize=4, linewidth=1.5, label=label
        )
        for share, place in zip(shares, places, strict=True):
            values = by_share[share]
            if len(values) > 1:
                axis.plot(
                    [place * 1.045] * len(values), values, "o", color=color, markersize=4, fillstyle="none"
                )
    shares = sorted(ticks)
    axis.set_xscale("log")
    axis.set_xticks(shares, [ticks[share] for share in shares])
    axis.minorticks_off()
    axis.set_xlim(min(shares) / 1.4, max(shares) * 1.4)
    axis.set_xlabel(labels_axis)
    axis.set_ylabel("test AUROC")
    axis.set_title(title, fontsize=11)
    axis.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize=8, title=legend, title_fontsize=8, loc="outside right upper")
    figure.supxlabel(note, fontsize=7)
    save(figure, path, mark)


def draw_few_labels(fit: ProbeFit, model: str, folder: Path, *, title: str, mark: str) -> None:
    """The two figures of a probe: over 1, 10 and 100 % of the labels, and over shots.

    Args:
        fit: with few_labels.
        model: its name, for the legend.
        folder: where label_efficiency.png and few_shots.png go; those of an earlier probe go first.
        title: above each.
        mark: at the bottom of each, see plotting.save.
    """
    whole = fit.shares[-1:]
    most = max((each.shots or 0 for each in fit.shots), default=0)
    drawn = {
        "label_efficiency": [(each.share or 0.0, _text(each), each) for each in fit.shares],
        "few_shots": [(float(each.shots or 0), _text(each), each) for each in fit.shots]
        + [(5.0 * most, f"all\n{each.train_images[0]:,} images", each) for each in whole],
    }
    axes = {
        "label_efficiency": "labels learned, and training images",
        "few_shots": "patients with the finding, and as many without",
    }
    for name, points in drawn.items():
        (folder / f"{name}.png").unlink(missing_ok=True)
        known = [(place, text, each) for place, text, each in points if each.draw_aurocs]
        if len(known) > 1:
            draws = max(len(each.draw_aurocs) for _, _, each in known)
            label_efficiency(
                {model: {place: each.draw_aurocs for place, _, each in known}},
                {model: {place: each.mean_auroc_interval for place, _, each in known}},
                {place: text for place, text, _ in known},
                folder / f"{name}.png",
                title=title,
                note=f"points: mean over {draws} draws of labels; bars: its 95 % interval, "
                f"{fit.intervals_over} resampled; circles: each draw",
                labels_axis=axes[name],
                legend="linear probe of",
                mark=mark,
            )


def _text(each: FewLabels) -> str:
    """What stands below the axis."""
    if each.shots is not None or not each.train_images:
        return f"{each.shots}"
    low, high = min(each.train_images), max(each.train_images)
    images = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{100 * (each.share or 0):g} %\n{images}"
