"""Stock transformers.Trainer drives both models with nothing of ours in between."""

import pytest
import torch
from model_configs import tiny_classifier, tiny_mae
from transformers import Trainer, TrainingArguments

NAN = float("nan")


def arguments(folder, **options):
    defaults = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
    }
    return TrainingArguments(**{**defaults, **options})


def rows(with_labels):
    torch.manual_seed(0)
    images = torch.randn(6, 3, 64, 64)
    if not with_labels:
        return [{"pixel_values": image} for image in images]
    return [{"pixel_values": image, "labels": torch.tensor([1.0, 0.0, NAN])} for image in images]


# accelerate and the Trainer touch names that torch has deprecated.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_mae_trains_and_evaluates(tmp_path):
    trainer = Trainer(
        tiny_mae(),
        arguments(tmp_path, label_names=["pixel_values"], prediction_loss_only=True),
        train_dataset=rows(False),
        eval_dataset=rows(False),
    )
    assert trainer.train().training_loss > 0
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_classifier_is_told_how_many_items_a_step_has(tmp_path):
    model = tiny_classifier()
    told = []
    model.register_forward_pre_hook(
        lambda _, a, k: told.append(k.get("num_items_in_batch")), with_kwargs=True
    )
    trainer = Trainer(
        model, arguments(tmp_path, gradient_accumulation_steps=2, max_steps=1), train_dataset=rows(True)
    )
    trainer.train()
    assert [int(items) for items in told] == [12, 12]  # two batches of two images and three labels
