"""The figures of the paper's experiments: curves of arms, influence of hyper-parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t as student_t

from medhiera.plotting import BLUE, GRAY, OKABE_ITO, ORANGE, save, subplots


def arm_curves(
    arms: Mapping[str, Sequence[Mapping[int, float]]],
    path: Path,
    *,
    title: str,
    value: str,
    note: str = "",
    mark: str = "",
) -> None:
    """One line an arm of an experiment: the mean over seeds and, from three seeds on, its 95 % interval.

    Args:
        arms: label → for each seed, step → value; only steps that every seed of an arm has are drawn.
        path: the PNG to write.
        title: above the axes.
        value: what is drawn, for the axis.
        note: below the axes.
        mark: at the bottom, see plotting.save.
    """
    figure, axis = subplots(figsize=(7.5, 4.5))
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
    axis.set_xlabel("optimizer step")
    axis.set_ylabel(value)
    axis.set_title(title, fontsize=11)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, title="arm (seeds)", title_fontsize=8)
    if note:
        figure.supxlabel(note, fontsize=7)
    save(figure, path, mark)


def influence_bars(
    correlation: Mapping[str, float],
    importance: Mapping[str, float],
    path: Path,
    *,
    title: str,
    note: str = "",
    mark: str = "",
) -> None:
    """How each hyper-parameter goes with the result: its correlation, and its share by a random forest.

    Args:
        correlation: hyper-parameter → Pearson's r; NaN is drawn as nothing.
        importance: hyper-parameter → share of the whole.
        path: the PNG to write.
        title: above both.
        note: below both.
        mark: at the bottom, see plotting.save.
    """
    names = sorted(correlation, key=lambda name: importance.get(name, 0.0))
    figure, axes = subplots(1, 2, figsize=(8, 1.4 + 0.4 * len(names)), sharey=True)
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
    save(figure, path, mark)
