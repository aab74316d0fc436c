"""Data that is built raw: the same pixels as PNGs, read in place, exported, opened and scored like them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets, load_dataset
from PIL import Image
from transformers import TrainingArguments

from dataset_scripts import ImageFolder
from dataset_scripts.build.parquet_export import export_parquet
from medhiera.config.arguments import DataArguments
from medhiera.data.augmentation import Augmentation
from medhiera.data.cocktail import open_cocktail
from medhiera.data.dataset import RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.selection import warn_of_small_images
from medhiera.data.stored_images import as_picture, as_pictures, stored_images

MASKS = MaskDrawing((2, 2), 0.5)
PREPROCESSING = Preprocessing(32, 36, 0.5, 0.25)
SIDES = [(40, 40), (40, 64), (70, 40), (33, 36)]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "own"
    (folder / "images").mkdir(parents=True)
    lines = ["image,patient,split,Mass"]
    for index in range(24):
        pixels = np.random.default_rng(index).integers(0, 255, SIDES[index % 4], np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        lines.append(f"{index}.png,p{index},{'validation' if index % 5 == 0 else 'train'},{index % 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def opened(own, compression):
    options = DataArguments(
        str(own), build_dir=str(own.parent / "built"), stored_size=36, compression=compression
    )
    return open_cocktail(options, TrainingArguments(str(own.parent / "run"), use_cpu=True))


@pytest.fixture(scope="module")
def stored(own):
    return {compression: opened(own, compression) for compression in ("raw", "none")}


def test_the_raw_build_is_another_folder_with_the_same_pixels(own, stored):
    raw, png = stored["raw"], stored["none"]
    assert raw.folder != png.folder and opened(own, "auto").folder == raw.folder
    assert (raw.mean, raw.std, raw.names) == (png.mean, png.std, png.names)
    one, other = raw.split("train"), png.split("train")
    assert one["image_id"][:] == other["image_id"][:]
    assert set(one[0]["image"]) == {"pixels", "height", "width"}
    pictures = as_pictures(one[:]["image"])
    assert {picture.mode for picture in pictures} == {"L"} and len({picture.size for picture in pictures}) > 2
    for ours, theirs in zip(pictures, other["image"], strict=True):
        assert ours.size == theirs.size and ours.tobytes() == theirs.tobytes()
        assert as_picture(theirs) is theirs


@pytest.mark.parametrize("augmentation", [None, Augmentation(0.4, has_flip=True, has_rand_augment=True)])
def test_batches_of_raw_rows_are_those_of_pngs(stored, augmentation):
    """Also where rows are chosen and shuffled, so that they do not follow each other in the file."""

    def batch(compression):
        rows = stored[compression].split("train").shuffle(seed=1).select(range(2, 17))
        table = RadiographDataset(
            rows, PREPROCESSING, augmentation=augmentation, masks=MASKS, with_labels=True
        )
        table = pickle.loads(pickle.dumps(table))  # as a spawned worker gets it
        return PREPROCESSING.model_inputs(table.__getitems__([(0, row) for row in (3, 3, 4, 5, 14, 0)]))

    raw, png = batch("raw"), batch("none")
    assert raw.keys() == png.keys() and raw["image_ids"] == png["image_ids"]
    for name in raw.keys() - {"image_ids", "epochs"}:
        assert torch.equal(raw[name], png[name])


def test_raw_rows_are_read_in_place(stored):
    """Arrays are views into the mapped file, of rows that follow each other and of others."""
    rows = stored["raw"].split("train")
    assert rows.cache_files, "a file is mapped into memory"
    images = stored_images(rows)
    arrays = images.read([1, 2, 3, 9])
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)
    assert images.read([9])[0].ctypes.data == arrays[3].ctypes.data
    assert [array.shape[::-1] for array in arrays] == [
        as_picture(rows[n]["image"]).size for n in (1, 2, 3, 9)
    ]


@pytest.mark.parametrize("compression", ["raw", "none"])
def test_an_image_is_found_by_its_number_in_a_table_of_several_chunks(stored, compression):
    rows = stored[compression].split("train")
    parts = [rows.select(range(*ends)) for ends in ((0, 1), (1, 1), (1, 8), (8, len(rows)))]
    rows = concatenate_datasets([part.flatten_indices() for part in parts])
    assert rows.data.column("image").num_chunks > 2
    for chosen in (rows, rows.select(range(len(rows) - 1, -1, -1))):
        images = stored_images(chosen)
        numbers = [7, 0, 8, 1, 7, len(rows) - 1]
        for image, number in zip(images.read(numbers), numbers, strict=True):
            assert np.array_equal(image, np.asarray(as_picture(chosen[number]["image"])))
        for beyond in (len(rows), -1):
            with pytest.raises(IndexError):
                images.read([beyond])


def test_a_raw_export_is_loaded_by_anyone_and_trained_on(own, stored, tmp_path):
    builder = ImageFolder(data_dir=own, build_dir=tmp_path / "cache", stored_size=36, compression="raw")
    out = tmp_path / "out"
    assert export_parquet(builder, out) and not export_parquet(builder, out)
    loaded = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf"))
    image = loaded[0]["image"]
    pixels = np.frombuffer(image["pixels"], np.uint8).reshape(image["height"], image["width"])
    by_id = {row["image_id"]: row["image"] for row in stored["none"].split("train")}
    assert np.array_equal(pixels, np.asarray(by_id[loaded[0]["image_id"]]))
    assert "8-bit gray bytes, row after row: pixels, height, width" in (out / "README.md").read_text()
    data = open_cocktail(DataArguments(str(out), build_dir=str(tmp_path / "b")))
    pixels = []
    for rows in (data.split("validation"), stored["none"].split("validation")):
        table = RadiographDataset(rows.select(np.argsort(rows["image_id"])), PREPROCESSING)
        pixels.append(table.__getitems__(range(len(rows)))["pixel_values"])
    assert torch.equal(*pixels)
    assert json.loads((out / "build.json").read_text())["complete"]


def test_small_raw_images_are_said_to_be_small(stored, caplog):
    warn_of_small_images(stored["raw"].split("train"), 36, is_exported=True)
    assert not caplog.records
    warn_of_small_images(stored["raw"].split("train"), 50, is_exported=True)
    assert "at most 36 pixels" in caplog.text
