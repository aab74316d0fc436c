"""What is done to a picture before the model sees it: on its way a byte a pixel, then as in training."""

import numpy as np
import pytest
import torch
from page_fixtures import PREPROCESSING, phantom, write_stage2
from PIL import Image
from transformers import BitImageProcessor

from medhiera.inference.classifier import Classifier

PICTURES = [Image.fromarray(phantom(side)) for side in (160, 160, 72, 300)] + [
    Image.fromarray(np.ascontiguousarray(phantom(200)[:, :130])), Image.fromarray(phantom()).convert("RGB")
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return write_stage2(tmp_path / "stage2")


def test_pictures_travel_as_bytes_and_are_normalized_as_in_training(folder):
    classifier = Classifier.from_pretrained(folder)
    pixels = [classifier.preprocessing.pixels(picture) for picture in PICTURES]
    assert {(each.dtype, each.shape) for each in pixels} == {(torch.uint8, (1, 64, 64))}
    values = classifier.pixel_values(pixels)
    assert torch.equal(values, PREPROCESSING.pixel_values(PICTURES))
    assert torch.equal(classifier.score(values), classifier.probabilities(PICTURES))


def test_a_stock_processor_prepares_a_picture_alone_as_in_a_batch(folder):
    """Readers prepare one picture each; a processor groups a batch by size."""
    stock = BitImageProcessor(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    stock.save_pretrained(folder)
    classifier = Classifier.from_pretrained(folder)
    values = classifier.pixel_values([classifier.preprocessing.pixels(picture) for picture in PICTURES])
    rgb = [picture.convert("L").convert("RGB") for picture in PICTURES]
    assert torch.equal(values, stock(images=rgb, return_tensors="pt")["pixel_values"])
