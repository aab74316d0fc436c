"""Stage 2 with a timm ResNet-18 from random weights in Hiera's place: the baseline of small_result.

Stands beside the project; nothing imports it. It is train_cls.py itself, so data, augmentation, loss, steps,
optimizer and choice of the checkpoint are the same; layer-wise decay has no meaning here and is 1.

    PYTHONPATH=. python benchmarks/resnet_baseline.py configs/cls_smoke.yaml --data_dir DATA --output_dir OUT
"""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TimmWrapperConfig, TimmWrapperForImageClassification

import train_cls
from medhiera import run
from medhiera.config.arguments import ModelArguments
from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import run_script
from medhiera.hub.record import AnyRecord
from medhiera.layout import CARD_FILE
from medhiera.training.losses import TrainingLoss


class ResNet18(TimmWrapperForImageClassification):
    """timm's resnet18 with the few names that train_cls.py asks of a model."""

    @property
    def classifier(self) -> nn.Linear:
        """The head, whose bias starts at the findings' shares."""
        head: nn.Linear = self.timm_model.fc
        return head


def start_resnet(
    model_class: type[PreTrainedModel], options: ModelArguments, *, id2label: dict[int, str], **fields: Any
) -> tuple[PreTrainedModel, str]:
    """In place of training.model.start_model."""
    config = TimmWrapperConfig(
        architecture="resnet18", id2label=id2label, problem_type=fields["problem_type"]
    )
    config.depths = []  # one learning rate for all
    config.num_channels = 3
    return ResNet18(config), "all"


def write_record(
    folder: Path,
    stage: Any,
    record: AnyRecord,
    model: PreTrainedModel,
    preprocessing: Preprocessing,
    *rest: Any,
) -> None:
    """In place of run.write_stage: model and record, and a README.md that marks the run as finished."""
    model.save_pretrained(folder)
    preprocessing.to_processor().save_pretrained(folder)
    record.write(folder)
    (folder / CARD_FILE).write_text("A baseline; see metrics.json.\n", encoding="utf-8")


if __name__ == "__main__":
    run.start_model = start_resnet
    run.write_stage = write_record
    # timm's wrapper knows no labels that are not annotated; the same loss from outside.
    train_cls.choose_loss = lambda stage, is_exclusive: TrainingLoss(
        stage.label_smoothing, stage.loss == "asymmetric", is_exclusive
    )
    run_script(lambda words: train_cls.main([*words, "--layer_decay", "1"]))
