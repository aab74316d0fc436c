"""Paired differences of small_result: between contestants, and of frozen encoders; tables and a figure.

Stands beside the project, on small_reached.py; nothing imports it but small_report and small_result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.small_laboratory import Laboratory
from benchmarks.small_plan import COCKTAIL, FEATURES, KERMANY, LEAK, RANDOM, RESNET18
from benchmarks.small_reached import MEASURES, Results, read_probe
from medhiera.evaluation.bootstrap import Bootstrap, Difference
from medhiera.evaluation.comparison import compare_over_seeds
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions
from medhiera.experiments.report import difference_cells, student_interval
from medhiera.plotting import BLUE, ORANGE, save, subplots

COMPARED = (
    (COCKTAIL, RANDOM),
    (KERMANY, RANDOM),
    (COCKTAIL, KERMANY),
    (COCKTAIL, RESNET18),
    (KERMANY, RESNET18),
    (RANDOM, RESNET18),
    (LEAK, COCKTAIL),
    (FEATURES, COCKTAIL),
    (FEATURES, RANDOM),
    (FEATURES, RESNET18),
)
"""Pairs whose differences are shown; the first, with all labels, is the primary comparison."""

PROBED = (("cocktail", "kermany"), ("leak", "cocktail"), ("cocktail", "teacher"), ("features", "cocktail"))
"""Frozen encoders whose probes are compared."""

TUNED = ((COCKTAIL, "cocktail"), (RANDOM, "none"))
"""Contestants, with all labels, against the probe of the frozen encoder that they start from."""

SHORT = {
    "random": "random weights", "none": "random weights", "cocktail": "pre-trained on the cocktail",
    "kermany": "pre-trained on Kermany alone", "leak": "pre-trained with the leak",
    "features": "pre-trained on features", "resnet18": "ResNet-18", "teacher": "the ImageNet teacher",
}  # fmt: skip
"""In the figure, without a Hiera's name."""


@dataclass(frozen=True)
class Paired:
    """What one has more than another.

    Attributes:
        group: what both have in common, for the table's first column and the figure.
        label: for the table.
        short: for the figure.
        values: measure of MEASURES → difference, one a seed.
        patients: measure → the mean over seeds with its interval over patients.
        has_few_cases: these are too few for a verdict.
    """

    group: str
    label: str
    short: str
    values: dict[str, list[float]]
    patients: dict[str, Difference]
    has_few_cases: bool

    @classmethod
    def of(
        cls,
        group: str,
        names: tuple[str, str],
        short: str,
        pairs: Sequence[tuple[Predictions, Predictions]],
        bootstrap: Bootstrap,
    ) -> "Paired":
        """Compare.

        Args:
            group: see above.
            names: of the one and the other, for the table.
            short: see above.
            pairs: predictions of both, one pair a seed.
            bootstrap: of the patients.
        """
        found = compare_over_seeds(pairs, bootstrap)
        assert found is not None, "the split has both label values"
        ranked = [[rank_findings(each, Bootstrap(0)) for each in pair] for pair in pairs]
        values = {
            measure: [getattr(one, measure) - getattr(other, measure) for one, other in ranked]
            for measure in MEASURES
        }
        patients = {measure: getattr(found, name) for measure, name in MEASURES.items()}
        return cls(group, " − ".join(names), short, values, patients, found.has_few_cases)


def differences(lab: Laboratory, results: Results, bootstrap: Bootstrap, split: str = "test") -> list[Paired]:
    """Of the contestants, paired by seed and image; of validation only what the leak buys there."""
    found = []
    for share in lab.budget.shares:
        for one, other in COMPARED if split == "test" else ((LEAK, COCKTAIL),):
            ours, theirs = (results.get((each.name, share.fraction)) for each in (one, other))
            if ours is not None and theirs is not None:
                pairs = list(zip(getattr(ours, split), getattr(theirs, split), strict=True))
                short = f"{SHORT[one.name]} − {SHORT[other.name]}"
                found.append(Paired.of(share.text, (one.label, other.label), short, pairs, bootstrap))
    return found


def probe_differences(lab: Laboratory, results: Results, bootstrap: Bootstrap) -> list[Paired]:
    """Of linear probes on test: between frozen encoders, and what fine-tuning has more than its own probe."""
    found = []
    for one, other in PROBED:
        ours, theirs = read_probe(lab, one), read_probe(lab, other)
        if ours is not None and theirs is not None:
            short = f"{SHORT[one]} − {SHORT[other]}"
            pairs = [(ours["test"], theirs["test"])]
            names = (f"probe, {SHORT[one]}", f"probe, {SHORT[other]}")
            found.append(Paired.of("probes", names, short, pairs, bootstrap))
    for contestant, name in TUNED:
        tuned, frozen = results.get((contestant.name, lab.budget.shares[0].fraction)), read_probe(lab, name)
        if tuned is not None and frozen is not None:
            pairs = [(each, frozen["test"]) for each in tuned.test]
            names = (contestant.label, "its own probe")
            short = f"{SHORT[name]}, fine-tuned − probe"
            found.append(Paired.of("fine-tuned", names, short, pairs, bootstrap))
    return found


def difference_lines(found: Sequence[Paired], split: str) -> list[str]:
    """The table of differences between contestants, with a verdict."""
    return [
        f"Differences on {split}, paired by seed and image. Better or worse where neither interval holds "
        "zero, else undecided; of too few patients neither.",
        "",
        "| labels | compared | measure | difference over seeds | over patients | verdict |",
        "|---|---|---|---|---|---|",
        *(
            f"| {each.group} | {each.label} | {in_words(measure)} | {_cells(each, measure)} |"
            for each in found
            for measure in MEASURES
        ),
    ]


def _cells(each: Paired, measure: str) -> str:
    limits = each.patients[measure].interval
    return difference_cells(each.values[measure], limits, has_few_cases=each.has_few_cases)


def probe_difference_lines(found: Sequence[Paired]) -> list[str]:
    """The table of differences with frozen encoders; one probe has no seeds."""
    lines = [
        "Each pre-training was run once, and all classifiers that start from it share it: no interval above "
        "holds what another run of it would give. The probes, in which nothing but the frozen encoder "
        "differs, are the only view of how the pre-trainings vary. Differences on test, paired by image; of "
        "the fine-tuned ones, the mean over seeds.",
        "",
        "| compared | measure | difference | over seeds | over patients |",
        "|---|---|---|---|---|",
    ]
    for each in found:
        for measure in MEASURES:
            mean, low, high = student_interval(each.values[measure])
            seeds = f"{low:+.4f} to {high:+.4f}" if len(each.values[measure]) > 1 else "–"
            limits = each.patients[measure].interval
            over = "–" if limits is None else f"{limits[0]:+.4f} to {limits[1]:+.4f}"
            cells = (each.label, in_words(measure), f"{mean:+.4f}", seeds, over)
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def in_words(measure: str) -> str:
    """A measure of MEASURES, for a table's cell."""
    return MEASURES[measure].replace("_", " ").replace("auroc", "AUROC")


def forest(found: Sequence[Paired], path: Path) -> None:
    """The figure of all differences in AUROC: each with its interval over patients and that over seeds.

    Args:
        found: those with one group beside each other.
        path: the PNG to write; none is written where there is no difference.
    """
    if not found:
        return
    groups = list(dict.fromkeys(each.group for each in found))
    places, labels, place = [], [], 0.0
    figure, axis = subplots(figsize=(9, 1.3 + 0.27 * (len(found) + 1.6 * len(groups))))
    for group in groups:
        axis.text(-0.018, place, heading(group), fontsize=8, weight="bold", va="center", ha="right",
                  transform=axis.get_yaxis_transform())  # fmt: skip
        place += 1
        for each in (one for one in found if one.group == group):
            draw_row(axis, place, each)
            places.append(place)
            labels.append(each.short)
            place += 1
        place += 0.6
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(places, labels, fontsize=8)
    axis.set_ylim(place - 0.6, -0.7)
    axis.set_xlabel("difference in test AUROC: right of zero the first is better, left the second")
    axis.grid(axis="x", alpha=0.3)
    axis.set_title("Pneumonia on Kermany's official test split: paired differences", fontsize=11)
    handles = {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}
    figure.legend(
        handles.values(), handles.keys(), frameon=False, fontsize=8, ncols=3, loc="outside lower center"
    )
    save(figure, path)


def heading(group: str) -> str:
    """Above a group's rows in the figure."""
    if group == "probes":
        return "linear probes on frozen encoders"
    if group == "fine-tuned":
        return "what fine-tuning adds, all labels"
    return f"fine-tuned on {group} of the labels"


def draw_row(axis: Axes, place: float, each: Paired) -> None:
    """One difference: the mean, and both intervals one below the other."""
    values, limits = each.values["mean_auroc"], each.patients["mean_auroc"].interval
    mean, low, high = student_interval(values)
    if limits is not None:
        axis.plot(list(limits), [place - 0.13] * 2, color=BLUE, linewidth=2.5,
                  label="95 % interval over test patients")  # fmt: skip
    if len(values) > 1:
        axis.plot(
            [low, high], [place + 0.13] * 2, color=ORANGE, linewidth=2.5, label="95 % interval over seeds"
        )
    axis.plot([mean], [place], "o", color="black", markersize=4, label="mean over seeds")
