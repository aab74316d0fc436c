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


HALF_ANNOTATED = torch.tensor([[1.0, NAN, NAN], [NAN, NAN, 0.0], [1.0, 0.0, 1.0], [0.0, NAN, 1.0]])

LABELS = pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("multi_label_classification", HALF_ANNOTATED),
        ("single_label_classification", torch.eye(3)[[0, 2, 1, 1]]),
        ("single_label_classification", torch.tensor([0, 2, -100, 1])),
    ],
    ids=["NaN", "shares", "integers"],
)


def labelled(problem_type, labels):
    """A classifier whose logits are far from 0, and rows of images with these labels."""
    model = tiny_classifier(problem_type=problem_type)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    images = torch.randn(len(labels), 3, 64, 64)
    return (
        model.eval(),
        images,
        [{"pixel_values": image, "labels": of_image} for image, of_image in zip(images, labels, strict=True)],
    )


@LABELS
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_trainer_evaluates_the_loss_of_what_is_annotated(problem_type, labels, tmp_path):
    model, images, data = labelled(problem_type, labels)
    with torch.no_grad():
        wanted = model(images, labels=labels).loss.item()
    trainer = Trainer(model, arguments(tmp_path), eval_dataset=data)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)


@LABELS
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_trainer_trains_on_the_mean_of_accumulated_batches(problem_type, labels, tmp_path):
    model, _, data = labelled(problem_type, labels)
    batches = []
    hook = model.register_forward_pre_hook(lambda _, a, given: batches.append(given), with_kwargs=True)
    trainer = Trainer(
        model,
        arguments(tmp_path, gradient_accumulation_steps=2, max_steps=1, learning_rate=0.0),
        train_dataset=data,
    )
    found = trainer.train().training_loss
    hook.remove()
    means = [model(batch["pixel_values"], labels=batch["labels"]).loss.item() for batch in batches]
    assert len(means) == 2
    assert found == pytest.approx(sum(means) / 2, rel=1e-5)
