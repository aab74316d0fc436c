"""The pictures of a stage: curves, reconstructions, ROC curves, bars. It draws numbers made elsewhere.

Colours are the Okabe-Ito set, which colour-blind readers tell apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t
from sklearn.metrics import roc_curve

from medhiera.explain import Reconstruction

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first: no screen is needed

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
OKABE_ITO = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def reconstruction_rows(pictures: Reconstruction, captions: Sequence[str], path: Path) -> None:
    """One row an image: original, masked, reconstruction.

    Args:
        pictures: from explain.reconstruct.
        captions: one per image, such as its source.
        path: the PNG to write.
    """
    columns = (
        ("original", pictures.original),
        ("masked", pictures.masked),
        ("reconstruction", pictures.filled),
    )
    count = len(captions)
    figure, axes = plt.subplots(count, 3, figsize=(6.0, 2.1 * count), squeeze=False, layout="constrained")
    for row, caption in enumerate(captions):
        for column, (title, images) in enumerate(columns):
            axis = axes[row, column]
            axis.imshow(images[row].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=10)
        axes[row, 0].set_ylabel(caption, fontsize=8)
    save(figure, path)


def training_curves(history: Sequence[Mapping[str, Any]], path: Path, *, loss_name: str) -> None:
    """Loss in training and validation, and the learning rate, over steps.

    Args:
        history: the Trainer's log_history.
        path: the PNG to write.
        loss_name: what the loss is, for the axis.
    """
    trained = [entry for entry in history if "loss" in entry]
    validated = [entry for entry in history if "eval_loss" in entry]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    few = "." if len(trained) < 10 else ""  # a line of one point would not be seen
    top.plot(
        [e["step"] for e in trained], [e["loss"] for e in trained], color=BLUE, marker=few, label="training"
    )
    if validated:
        top.plot(
            [e["step"] for e in validated],
            [e["eval_loss"] for e in validated],
            color=ORANGE,
            marker="o",
            markersize=4,
            label="validation",
        )
    top.set_ylabel(loss_name)
    top.legend(frameon=False)
    top.grid(alpha=0.3)
    bottom.plot([e["step"] for e in trained], [e["learning_rate"] for e in trained], color=GREEN, marker=few)
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("optimiser step")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    bottom.grid(alpha=0.3)
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


def arm_curves(
    arms: Mapping[str, Sequence[Mapping[int, float]]], path: Path, *, title: str, value: str, note: str = ""
) -> None:
    """One line an arm of an experiment: the mean over seeds and, from three seeds on, its 95 % interval.

    Args:
        arms: label → for each seed, step → value; only steps that every seed of an arm has are drawn.
        path: the PNG to write.
        title: above the axes.
        value: what is drawn, for the axis.
        note: below the axes.
    """
    figure, axis = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for index, (label, seeds) in enumerate(arms.items()):
        steps = sorted(set.intersection(*(set(seed) for seed in seeds)))
        values = np.array([[seed[step] for step in steps] for seed in seeds])
        color = OKABE_ITO[index % len(OKABE_ITO)]
        axis.plot(
            steps, values.mean(axis=0), color=color, marker="o", markersize=3, label=f"{label} ({len(seeds)})"
        )
        if len(seeds) >= 3:
            half = student_t.ppf(0.975, len(seeds) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(seeds))
            axis.fill_between(
                steps,
                values.mean(axis=0) - half,
                values.mean(axis=0) + half,
                color=color,
                alpha=0.15,
                linewidth=0,
            )
        else:
            for one in values:
                axis.plot(steps, one, color=color, linewidth=0.6, alpha=0.6)
    axis.set_xlabel("optimiser step")
    axis.set_ylabel(value)
    axis.set_title(title, fontsize=11)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, title="arm (seeds)", title_fontsize=8)
    if note:
        figure.supxlabel(note, fontsize=7)
    save(figure, path)


def influence_bars(
    correlation: Mapping[str, float],
    importance: Mapping[str, float],
    path: Path,
    *,
    title: str,
    note: str = "",
) -> None:
    """How each hyper-parameter goes with the result: its correlation, and its share by a random forest.

    Args:
        correlation: hyper-parameter → Pearson's r; NaN is drawn as nothing.
        importance: hyper-parameter → share of the whole.
        path: the PNG to write.
        title: above both.
        note: below both.
    """
    names = sorted(correlation, key=lambda name: importance.get(name, 0.0))
    figure, axes = plt.subplots(1, 2, figsize=(8, 1.4 + 0.4 * len(names)), sharey=True, layout="constrained")
    axes[0].barh(names, [np.nan_to_num(correlation[name]) for name in names], color=BLUE, height=0.6)
    axes[0].axvline(0, color=GRAY, linewidth=0.8)
    axes[0].set_xlim(-1, 1)
    axes[0].set_xlabel("correlation")
    axes[1].barh(names, [importance.get(name, 0.0) for name in names], color=ORANGE, height=0.6)
    axes[1].set_xlim(0, 1)
    axes[1].set_xlabel("importance (random forest)")
    figure.suptitle(title, fontsize=11)
    if note:
        figure.supxlabel(note, fontsize=7)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write the PNG and free the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
