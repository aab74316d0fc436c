"""The files of a finished stage, in an order in which no card or record stands beside weights of another run.

Below run.py. The card marks completion (layout.is_finished): it goes first and is written last.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from dataset_scripts import SOURCES
from medhiera.data.preprocessing import Preprocessing
from medhiera.hub.contents import contents_of
from medhiera.hub.model_card import card_of
from medhiera.hub.record import AnyRecord, ClassificationRecord
from medhiera.hub.widget_examples import score_examples, write_examples
from medhiera.inference.classifier import Classifier
from medhiera.layout import CARD_FILE, EXAMPLES_FOLDER, METRICS_FILE, share_weights
from medhiera.output import write_error
from medhiera.stages import Stage


def unfinish(folder: Path) -> None:
    """Remove the card before a run trains on in a finished stage's folder: figures and log will be others.

    The record stays: it is of the weights that lie there until new ones are written.

    Raises:
        UserError: it cannot be removed.
    """
    try:
        (folder / CARD_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise write_error("output_dir", folder, error) from error


def write_stage(
    folder: Path,
    stage: Stage[Any],
    record: AnyRecord,
    model: PreTrainedModel,
    preprocessing: Preprocessing,
    weights: dict[str, Tensor] | None = None,
    save: Callable[[Path], None] | None = None,
) -> None:
    """Write what a finished stage leaves behind.

    Args:
        folder: the run's.
        stage: its row.
        record: the whole record, but for what the model says of the examples, and which files it is about.
        model: the best or last one, on any device.
        preprocessing: of the processor.
        weights: the model's, where it holds a part of them alone (`MedHieraTrainer.gather_state_dict`).
        save: writes the model, where more than its weights belong to it.
    """
    for name in (CARD_FILE, METRICS_FILE):
        (folder / name).unlink(missing_ok=True)
    if save is None:
        model.save_pretrained(folder, state_dict=weights)
    else:
        save(folder)
    share_weights(folder)
    preprocessing.to_processor().save_pretrained(folder)
    chests = {source.name for source in SOURCES if source.is_default_task}
    if stage.has_widget_examples and chests & record.trained_on.keys():
        write_examples(folder / EXAMPLES_FOLDER)
        if isinstance(record, ClassificationRecord):
            classifier = Classifier.from_pretrained(folder)  # what was written, as anyone will load it
            record.examples = score_examples(folder / EXAMPLES_FOLDER, classifier)
    record.contents = contents_of(folder)
    record.write(folder)
    (folder / CARD_FILE).write_text(card_of(folder), encoding="utf-8")
