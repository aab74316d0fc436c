"""The tables and figures of small_result, from whatever is finished.

Stands beside the project; nothing imports it but small_result. A line of the plan that is not finished is
named as such and never filled in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmarks.small_laboratory import Laboratory, is_done, name_of
from benchmarks.small_plan import (
    COCKTAIL,
    CONTESTANTS,
    FEATURES,
    FEW_LABELS,
    KERMANY,
    LEAK,
    PRETRAININGS,
    RANDOM,
    RESNET18,
    Contestant,
    Share,
    ordered,
)
from benchmarks.small_score import is_scored, read_scores
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_over_seeds
from medhiera.evaluation.label_figures import label_efficiency
from medhiera.evaluation.metrics import rank_findings, rank_over_seeds
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.thresholds import choose_thresholds
from medhiera.experiments.report import difference_cells, seeds_text
from medhiera.formatting import interval_text
from medhiera.hub.record import PretrainingRecord

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

FIGURE = "small-label-efficiency.png"
MEASURES = {"mean_auroc": "auroc", "mean_average_precision": "average_precision"}


@dataclass(frozen=True)
class Reached:
    """What a contestant reached with a share of the labels, one entry a seed.

    Attributes:
        rate: that its sweep chose.
        train: predictions of the images it learned from.
        validation: of validation.
        test: of the official test split.
    """

    rate: float
    train: list[Predictions]
    validation: list[Predictions]
    test: list[Predictions]

    def values(self, split: str, measure: str = "mean_auroc") -> list[float]:
        """A measure of MEASURES, one value a seed."""
        return [getattr(rank_findings(each, Bootstrap(0)), measure) for each in getattr(self, split)]

    @cached_property
    def rates(self) -> list[tuple[float, float, float]]:
        """Test accuracy, sensitivity and specificity at validation's threshold, one triple a seed."""
        return [rates_at(*pair) for pair in zip(self.validation, self.test, strict=True)]


def rates_at(validation: Predictions, test: Predictions) -> tuple[float, float, float]:
    """Accuracy, sensitivity and specificity at the threshold with validation's largest Youden index."""
    [name] = test.finding_names
    threshold = choose_thresholds(validation)[name].youden
    assert threshold is not None, "validation has both label values"
    [column] = test.columns()
    is_called = column.scores >= threshold
    is_right = is_called == column.is_present
    return (
        float(is_right.mean()),
        float(is_called[column.is_present].mean()),
        float((~is_called[~column.is_present]).mean()),
    )


def read_reached(lab: Laboratory, contestant: Contestant, share: Share) -> Reached | None:
    """Everything of one line of the plan; None where it is not finished."""
    arm = lab.chosen(contestant, share)
    if arm is None:
        return None
    folders = [lab.scores(arm.name, seed) for seed in range(share.seeds)]
    if not all(is_scored(folder) for folder in folders):
        return None
    rate = float(arm.arguments[arm.arguments.index("--learning_rate") + 1])
    splits = {
        split: [read_scores(folder, split) for folder in folders] for split in ("train", "validation", "test")
    }
    return Reached(rate, **splits)


Results = dict[tuple[str, float], Reached]
"""(contestant's name, fraction) → what is finished."""


def report(lab: Laboratory, hours: float, bootstrap: Bootstrap | None = None) -> str:
    """Draw the figure, write report.md, and return it.

    Args:
        lab: the runs.
        hours: CPU hours used.
        bootstrap: of the test patients; by default 2,000 resamples.
    """
    bootstrap = bootstrap or Bootstrap()
    results: Results = {}
    for share in lab.budget.shares:
        for contestant in CONTESTANTS:
            if found := read_reached(lab, contestant, share):
                results[contestant.name, share.fraction] = found
    left = [name_of(work) for work in ordered(lab.budget) if not is_done(lab, work)]
    lines = [f"{hours:.1f} CPU hours used."]
    if left:
        lines += ["", f"**Unfinished.** Still to run: {'; '.join(left)}."]
    lines += ["", *pretraining_lines(lab), "", *contestant_lines(lab, results, bootstrap)]
    lines += ["", *difference_lines(lab, results, "test", bootstrap)]
    lines += ["", *difference_lines(lab, results, "validation", bootstrap), "", *probe_lines(lab, bootstrap)]
    lines += ["", *sweep_lines(lab)]
    draw(lab, results, bootstrap)
    text = "\n".join(lines) + "\n"
    (lab.output / "report.md").write_text(text, encoding="utf-8")
    return text


def pretraining_lines(lab: Laboratory) -> list[str]:
    """How far each stage 1 came."""
    lines = ["| stage 1 | images | images seen | masked loss before | after |", "|---|---|---|---|---|"]
    runner = lab.runner(lab.task)
    for each in PRETRAININGS.values():
        record = runner.record(f"mae-{each.name}", 0)
        if each.is_trained and isinstance(record, PretrainingRecord):
            scored = record.evaluation
            seen = record.training.steps * int(record.recipe["per_device_train_batch_size"])
            lines.append(
                f"| {each.label} | {sum(record.trained_on.values()):,} | {seen:,} | "
                f"{scored.masked_loss_before:.3f} | {scored.masked_loss:.3f} |"
            )
    return lines


def contestant_lines(lab: Laboratory, results: Results, bootstrap: Bootstrap) -> list[str]:
    """What each contestant reached."""
    lines = [
        "Mean over seeds; over seeds: 95 % interval by Student's t; over patients: 95 % interval of the mean "
        f"over seeds from {bootstrap.resamples:,} resamples of the test patients. Accuracy, sensitivity and "
        "specificity at the threshold with validation's largest Youden index.",
        "",
        "| labels | classifier | rate | seeds | training AUROC | validation AUROC | test AUROC, over seeds | "
        "over patients | average precision | accuracy | sensitivity | specificity |",
        "|" + "---|" * 12,
    ]
    for share in lab.budget.shares:
        for contestant in CONTESTANTS:
            found = results.get((contestant.name, share.fraction))
            if found is None:
                continue
            mean = rank_over_seeds(found.test, bootstrap)
            cells = [share.text, contestant.label, f"{found.rate:g}", str(share.seeds)]
            cells += [mean_text(found.values(split)) for split in ("train", "validation")]
            cells += [seeds_text(found.values("test")), interval_text(mean.mean_auroc_interval)]
            cells.append(mean_text(found.values("test", "mean_average_precision")))
            cells += [mean_text(values) for values in zip(*found.rates, strict=True)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def mean_text(values: Sequence[float]) -> str:
    """Mean over seeds, for a table's cell."""
    return f"{sum(values) / len(values):.4f}"


def difference_lines(lab: Laboratory, results: Results, split: str, bootstrap: Bootstrap) -> list[str]:
    """Paired differences with a verdict; of validation only what the leak buys there."""
    lines = [
        f"Differences on {split}, paired by seed and image. Better or worse where neither interval holds "
        "zero, else undecided.",
        "",
        "| labels | compared | measure | difference over seeds | over patients | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for share in lab.budget.shares:
        for one, other in COMPARED if split == "test" else ((LEAK, COCKTAIL),):
            ours, theirs = (results.get((each.name, share.fraction)) for each in (one, other))
            if ours is None or theirs is None:
                continue
            pairs = list(zip(getattr(ours, split), getattr(theirs, split), strict=True))
            found = compare_over_seeds(pairs, bootstrap)
            for measure, short in MEASURES.items():
                by_seed = zip(ours.values(split, measure), theirs.values(split, measure), strict=True)
                cells = difference_cells([a - b for a, b in by_seed], getattr(found, short).interval)
                label = short.replace("_", " ").replace("auroc", "AUROC")
                lines.append(f"| {share.text} | {one.label} − {other.label} | {label} | {cells} |")
    return lines


def probe_lines(lab: Laboratory, bootstrap: Bootstrap) -> list[str]:
    """Linear probes on frozen encoders."""
    labels = {each.name: f"Hiera, MAE of {each.label}" for each in PRETRAININGS.values() if each.is_trained}
    labels = {"none": "Hiera, random weights", **labels, "teacher": "the ImageNet teacher"}
    lines = [
        "| linear probe on | training AUROC | validation AUROC | test AUROC, over patients | accuracy |",
        "|---|---|---|---|---|",
    ]
    for name, label in labels.items():
        folder = lab.scores(f"probe-{name}", 0)
        if not is_scored(folder):
            continue
        train, validation, test = (read_scores(folder, split) for split in ("train", "validation", "test"))
        known = [rank_findings(each, Bootstrap(0)).mean_auroc for each in (train, validation)]
        mean = rank_over_seeds([test], bootstrap)
        accuracy, *_ = rates_at(validation, test)
        cells = [label, *(f"{value:.4f}" for value in known if value is not None)]
        cells += [f"{mean.mean_auroc:.4f} ({interval_text(mean.mean_auroc_interval)})", f"{accuracy:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sweep_lines(lab: Laboratory) -> list[str]:
    """Validation AUROC by rate, seed 0, of all sweeps."""
    lines = ["| labels | classifier | validation AUROC by rate (seed 0) |", "|---|---|---|"]
    for share in lab.budget.shares:
        for contestant in CONTESTANTS if share is lab.budget.shares[0] else FEW_LABELS:
            reached = lab.reached(contestant, share)
            if reached:
                text = ", ".join(f"{rate:g}: {value:.4f}" for rate, value in sorted(reached.items()))
                lines.append(f"| {share.text} | {contestant.label} | {text} |")
    return lines


def draw(lab: Laboratory, results: Results, bootstrap: Bootstrap) -> None:
    """The label-efficiency figure of the contestants that have several shares."""
    shares = [
        share
        for share in lab.budget.shares
        if any((each.name, share.fraction) in results for each in FEW_LABELS)
    ]
    if not shares:
        return
    scores: dict[str, dict[float, list[float]]] = {}
    intervals: dict[str, dict[float, Sequence[float] | None]] = {}
    for contestant in FEW_LABELS:
        for share in shares:
            if found := results.get((contestant.name, share.fraction)):
                scores.setdefault(contestant.label, {})[share.fraction] = found.values("test")
                mean = rank_over_seeds(found.test, bootstrap)
                intervals.setdefault(contestant.label, {})[share.fraction] = mean.mean_auroc_interval
    images = {}
    for share in shares:
        [first, *_] = (found for (_, fraction), found in results.items() if fraction == share.fraction)
        counts = [len(each) for each in first.train]
        low, high = min(counts), max(counts)
        found = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        images[share.fraction] = f"{share.text}\n{found}"
    seeds = ", ".join(f"{share.seeds} at {share.text}" for share in shares)
    label_efficiency(
        scores, intervals, images, lab.output / FIGURE,
        title="Pneumonia on Kermany's official test split",
        note=f"points: mean over seeds ({seeds}); bars: its 95 % interval over test patients; circles: seeds",
    )  # fmt: skip
