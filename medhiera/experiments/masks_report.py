"""The tables of the masks experiment: does it help that masks follow the chest?

Beside report.py; everything is read from the arms' records and predictions.parquet.
"""

from collections.abc import Sequence

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_over_seeds
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions, load_predictions
from medhiera.experiments.arms import REGIONS
from medhiera.experiments.report import difference_cells, seeds_text
from medhiera.experiments.runner import ExperimentRunner
from medhiera.hub.record import PretrainingRecord

COMPARED = (("contour", "none"), ("contour", "rectangle"), ("rectangle", "none"))
BEFORE = "before"
MEASURES = {"probe": "linear probe, AUROC", "test": "fine-tuned, AUROC"}


def masks_report(runner: ExperimentRunner, seeds: Sequence[int], note: str, before: str) -> str:
    """Markdown: what each arm reached, and the paired differences with a verdict.

    Args:
        runner: of mask_arms, all ended.
        seeds: of each arm.
        note: said on top, "" for none.
        before: label of the classifier without stage 1.
    """
    bootstrap = Bootstrap()
    losses = {region: _losses(runner, region, seeds) for region in REGIONS}
    scored = {
        (measure, region): [
            load_predictions(runner.folder(f"{measure}-{region}", seed) / "predictions.parquet")
            for seed in seeds
        ]
        for measure in MEASURES
        for region in (BEFORE, *REGIONS)
        if (measure, region) != ("probe", BEFORE)
    }
    first = scored["test", BEFORE][0]
    lines = ["# Masks that follow the chest", "", *([f"**{note}**", ""] if note else [])]
    lines += [
        f"{len(seeds)} seeds; mean and, in brackets, the 95 % interval over seeds (Student's t). AUROC of "
        f"{len(first)} test images of {first.patient_count} patients.",
        "",
        "| pre-training masks | masked loss, even masks of every run | with the masks it was trained with | "
        "linear probe, AUROC | fine-tuned, AUROC |",
        "|---|---|---|---|---|",
        f"| {before} | – | – | – | {seeds_text(_aurocs(scored['test', BEFORE]))} |",
    ]
    for region, label in REGIONS.items():
        cells = [seeds_text([pair[kind] for pair in losses[region]]) for kind in (0, 1)]
        cells += [seeds_text(_aurocs(scored[measure, region])) for measure in MEASURES]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += [
        "",
        "Differences with the same seed. Over patients: 95 % interval of the mean over seeds, from 2,000 "
        "resamples of the test patients that weigh both models alike. Better or worse where neither interval "
        "holds zero, else undecided.",
        "",
        "| compared | measure | difference, over seeds | over patients | verdict |",
        "|---|---|---|---|---|",
    ]
    for one, other in COMPARED:
        pairs = zip(losses[one], losses[other], strict=True)
        row = difference_cells([a[0] - b[0] for a, b in pairs], None, -1)
        lines.append(f"| {one} − {other} | masked loss | {row} |")
    for measure, label in MEASURES.items():
        against = [*COMPARED, *([(region, BEFORE) for region in REGIONS] if measure == "test" else [])]
        for one, other in against:
            ours, theirs = scored[measure, one], scored[measure, other]
            values = [a - b for a, b in zip(_aurocs(ours), _aurocs(theirs), strict=True)]
            difference = compare_over_seeds(list(zip(ours, theirs, strict=True)), bootstrap)
            patients = None if difference is None else difference.auroc.interval
            lines.append(f"| {one} − {other} | {label} | {difference_cells(values, patients)} |")
    return "\n".join(lines) + "\n"


def _losses(runner: ExperimentRunner, region: str, seeds: Sequence[int]) -> list[tuple[float, float]]:
    """Masked loss with the even masks of every run and with the run's own, one pair a seed."""
    found = []
    for seed in seeds:
        record = runner.record(f"mae-{region}", seed)
        assert isinstance(record, PretrainingRecord), "the arm has ended"
        evaluation = record.evaluation
        own = evaluation.recipe_masked_loss
        found.append((evaluation.masked_loss, float("nan") if own is None else own))
    return found


def _aurocs(predictions: Sequence[Predictions]) -> list[float]:
    """Mean AUROC of each; NaN where no finding has one."""
    values = [rank_findings(each, Bootstrap(0)).mean_auroc for each in predictions]
    return [float("nan") if value is None else value for value in values]
