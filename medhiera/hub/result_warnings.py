"""What a stage's record warns of: what could not be learned, an AUROC that is not above chance.

Beside model_card.py, which shows it at the top of a card; run.py says the same at the end of the log.
"""

from collections.abc import Mapping

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
        found += one_sided_warning(record.training.one_sided)
        found += chance_warning(record.evaluation, f"On the {record.evaluation.split} split")
    if isinstance(record, PretrainingRecord) and record.probe is not None:
        found += chance_warning(record.probe.ranking, f"Linear probe on the {record.probe.split} split")
    return found


def one_sided_warning(one_sided: Mapping[str, str]) -> list[str]:
    """A sentence of the findings that the training images could not teach; none where there are none.

    Args:
        one_sided: see TrainingRecord.
    """
    if not one_sided:
        return []
    listed = ", ".join(f"{name.replace('_', ' ')} ({shown})" for name, shown in one_sided.items())
    return [
        f"The training images do not show both present and absent of {listed}: what the model says of "
        "them, it has not learned; use neither these probabilities nor their thresholds"
    ]
