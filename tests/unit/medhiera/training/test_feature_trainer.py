"""The Trainer with a teacher: what an evaluation reports, and every way to train that a recipe may name."""

import pytest
import torch
from teachers import write_resnet
from tiny_training import PREPROCESSING, make_rows, make_trainer, tiny_mae, weights

from medhiera.config.arguments import OptimizationArguments
from medhiera.data.dataset import RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from medhiera.training.feature_trainer import FeatureTrainer
from medhiera.training.teacher import Teacher

INPUT = Preprocessing(image_size=64, resize_size=64, mean=PREPROCESSING.mean, std=PREPROCESSING.std)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return Teacher(str(write_resnet(tmp_path_factory.mktemp("teacher") / "resnet")))


def trained(folder, teacher, optimization=None, with_pixels=False, **arguments):
    model = tiny_mae(mask_ratio=0.5)
    model.predict_features(teacher.size, weight=3.0, with_pixels=with_pixels)
    masks = MaskDrawing(model.config.unit_grid, 0.5)
    trainer = make_trainer(
        folder, optimization, model=model, table=RadiographDataset(make_rows(), INPUT, masks=masks),
        trainer_class=FeatureTrainer, teacher=teacher, label_names=["pixel_values"],
        prediction_loss_only=True, preprocessing=INPUT, **arguments,
    )  # fmt: skip
    trainer.eval_dataset = RadiographDataset(make_rows(11), INPUT, masks=masks, mask_ratio=0.5)
    return trainer


def test_an_evaluation_reports_both_losses_as_means_over_images(teacher, tmp_path):
    trainer = trained(tmp_path, teacher, with_pixels=True, per_device_eval_batch_size=4)  # 4, 4 and 3 images
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(
        found["eval_pixel_loss"] + 3 * found["eval_feature_loss"], rel=1e-5
    )
    trainer.args.per_device_eval_batch_size = 11
    whole = trainer.evaluate()
    assert whole["eval_feature_loss"] == pytest.approx(found["eval_feature_loss"], rel=1e-4)
    assert whole["eval_pixel_loss"] == pytest.approx(found["eval_pixel_loss"], rel=1e-4)


def test_features_alone_are_the_loss(teacher, tmp_path):
    found = trained(tmp_path, teacher).evaluate()
    assert "eval_loss" in found and "eval_feature_loss" not in found


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"optimizer": "adamw", "layer_decay": 0.7}, {"gradient_accumulation_steps": 2}),
        ({"optimizer": "adam", "precision": "bf16_weights"}, {}),
        ({"optimizer": None}, {"weight_decay": 0.1, "bf16": True}),
    ],
)
def test_it_learns_and_the_frozen_head_stays(fields, arguments, teacher, tmp_path):
    optimization = OptimizationArguments(**fields)
    trainer = trained(tmp_path, teacher, optimization, max_steps=12, **arguments)
    teacher_before = weights(teacher.model)
    before, start = weights(trainer.model), trainer.evaluate()["eval_loss"]
    trainer.train()
    after = weights(trainer.model)
    assert trainer.evaluate()["eval_loss"] < 0.95 * start
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"decoder.decoder_pred.weight", "decoder.decoder_pred.bias"}
    assert all(torch.equal(tensor, weights(teacher.model)[name]) for name, tensor in teacher_before.items())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor uses what its own torch has deprecated
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("compiles", [False, True])
def test_it_learns_on_a_gpu_in_half_precision(compiles, tmp_path):
    """The teacher's features are those of single precision on the CPU, within bf16's rounding."""
    folder = str(write_resnet(tmp_path / "resnet"))
    on_gpu = Teacher(folder, dtype=torch.bfloat16, device="cuda")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = Teacher(folder).features(pixels, INPUT, (4, 4))
    found = on_gpu.features(pixels.cuda(), INPUT, (4, 4))
    assert found.device.type == "cuda" and found.dtype == torch.float32
    assert (found.cpu() - expected).abs().mean() < 0.05
    trainer = trained(tmp_path / "run", on_gpu, OptimizationArguments(optimizer="adamw"), use_cpu=False,
                      bf16=True, torch_compile=compiles, max_steps=12)  # fmt: skip
    start = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < start


def test_checkpoints_hold_no_teacher(teacher, tmp_path):
    trainer = trained(tmp_path, teacher, OptimizationArguments(ema_decay=0.9), save_strategy="steps",
                      save_steps=2, max_steps=2)  # fmt: skip
    trainer.train()
    assert not any("teacher" in name for name in trainer.model.state_dict())
    assert "feature_head.prediction.weight" in trainer.model.state_dict()
    assert teacher.fingerprint in (tmp_path / "checkpoint-2" / "settings.json").read_text()
