"""How a run begins and ends: its log, its preprocessing, and the folder that a finished stage leaves behind.

    config.json  model.safetensors  preprocessor_config.json  README.md  metrics.json  figures/*.png

Above every room of medhiera; the scripts call it.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedModel, TrainingArguments

from dataset_scripts import SOURCES
from medhiera.data.preprocessing import Preprocessing
from medhiera.hub.lineage import stage_record
from medhiera.hub.model_card import card_of
from medhiera.hub.widget_examples import write_examples

logger = logging.getLogger(__name__)


def choose_preprocessing(
    source: str | None, image_size: int, resize_size: int, mean: float, std: float
) -> Preprocessing:
    """Stage 2 keeps the normalisation of the stage (1 or 2) it starts from; otherwise the data's own.

    Args:
        source: the folder or Hub id that training starts from, or None.
        image_size: side of the crop in pixels.
        resize_size: shorter side before it.
        mean: of the data, in units of [0, 1].
        std: of the data.
    """
    if source:
        stage = (stage_record(source) or {}).get("stage")
        if stage:  # stage 0's is of photographs
            inherited = Preprocessing.from_processor(AutoImageProcessor.from_pretrained(source))
            mean, std = inherited.mean, inherited.std
            logger.info("normalisation of stage %d: mean %.4f, std %.4f", stage, mean, std)
    return Preprocessing(image_size, resize_size, mean, std)


def write_stage(
    folder: Path,
    model: PreTrainedModel,
    preprocessing: Preprocessing,
    metrics: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a finished stage; figures are drawn beforehand. The card is last: it marks completion.

    Args:
        folder: the stage's folder.
        model: the best or last model, on any device.
        preprocessing: goes into preprocessor_config.json.
        metrics: the whole record; the card renders it and nothing else.
        weights: the model's, where it holds a part of them alone (`MedHieraTrainer.whole_weights`).
    """
    model.save_pretrained(folder, state_dict=weights)
    preprocessing.to_processor().save_pretrained(folder)
    (folder / "metrics.json").write_text(
        json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    tasks = {source.name for source in SOURCES if source.is_default_task}
    if metrics["stage"] == 2 and tasks & metrics["data"]["trained_on"].keys():
        write_examples(folder / "examples")
    (folder / "README.md").write_text(card_of(folder), encoding="utf-8")


def start_logging(args: TrainingArguments) -> None:
    """Our messages on the main process only, the libraries' warnings everywhere."""
    level = logging.INFO if args.should_log else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("medhiera", "dataset_scripts", "modeling_hiera_mae", "train_mae", "train_cls"):
        logging.getLogger(name).setLevel(level)
