"""The numbers of an evaluation as lines of text."""

from collections.abc import Mapping
from typing import Any

from medhiera.evaluation.comparison import MEASURES
from medhiera.evaluation.metrics import RARE
from medhiera.formatting import value_text


def as_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """A plain-text table of what `rank_findings` returned: a line a finding, then the means.

    Args:
        evaluation: its result; intervals and values may be missing.
    """
    lines = [f"{'finding':<20} AUROC     95 % interval    AP        95 % interval    positives of images"]
    for name, entry in evaluation["findings"].items():
        images = f"{entry['positives']} of {entry['positives'] + entry['negatives']}"
        if entry["auroc"] is None:
            lines.append(f"{name.replace('_', ' '):<20} {'–':<9} {entry['reason']:<43} {images}")
            continue
        star = "*" if entry["is_rare"] else " "
        numbers = f"{entry['auroc']:.3f}{star}    {value_text(entry['interval']):<16} "
        numbers += (
            f"{entry['average_precision']:.3f}{star}    {value_text(entry['average_precision_interval'])}"
        )
        lines.append(f"{name.replace('_', ' '):<20} {numbers:<53} {images}")
    means = [("all", evaluation), ("diseases", evaluation["diseases"])]
    if evaluation["diseases"]["findings_in_mean"] == evaluation["findings_in_mean"]:
        means.pop()
    for word, mean in means:
        is_shaky = any(evaluation["findings"][name]["is_rare"] for name in mean["findings_in_mean"])
        label = f"mean of {word} {len(mean['findings_in_mean'])}{'*' if is_shaky else ''}"
        if mean["mean_auroc"] is None:
            lines.append(f"{label:<20} {mean_as_text(mean)}")
            continue
        numbers = f"{mean['mean_auroc']:.3f}     {value_text(mean['mean_auroc_interval']):<16} "
        numbers += (
            f"{mean['mean_average_precision']:.3f}     {value_text(mean['mean_average_precision_interval'])}"
        )
        lines.append(f"{label:<20} {numbers}")
    if any(entry["is_rare"] and entry["auroc"] is not None for entry in evaluation["findings"].values()):
        lines.append(
            f"* fewer than {RARE} positive (or negative) images: neither value nor interval is to be "
            "trusted, nor a mean with such in it"
        )
    return lines


def mean_as_text(means: Mapping[str, Any]) -> str:
    """The mean AUROC and its interval, or why there is none."""
    if means["mean_auroc"] is None:
        return "–    (no finding has both present and absent images)"
    return f"{means['mean_auroc']:.3f} (95 % interval: {value_text(means['mean_auroc_interval'])})"


def comparison_lines(comparison: dict[str, Any]) -> list[str]:
    """A plain-text table of what `compare_models` returned."""
    lines = [f"{'difference of':<20} AUROC     95 % interval      p        AP        95 % interval      p"]
    rows = list(comparison["findings"].items())
    rows += [(f"mean ({word})", comparison[word]) for word in ("mean", "diseases") if comparison[word]]
    for name, entry in rows:
        if "reason" in entry:
            lines.append(f"{name.replace('_', ' '):<20} –         {entry['reason']}")
            continue
        parts = []
        for measure in MEASURES:
            one = entry[measure]
            limits = "none" if one["interval"] is None else "{:+.3f} to {:+.3f}".format(*one["interval"])
            p_value = "–" if one["p_value"] is None else f"{one['p_value']:.3f}"
            parts.append(f"{one['difference']:+.3f}    {limits:<18} {p_value:<8}")
        lines.append(f"{name.replace('_', ' '):<20} {' '.join(parts)}".rstrip())
    return lines
