"""The tables and the figure of the labels experiment: what is pre-training worth with few labels?

Beside report.py; everything is read from the arms' records and predictions.parquet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_over_seeds
from medhiera.evaluation.label_figures import label_efficiency
from medhiera.evaluation.metrics import rank_findings, rank_over_seeds
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.predictions_files import load_predictions
from medhiera.evaluation.results import MeanScores
from medhiera.evaluation.tables import few_cases
from medhiera.experiments.arms import START_LABELS
from medhiera.experiments.label_share import LabelShare
from medhiera.experiments.report import difference_cells, spread
from medhiera.experiments.runner import ExperimentRunner
from medhiera.formatting import interval_text
from medhiera.hub.record import TrainedRecord

FIGURE = "label_efficiency.png"

MEASURES = {"mean_auroc": "AUROC", "mean_average_precision": "average precision"}


@dataclass(frozen=True)
class ShareScores:
    """What one start reached with one share of the labels.

    Attributes:
        images: training images, one number a seed.
        predictions: of the test split, one a seed.
        mean: over seeds, with intervals over patients.
    """

    images: list[int]
    predictions: list[Predictions]
    mean: MeanScores

    def values(self, measure: str) -> list[float]:
        """A measure of MEASURES, one value a seed."""
        return [getattr(rank_findings(each, Bootstrap(0)), measure) for each in self.predictions]


def labels_report(
    runner: ExperimentRunner,
    shares: Sequence[LabelShare],
    starts: Sequence[str],
    task: str,
    note: str,
    bootstrap: Bootstrap | None = None,
) -> str:
    """Draw the figure, and return what each arm reached and the paired differences as Markdown.

    Args:
        runner: of arms_of_shares, all ended.
        shares: smallest first.
        starts: keys of START_LABELS; "random" first.
        task: whose labels were learned.
        note: said on top and below the figure, "" for none.
        bootstrap: of the test patients; by default 2,000 resamples.

    Raises:
        UserError: no finding has both label values on the test split.
    """
    bootstrap = bootstrap or Bootstrap()
    scores = {
        (start, share): _scores(runner, start, share, bootstrap) for share in shares for start in starts
    }
    first = scores[starts[0], shares[0]].predictions[0]
    names = scores[starts[0], shares[0]].mean.findings_in_mean
    if not names:
        raise UserError(
            f"no finding of {task} is both present and absent on the test split, so there is no AUROC; name "
            "other --task_sources"
        )
    of = f"mean of {len(names)} findings" if len(names) > 1 else "".join(names).replace("_", " ")
    tested = f"{len(first):,} test images of {first.patient_count:,} patients"
    _draw(runner, scores, shares, starts, f"Few labels of {task}: {of}, {tested}", note)
    lines = [f"# Few labels: {task}", "", *([f"**{note}**", ""] if note else [])]
    lines += [
        f"{of[:1].upper()}{of[1:]}: {tested}. Over seeds: mean, and lowest to highest; a seed draws "
        "the labeled images, the same for each start. Over patients: 95 % interval of the mean over seeds, "
        f"from {bootstrap.resamples:,} resamples of the test patients.",
        "",
        f"![AUROC over the share of the labels]({FIGURE})",
        "",
        "| labels | training images | started from | seeds | AUROC over seeds | over patients | "
        "average precision over seeds | over patients |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (start, share), reached in scores.items():
        cells = [f"{100 * share.fraction:g} %", _images_text(reached.images), START_LABELS[start]]
        cells.append(str(share.seeds))
        for measure in MEASURES:
            interval = getattr(reached.mean, f"{measure}_interval")
            cells += [spread(reached.values(measure)), interval_text(interval)]
        lines.append(f"| {' | '.join(cells)} |")
    few = few_cases(rank_findings(first, Bootstrap(0)))
    lines += ["", *(f"**{sentence}.**" for sentence in few)] if few else []
    return "\n".join([*lines, "", *_differences(scores, shares, starts, bootstrap)]) + "\n"


def _scores(runner: ExperimentRunner, start: str, share: LabelShare, bootstrap: Bootstrap) -> ShareScores:
    """Read the runs of one start and share."""
    name, images, predictions = f"{start}-{share.fraction:g}", [], []
    for seed in range(share.seeds):
        record = runner.record(f"cls-{name}", seed)
        assert isinstance(record, TrainedRecord), "the arm has ended"
        images.append(sum(record.trained_on.values()))
        predictions.append(load_predictions(runner.folder(f"test-{name}", seed) / "predictions.parquet"))
    return ShareScores(images, predictions, rank_over_seeds(predictions, bootstrap))


def _differences(
    scores: Mapping[tuple[str, LabelShare], ShareScores],
    shares: Sequence[LabelShare],
    starts: Sequence[str],
    bootstrap: Bootstrap,
) -> list[str]:
    """Each start against those before it, with the same labels and seeds."""
    lines = [
        "Differences with the same labels and seed. Over seeds: mean and 95 % interval (Student's t). Over "
        "patients: both models are weighed by the same resamples. Better or worse where neither interval "
        "holds zero, else undecided, as with one seed; of too few patients neither.",
        "",
        "| labels | compared | measure | difference over seeds | over patients | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for share in shares:
        for number, one in enumerate(starts):
            for other in starts[:number]:
                ours, theirs = scores[one, share], scores[other, share]
                pairs = list(zip(ours.predictions, theirs.predictions, strict=True))
                found = compare_over_seeds(pairs, bootstrap)
                assert found is not None, "a finding has an AUROC, see labels_report"
                for measure, label in MEASURES.items():
                    by_seed = zip(ours.values(measure), theirs.values(measure), strict=True)
                    patients = getattr(found, measure.removeprefix("mean_")).interval
                    differences = [a - b for a, b in by_seed]
                    cells = difference_cells(differences, patients, has_few_cases=found.has_few_cases)
                    compared = f"{START_LABELS[one]} − {START_LABELS[other]}"
                    lines.append(f"| {100 * share.fraction:g} % | {compared} | {label} | {cells} |")
    return lines


def _draw(
    runner: ExperimentRunner,
    scores: Mapping[tuple[str, LabelShare], ShareScores],
    shares: Sequence[LabelShare],
    starts: Sequence[str],
    title: str,
    note: str,
) -> None:
    """The label-efficiency figure."""
    seeds = ", ".join(f"{share.seeds} at {100 * share.fraction:g} %" for share in shares)
    text = (
        f"points: mean over seeds ({seeds}); bars: its 95 % interval over test patients; circles: each seed"
    )
    label_efficiency(
        {
            START_LABELS[start]: {
                share.fraction: scores[start, share].values("mean_auroc") for share in shares
            }
            for start in starts
        },
        {
            START_LABELS[start]: {
                share.fraction: scores[start, share].mean.mean_auroc_interval for share in shares
            }
            for start in starts
        },
        {
            share.fraction: f"{100 * share.fraction:g} %\n{_images_text(scores[starts[0], share].images)}"
            for share in shares
        },
        runner.output / FIGURE,
        title=title,
        note="\n".join(part for part in (text, note) if part),
        mark=runner.figure_mark(),
    )


def _images_text(images: Sequence[int]) -> str:
    low, high = min(images), max(images)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
