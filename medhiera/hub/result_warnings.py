"""What a stage's record warns of: a run too short to have learned, an AUROC that is not above chance.

Beside model_card.py, which shows it at the top of a card; run.py says the same at the end of the log.
"""

from medhiera.evaluation.tables import chance_warning
from medhiera.hub.record import AnyRecord, ClassificationRecord, PretrainingRecord, TrainedRecord


def is_short(record: AnyRecord) -> bool:
    """Whether training ended before its first epoch did: it has not seen its images once."""
    return isinstance(record, TrainedRecord) and record.training.epochs < 1


def result_warnings(record: AnyRecord) -> list[str]:
    """Sentences that a reader of the numbers needs first; none where there is nothing to warn of."""
    found = []
    if isinstance(record, TrainedRecord) and is_short(record):
        steps, images = record.training.steps, sum(record.trained_on.values())
        found.append(
            f"Training ended before one epoch: {steps:,} step{'' if steps == 1 else 's'}, "
            f"{record.training.epochs:.2g} of an epoch of {images:,} images, started from "
            f"{record.lineage.started_from}. This is hardly a trained model"
        )
    if isinstance(record, ClassificationRecord):
        found += chance_warning(record.evaluation, f"On the {record.evaluation.split} split")
    if isinstance(record, PretrainingRecord) and record.probe is not None:
        found += chance_warning(record.probe.ranking, f"Linear probe on the {record.probe.split} split")
    return found
