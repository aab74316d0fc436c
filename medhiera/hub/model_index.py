"""The results in a card's YAML block: which numbers, and of which data set.

record.py → here → card_header.py. The Hub shows such a number alone, without the card's text: one that the
text takes back, or that needs it to be understood, does not stand there.
"""

from typing import Any

from huggingface_hub import EvalResult

from dataset_scripts import SOURCES, chestxray14
from dataset_scripts.chestxray14 import OFFICIAL_TEST_IMAGES
from dataset_scripts.mistyped import REPOSITORY
from medhiera.evaluation.report_results import ReportEvaluation
from medhiera.evaluation.results import ClassificationReport
from medhiera.hub.data_record import OWN
from medhiera.hub.record import AnyRecord, ClassificationRecord, ReportRecord, TrainedRecord

NIH = chestxray14.SOURCE.name

Result = tuple[str, str, float]
"""The Hub's word for a measure, what it is called on the page, and its value."""


def model_index(record: AnyRecord, task: str) -> list[EvalResult]:
    """What a whole run measured on the test split of one set of real images that the Hub has an id for.

    A result without its data set's id is none that the Hub or its client can read, and it takes one id; the
    card's text has every number.

    Args:
        record: of a stage.
        task: the Hub's word for what the model does.
    """
    if record.kind == "smoke" or has_phantoms(record) or is_too_high(record):
        return []
    if (data := tested_dataset(record)) is None:
        return []
    return [
        EvalResult(
            task_type=task, **data, metric_type=metric, metric_name=title, metric_value=round(value, 4)
        )
        for metric, title, value in results(record)
    ]


def has_phantoms(record: AnyRecord) -> bool:
    """Whether a number on the test split is of phantoms, or of some among real images."""
    return record.is_phantom or not record.tested_on.keys().isdisjoint(record.phantom_sources)


def is_too_high(record: AnyRecord) -> bool:
    """Whether held-out images or their patients were learned from, as far as is known, here or before."""
    leakages = [record.leakage, *(record.lineage.leakage_before or ())]
    if any(one is not None and one.were_kept for one in leakages):
        return True
    if any(teacher.saw_test for teacher in record.lineage.teachers):
        return True
    if not isinstance(record, TrainedRecord):
        return False
    is_allowed = bool(record.recipe.get("allow_leakage"))  # an earlier version did not count what was before
    return is_allowed or record.data.scheme_leaks or "tested_on" in record.data.shared_patients


def tested_dataset(record: AnyRecord) -> dict[str, Any] | None:
    """What EvalResult is told of the data tested on; None of several sources, or without an id on the Hub."""
    if len(record.tested_on) != 1:
        return None
    [(name, count)] = record.tested_on.items()
    tested = next((source for source in SOURCES if source.name == name), None)
    own = record.own_images
    if tested is not None and tested.hub_dataset:
        is_other = tested.name == NIH and count != OFFICIAL_TEST_IMAGES
        more = f", {count:,} images, not the official test list" if is_other else ""
        return {
            "dataset_type": tested.hub_dataset,
            "dataset_name": tested.title + more,
            "dataset_split": "test",
        }
    if name != OWN or own is None or not REPOSITORY.fullmatch(own.hub_id):
        return None
    has_test = "test" in own.splits
    return {
        "dataset_type": own.hub_id,
        "dataset_name": own.public_name + ("" if has_test else f", {count:,} images held out of it"),
        "dataset_config": own.config or None,
        "dataset_split": "test" if has_test else None,
        "dataset_revision": own.revision or None,
    }


def results(record: AnyRecord) -> list[Result]:
    """The numbers of a record on the test split; none where that was not scored, or not as it is served."""
    if record.scored_split != "test":
        return []
    if isinstance(record, ClassificationRecord) and not record.has_legacy_scores:
        return _of_classifier(record.evaluation)
    return _of_reports(record.evaluation) if isinstance(record, ReportRecord) else []


def _of_classifier(report: ClassificationReport) -> list[Result]:
    """Means over findings, and over the diseases among them."""
    names, diseases = report.findings_in_mean, report.diseases
    among, exclusive = len(report.findings), report.exclusive
    kind = "findings" if exclusive is None else "classes"
    is_pair = exclusive is not None and bool(exclusive.pair)
    precision = _mean("average precision", names, among, kind)
    found = [
        ("roc_auc", "AUROC" if is_pair else _mean("AUROC", names, among, kind), report.mean_auroc),
        ("average_precision", precision, report.mean_average_precision),
    ]
    if diseases.findings_in_mean != names:
        of_diseases = _mean("AUROC", diseases.findings_in_mean, kind="diseases")
        found.insert(1, ("roc_auc", of_diseases, diseases.mean_auroc))
    if exclusive is not None:
        found.insert(0, ("accuracy", "accuracy", exclusive.accuracy))
    return [(metric, title, value) for metric, title, value in found if value is not None]


def _mean(measure: str, names: list[str], among: int | None = None, kind: str = "findings") -> str:
    """What a mean is called: "AUROC of Pneumonia", or "mean AUROC of 14 of 15 findings".

    Args:
        measure: of which.
        names: over which.
        among: how many there are; None where all of the kind are in it.
        kind: what they are.
    """
    if len(names) == 1:
        return f"{measure} of {names[0].replace('_', ' ')}"
    more = "" if among in (None, len(names)) else f"of {among} "
    return f"mean {measure} of {len(names)} {more}{kind}"


def _of_reports(report: ReportEvaluation) -> list[Result]:
    """The measures of the written reports."""
    scores = report.written.scores
    return [
        ("bleu", "BLEU-4", scores.bleu_4),
        ("rouge", "ROUGE-L", scores.rouge_l),
        ("cider", "CIDEr-D", scores.cider),
    ]
