"""The tables and figures of small_result, from whatever is finished.

Stands beside the project; nothing imports it but small_result. A line of the plan that is not finished is
named as such and never filled in.
"""

from collections.abc import Sequence

from benchmarks.small_differences import (
    difference_lines,
    differences,
    forest,
    probe_difference_lines,
    probe_differences,
)
from benchmarks.small_laboratory import Laboratory, is_done, name_of
from benchmarks.small_plan import CONTESTANTS, FEW_LABELS, PRETRAININGS, RANDOM, best_rate, ordered
from benchmarks.small_reached import Results, rates_at, read_probe, read_results
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.label_figures import label_efficiency
from medhiera.evaluation.metrics import rank_findings, rank_over_draws, rank_over_seeds
from medhiera.experiments.report import seeds_text
from medhiera.formatting import interval_text
from medhiera.hub.record import PretrainingRecord

FIGURE = "small-label-efficiency.png"
DIFFERENCES = "small-differences.png"


def report(lab: Laboratory, hours: float, bootstrap: Bootstrap | None = None) -> str:
    """Draw both figures, write report.md, and return it.

    Args:
        lab: the runs.
        hours: CPU hours used.
        bootstrap: of the test patients; by default 2,000 resamples.
    """
    bootstrap = bootstrap or Bootstrap()
    results = read_results(lab)
    left = [name_of(work) for work in ordered(lab.budget) if not is_done(lab, work)]
    lines = [f"{hours:.1f} CPU hours used."]
    if left:
        lines += ["", f"**Unfinished.** Still to run: {'; '.join(left)}."]
    lines += ["", *pretraining_lines(lab), "", *contestant_lines(lab, results, bootstrap)]
    between, alone = differences(lab, results, bootstrap), probe_differences(lab, results, bootstrap)
    lines += ["", *difference_lines(between, "test")]
    lines += ["", *difference_lines(differences(lab, results, bootstrap, "validation"), "validation")]
    lines += ["", *probe_lines(lab, bootstrap), "", *probe_difference_lines(alone), "", *sweep_lines(lab)]
    draw(lab, results, bootstrap)
    forest([*between, *alone], lab.output / DIFFERENCES)
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
        f"over seeds from {bootstrap.resamples:,} resamples of the test patients; over both: the seeds are "
        "resampled with them. Accuracy, sensitivity and specificity at the threshold with validation's "
        "largest Youden index.",
        "",
        "| labels | classifier | rate | seeds | training AUROC | validation AUROC | test AUROC, over seeds | "
        "over patients | over both | average precision | accuracy | sensitivity | specificity |",
        "|" + "---|" * 13,
    ]
    for share in lab.budget.shares:
        for contestant in CONTESTANTS:
            found = results.get((contestant.name, share.fraction))
            if found is None:
                continue
            mean = rank_over_seeds(found.test, bootstrap)
            cells = [share.text, contestant.label, f"{found.rate:g}", str(share.seeds)]
            cells += [mean_text(found.values(split)) for split in ("train", "validation")]
            both, _ = rank_over_draws(found.test, bootstrap)
            cells += [seeds_text(found.values("test")), interval_text(mean.mean_auroc_interval)]
            cells.append(interval_text(both.mean_auroc_interval))
            cells.append(mean_text(found.values("test", "mean_average_precision")))
            cells += [mean_text(values) for values in zip(*found.rates, strict=True)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def mean_text(values: Sequence[float]) -> str:
    """Mean over seeds, for a table's cell."""
    return f"{sum(values) / len(values):.4f}"


def probe_lines(lab: Laboratory, bootstrap: Bootstrap) -> list[str]:
    """Linear probes on frozen encoders."""
    labels = {each.name: f"Hiera, MAE of {each.label}" for each in PRETRAININGS.values() if each.is_trained}
    labels = {"none": RANDOM.label, **labels, "teacher": "the ImageNet teacher"}
    lines = [
        "| linear probe on | training AUROC | validation AUROC | test AUROC, over patients | accuracy |",
        "|---|---|---|---|---|",
    ]
    for name, label in labels.items():
        found = read_probe(lab, name)
        if found is None:
            continue
        known = [rank_findings(found[split], Bootstrap(0)).mean_auroc for split in ("train", "validation")]
        mean = rank_over_seeds([found["test"]], bootstrap)
        accuracy, *_ = rates_at(found["validation"], found["test"])
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
                rates = lab.budget.rates
                if len(rates) > 1 and best_rate(reached) in (rates[0], rates[-1]):
                    text += "; the best lies at the grid's end"
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
