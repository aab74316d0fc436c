"""The loss of an evaluation is over all labels or images, however they are cut into batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import PREPROCESSING, make_rows, make_trainer, tiny_classifier, tiny_mae

from medhiera.data.dataset import RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from modeling_hiera_mae.exclusive_loss import SINGLE_LABEL
from modeling_hiera_mae.modeling_hiera import masked_binary_cross_entropy

WIDE = Preprocessing(image_size=64, resize_size=64, mean=PREPROCESSING.mean, std=PREPROCESSING.std)

DARK = Image.new("L", (44, 40))


def sparse_rows(count=14):
    """Four annotated images, ten of another source without a label but one."""
    rows = make_rows(count)
    labels = np.full((count, 3), np.nan)
    labels[:4] = np.arange(12).reshape(4, 3) % 2
    labels[9, 0] = 1
    return with_labels(rows, labels)


def with_labels(rows, labels):
    kind = rows.features["labels"]
    return rows.remove_columns("labels").add_column("labels", labels.tolist(), feature=kind)


def confident_classifier(**fields):
    model = tiny_classifier(**fields)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)  # or every image would have the same loss
    return model


@pytest.mark.parametrize("problem_type", ["multi_label_classification", SINGLE_LABEL])
def test_the_evaluation_loss_does_not_depend_on_the_batch(problem_type, tmp_path):
    rows, model = sparse_rows(), confident_classifier(problem_type=problem_type)
    if problem_type == SINGLE_LABEL:
        labels = np.array(rows["labels"])
        labels[:4] = np.eye(3)[[0, 1, 2, 0]]
        labels[9] = [0, 0, 1]
        rows = with_labels(rows, labels)
    found = []
    for size in (1, 2, 4, 8, 14):
        trainer = make_trainer(tmp_path, rows=rows, model=model, per_device_eval_batch_size=size)
        found.append(trainer.evaluate()["eval_loss"])
    assert found == pytest.approx([found[-1]] * 5, rel=1e-4)
    predicted = trainer.predict(trainer.eval_dataset, metric_key_prefix="test")
    assert predicted.metrics["test_loss"] == pytest.approx(found[-1], rel=1e-4)
    if problem_type != SINGLE_LABEL:
        logits, labels = torch.tensor(predicted.predictions), torch.tensor(predicted.label_ids)
        assert found[-1] == pytest.approx(masked_binary_cross_entropy(logits, labels).item(), rel=1e-4)


def test_an_evaluation_without_any_label_has_a_loss_of_0(tmp_path):
    trainer = make_trainer(tmp_path, rows=sparse_rows().select(range(4, 8)), per_device_eval_batch_size=2)
    assert trainer.evaluate()["eval_loss"] == 0


def losses_of_both_stages(folder, **arguments):
    """A classifier's over 14 images, masked autoencoders' over 14 and 11, of which some are far harder."""
    trainer = make_trainer(folder, rows=sparse_rows(), model=confident_classifier(), **arguments)
    found = [trainer.evaluate()["eval_loss"]]
    trainer = make_trainer(
        folder, model=tiny_mae(mask_ratio=0.5, normalize_pixel_loss=False), preprocessing=WIDE,
        label_names=["pixel_values"], prediction_loss_only=True, **arguments,
    )  # fmt: skip
    masks = MaskDrawing(trainer.model.config.unit_grid, 0.5)
    for count in (14, 11):  # 11: the second rank's last batch holds nothing of its own
        rows = make_rows(count).map(
            lambda row, place: {} if place < 2 else {"image": DARK}, with_indices=True
        )
        trainer.eval_dataset = RadiographDataset(rows, WIDE, masks=masks, mask_ratio=0.5)
        found.append(trainer.evaluate()["eval_loss"])
    return found, trainer


def one_of_two(folder):
    """A rank: images 0 to 13 in batches of 4 on each, so that the first ones fill up the last batches."""
    found, trainer = losses_of_both_stages(folder, per_device_eval_batch_size=4)
    assert trainer.args.world_size == 2
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_ranks_find_the_loss_of_one(root, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    words = [sys.executable, "-W", "ignore", __file__, str(tmp_path)]
    ranks = [
        subprocess.Popen(words, cwd=root, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    alone, _ = losses_of_both_stages(tmp_path)
    assert found[0] == found[1] == pytest.approx(alone, rel=1e-4)


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
