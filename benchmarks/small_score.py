"""Scores of small_result: a classifier's, or a linear probe's on a frozen encoder, of all three splits.

Stands beside the project; nothing imports it but small_result. Training images are scored too, as they are
and without augmentation: a model that is poor on them has not been optimized, one that is poor on test alone
does not generalize. Each folder gets train.parquet, validation.parquet and, last, test.parquet, in the form
of evaluate_cls.py's predictions.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModel

from benchmarks.resnet_baseline import ResNet18
from medhiera.data.cocktail import BuiltDataset
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.selection import take_label_fraction
from medhiera.data.stored_images import as_picture
from medhiera.evaluation.bootstrap import Floats
from medhiera.evaluation.linear_probe import fit_probe
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.predictions_files import load_predictions
from medhiera.inference.classifier import Classifier
from medhiera.inference.encoder import Encoder
from medhiera.layout import CONFIG_FILE
from medhiera.loading import load_processor

SPLITS = ("train", "validation", "test")
BATCH = 64

Embed = Callable[[Dataset], Floats]
"""Rows → (images, numbers): probabilities of a classifier, features of an encoder."""


def is_scored(folder: Path) -> bool:
    """Whether all three files are there: test's is written last."""
    return file_of(folder, "test").is_file()


def file_of(folder: Path, split: str) -> Path:
    """Where a split's predictions lie."""
    return folder / f"{split}.parquet"


def read_scores(folder: Path, split: str) -> Predictions:
    """What was written of a split."""
    return load_predictions(file_of(folder, split))


def score_classifier(model: Path, data: BuiltDataset, fraction: float, seed: int, target: Path) -> None:
    """Score a fine-tuned folder, Hiera's or the ResNet's.

    Args:
        model: the folder.
        data: the task.
        fraction: of the training images that it learned from; these alone are scored of train.
        seed: that drew them.
        target: where the files go.
    """
    embed = classifier_of(model)
    found = {}
    for split in SPLITS:
        rows = data.split(split)
        if split == "train":
            rows = take_label_fraction(rows, fraction, seed)
        found[split] = Predictions.of(rows, embed(rows), data.names)
    write(target, found)


def score_probe(embed: Embed, data: BuiltDataset, target: Path) -> None:
    """Fit logistic regression on frozen features, its penalty chosen on validation, and score it.

    Args:
        embed: of encoder_of or teacher_of.
        data: the task.
        target: where the files go.
    """
    rows = {split: data.split(split) for split in SPLITS}
    features = {split: embed(each) for split, each in rows.items()}
    labels = {split: Predictions.of(each, no_scores(each, data), data.names).labels
              for split, each in rows.items()}  # fmt: skip
    fitted = fit_probe(features["train"], labels["train"], (features["validation"], labels["validation"]))
    write(
        target,
        {split: Predictions.of(rows[split], fitted.scores(features[split]), data.names) for split in SPLITS},
    )


def no_scores(rows: Dataset, data: BuiltDataset) -> Floats:
    """Zeros in the shape of scores."""
    return np.zeros((len(rows), len(data.names)))


def write(target: Path, found: dict[str, Predictions]) -> None:
    """Write each file whole or not at all."""
    target.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        partial = target / f"{split}.part"
        found[split].table().to_parquet(partial)
        os.replace(partial, file_of(target, split))


def classifier_of(model: Path) -> Embed:
    """Probabilities by a fine-tuned folder."""
    config = json.loads((model / CONFIG_FILE).read_text(encoding="utf-8"))
    if config["model_type"] == "timm_wrapper":
        resnet = ResNet18.from_pretrained(model).eval()
        preprocessing = Preprocessing.from_processor(load_processor(model))

        def logits(pixels: list[Tensor]) -> Tensor:
            return resnet(preprocessing.normalize(torch.stack(pixels), 3)).logits.double().sigmoid()

        return lambda rows: computed(rows, preprocessing, logits)
    classifier = Classifier.from_pretrained(model)
    return lambda rows: computed(
        rows, classifier.preprocessing, lambda pixels: classifier.score(classifier.pixel_values(pixels))
    )


def encoder_of(model: Path) -> Embed:
    """Features by a frozen Hiera, as probe.py takes them."""
    encoder = Encoder.from_pretrained(model)
    return lambda rows: computed(rows, encoder.preprocessing, encoder.embed)


def teacher_of(folder: str, image_size: int) -> Embed:
    """Pooled features by a frozen timm folder, of images at its own normalization.

    Args:
        folder: of the teacher.
        image_size: its images' side in pixels, that of the others.
    """
    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    pretrained = model.config.pretrained_cfg
    mean, std = (torch.tensor(pretrained[name])[:, None, None] for name in ("mean", "std"))
    preprocessing = Preprocessing(image_size, image_size, 0.0, 1.0)

    def features(pixels: list[Tensor]) -> Tensor:
        values = preprocessing.normalize(torch.stack(pixels), 3)
        return model((values - mean) / std).pooler_output

    return lambda rows: computed(rows, preprocessing, features)


def computed(rows: Dataset, preprocessing: Any, compute: Callable[[list[Tensor]], Tensor]) -> Floats:
    """Whatever a model computes of all rows, in their order."""
    with torch.inference_mode():
        parts = [compute(batch).float().cpu().numpy() for batch in batches(rows, preprocessing)]
    return np.concatenate(parts)


def batches(rows: Dataset, preprocessing: Any) -> Iterator[list[Tensor]]:
    """The prepared images, a batch at a time."""
    images = rows.select_columns("image")
    for start in range(0, len(rows), BATCH):
        stop = min(start + BATCH, len(rows))
        yield [preprocessing.pixels(as_picture(images[index]["image"])) for index in range(start, stop)]
