"""The tables of the experiments that compare masks: where they hide, or how much.

Beside report.py; everything is read from the arms' records and predictions.parquet.
"""

from collections.abc import Mapping, Sequence

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_over_seeds
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.predictions_files import load_predictions
from medhiera.evaluation.tables import few_cases
from medhiera.experiments.arms import WHERE_MASKED, MaskQuestion
from medhiera.experiments.report import difference_cells, seeds_text
from medhiera.experiments.runner import ExperimentRunner
from medhiera.hub.record import PretrainingRecord

BEFORE = "before"
MEASURES = {"probe": "linear probe, AUROC", "test": "fine-tuned, AUROC"}


def masks_report(
    runner: ExperimentRunner,
    seeds: Sequence[int],
    note: str,
    before: str,
    question: MaskQuestion = WHERE_MASKED,
) -> str:
    """Markdown: what each arm reached, and the paired differences with a verdict.

    Args:
        runner: of mask_arms, all ended.
        seeds: of each arm.
        note: said on top, "" for none.
        before: label of the classifier without stage 1.
        question: what differs between the pre-trainings.
    """
    bootstrap = Bootstrap()
    losses = {value: _losses(runner, value, seeds) for value in question.labels}
    scored = {
        (measure, value): [
            load_predictions(runner.folder(f"{measure}-{value}", seed) / "predictions.parquet")
            for seed in seeds
        ]
        for measure in MEASURES
        for value in (BEFORE, *question.labels)
        if (measure, value) != ("probe", BEFORE)
    }
    first = scored["test", BEFORE][0]
    lines = [f"# {question.title}", "", *([f"**{note}**", ""] if note else [])]
    lines += [
        f"{len(seeds)} seeds; mean and, in brackets, the 95 % interval over seeds (Student's t). AUROC of "
        f"{len(first)} test images of {first.patient_count} patients.",
        "",
        "| pre-training masks | masked loss, even masks of every run | with the masks it was trained with | "
        "linear probe, AUROC | fine-tuned, AUROC |",
        "|---|---|---|---|---|",
        f"| {before} | – | – | – | {seeds_text(_aurocs(scored['test', BEFORE]))} |",
    ]
    for value, label in question.labels.items():
        cells = [seeds_text([pair[kind] for pair in losses[value]]) for kind in (0, 1)]
        cells += [seeds_text(_aurocs(scored[measure, value])) for measure in MEASURES]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    few = few_cases(rank_findings(first, Bootstrap(0)))
    lines += ["", *(f"**{sentence}.**" for sentence in few)] if few else []
    lines += _difference_lines(question, losses, scored, bootstrap)
    return "\n".join(lines) + "\n"


def _difference_lines(
    question: MaskQuestion,
    losses: Mapping[str, Sequence[tuple[float, float]]],
    scored: Mapping[tuple[str, str], Sequence[Predictions]],
    bootstrap: Bootstrap,
) -> list[str]:
    """The paired differences with a verdict."""
    lines = [
        "",
        "Differences with the same seed. Over patients: 95 % interval of the mean over seeds, from 2,000 "
        "resamples of the test patients that weigh both models alike. Better or worse where neither interval "
        "holds zero, else undecided; of too few patients neither.",
        "",
        "| compared | measure | difference, over seeds | over patients | verdict |",
        "|---|---|---|---|---|",
    ]
    for one, other in question.compared:
        pairs = zip(losses[one], losses[other], strict=True)
        row = difference_cells([a[0] - b[0] for a, b in pairs], None, -1)
        lines.append(f"| {one} − {other} | masked loss | {row} |")
    for measure, label in MEASURES.items():
        against = [*question.compared]
        if measure == "test":
            against += [(value, BEFORE) for value in question.labels]
        for one, other in against:
            ours, theirs = scored[measure, one], scored[measure, other]
            values = [a - b for a, b in zip(_aurocs(ours), _aurocs(theirs), strict=True)]
            difference = compare_over_seeds(list(zip(ours, theirs, strict=True)), bootstrap)
            patients, has_few_cases = None, False
            if difference is not None:
                patients, has_few_cases = difference.auroc.interval, difference.has_few_cases
            cells = difference_cells(values, patients, has_few_cases=has_few_cases)
            lines.append(f"| {one} − {other} | {label} | {cells} |")
    return lines


def _losses(runner: ExperimentRunner, value: str, seeds: Sequence[int]) -> list[tuple[float, float]]:
    """Masked loss with the even masks of every run and with the run's own, one pair a seed."""
    found = []
    for seed in seeds:
        record = runner.record(f"mae-{value}", seed)
        assert isinstance(record, PretrainingRecord), "the arm has ended"
        evaluation = record.evaluation
        own = evaluation.recipe_masked_loss
        found.append((evaluation.masked_loss, float("nan") if own is None else own))
    return found


def _aurocs(predictions: Sequence[Predictions]) -> list[float]:
    """Mean AUROC of each; NaN where no finding has one."""
    values = [rank_findings(each, Bootstrap(0)).mean_auroc for each in predictions]
    return [float("nan") if value is None else value for value in values]
