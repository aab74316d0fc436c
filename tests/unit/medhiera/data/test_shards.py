"""Exported Parquet is read in place: the rows and pixels of load_dataset, without a copy of the images."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from pyarrow import parquet

from benchmarks.shard_reading import write_export
from dataset_scripts.build.shard_file import write_shard
from dataset_scripts.findings import make_features
from dataset_scripts.reading.grayscale import encode_png
from medhiera.data.cocktail import _load_exported
from medhiera.data.dataset import RadiographDataset
from medhiera.data.parquet_pages import find_pages, map_file, places_of_known_lengths, value_in_page
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.shards import open_in_place
from medhiera.data.stored_images import as_picture, stored_images
from medhiera.errors import UserError

SIDES = [(40, 70), (64, 40), (400, 300), (1, 5)]


def example(number, is_raw):
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 256, SIDES[number % 4], np.uint8)
    height, width = pixels.shape
    raw = {"pixels": pixels.tobytes(), "height": height, "width": width}
    box = {"finding": 2, "x": 1.0, "y": 2.0, "width": 3.0, "height": 4.0}
    return {
        "image": raw if is_raw else {"bytes": encode_png(pixels, "fast"), "path": None},
        "image_id": f"Toy/{number:04d}.png",
        "source": "Toy",
        "patient_id": f"p{number // 3}",
        "labels": [float("nan")] * 14 + [1.0],
        "findings": [14],
        "age_years": 30.0 + number,
        "sex": "F" if number % 2 else None,
        "view": "PA",
        "nih_image": "",
        "rsna_image": "",
        "is_phantom": False,
        "boxes": [box] * (number % 3),
    }


@pytest.fixture(scope="module", params=["raw", "png"])
def export(request, tmp_path_factory) -> Path:
    """350 and 30 images in shards of several row groups and pages."""
    is_raw = request.param == "raw"
    features = make_features(is_raw=is_raw)

    def write(path, numbers):
        write_shard(path, (example(number, is_raw) for number in numbers), features)

    parts = {"train": [range(230), range(230, 350)], "test": [range(350, 380)]}
    return write_export(tmp_path_factory.mktemp(request.param), parts, write)


def test_rows_and_pixels_are_those_of_load_dataset(export, tmp_path):
    ours = open_in_place(export, str(tmp_path / "index"))
    theirs = load_dataset(str(export), "all", cache_dir=str(tmp_path / "hf"))
    assert ours is not None and list(ours) == list(theirs)
    for split, rows in ours.items():
        assert str(rows.remove_columns("image").to_dict()) == str(
            theirs[split].remove_columns("image").to_dict()
        )
        assert rows.features["findings"] == theirs[split].features["findings"]
        for one, other in zip(rows["image"], theirs[split]["image"], strict=True):
            picture, wanted = as_picture(one), as_picture(other)
            assert picture.mode == "L" and np.array_equal(np.asarray(picture), np.asarray(wanted))


def test_only_the_small_columns_are_copied_and_only_once(export, tmp_path):
    open_in_place(export, str(tmp_path))
    (index,) = tmp_path.iterdir()
    files = {path.name: path for path in index.iterdir()}
    assert files.keys() == {"train.arrow", "test.arrow"}
    assert sum(path.stat().st_size for path in files.values()) < 380 * 500
    before = {path: path.stat().st_mtime_ns for path in files.values()}
    again = open_in_place(export, str(tmp_path))
    assert again is not None and len(again["train"]) == 350
    assert {path: path.stat().st_mtime_ns for path in index.iterdir()} == before


def test_batches_are_those_of_the_copy_also_in_a_spawned_worker(export, tmp_path):
    preprocessing = Preprocessing(32, 36, 0.5, 0.25)
    ours = open_in_place(export, str(tmp_path / "index"))
    assert ours is not None
    theirs = load_dataset(str(export), "all", cache_dir=str(tmp_path / "hf"))

    def batch(splits):
        rows = splits["train"].shuffle(seed=1).select(range(5, 90)).filter(lambda row: row["age_years"] > 40)
        table = RadiographDataset(rows, preprocessing, with_labels=True)
        return pickle.loads(pickle.dumps(table)).__getitems__([0, 40, 3, 3])

    one, other = batch(ours), batch(theirs)
    assert one["image_ids"] == other["image_ids"]
    assert np.array_equal(one["pixel_values"], other["pixel_values"])


def test_raw_images_are_views_into_the_file(tmp_path):
    path = tmp_path / "one.parquet"
    write_shard(path, (example(number, True) for number in range(150)), make_features(is_raw=True))
    export = write_export(tmp_path / "export", {"train": [range(150)]}, lambda to, _: path.replace(to))
    splits = open_in_place(export, str(tmp_path / "index"))
    assert splits is not None
    images = stored_images(splits["train"])
    one, again = images.read([140, 3]), images.read([140, 3])
    assert not any(array.flags.owndata or array.flags.writeable for array in one)
    assert [array.ctypes.data for array in one] == [array.ctypes.data for array in again]


def test_places_agree_with_the_pages_where_a_page_holds_many_values_and_a_column_many_pages(tmp_path):
    path = tmp_path / "one.parquet"
    write_shard(path, (example(number, True) for number in range(350)), make_features(is_raw=True))
    content = map_file(str(path), path.stat().st_mtime_ns)
    pages = find_pages(content, "image.pixels")
    lengths = np.array([np.prod(SIDES[number % 4]) for number in range(350)])
    places = places_of_known_lengths(pages, lengths)
    assert 4 < len(pages.starts) < 350 and pages.first_rows[-1] == 350
    for row, (page, place) in enumerate(zip(pages.of_rows, places, strict=True)):
        value = value_in_page(content, int(pages.starts[page]), int(row - pages.first_rows[page]))
        assert bytes(value) == example(row, True)["image"]["pixels"] == content[place : place + len(value)]


@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_what_is_not_stored_plainly_is_copied_as_before_and_said(compression, tmp_path, caplog):
    """As an earlier export wrote it: compressed, or with a dictionary of images."""
    rows = [example(number, True) for number in range(40)]
    features = make_features(is_raw=True)

    def write(path, _):
        write_shard(path, rows, features)
        table = parquet.read_table(path, partitioning=None)
        parquet.write_table(table, path, compression=compression, write_page_index=True)

    export = write_export(tmp_path / "export", {"train": [range(40)]}, write)
    splits, folder = _load_exported(str(export), str(tmp_path / "cache"))
    assert folder == export and "is copied before it is read: train-00000-of-00001.parquet" in caplog.text
    assert splits["train"][39]["image"] == rows[39]["image"]
    assert not list((tmp_path / "cache").glob("shards-*"))


@pytest.fixture(params=["raw", "png"])
def opened(request, tmp_path):
    """A function that writes the only shard with some images in place of others, and the rows of now."""
    is_raw = request.param == "raw"
    features = make_features(is_raw=is_raw)

    def write(path, numbers):
        rows = (example(number, is_raw) | {"image_id": f"{row}.png"} for row, number in enumerate(numbers))
        write_shard(path, rows, features)

    export = write_export(tmp_path / "export", {"train": [range(40)]}, write)
    (shard,) = export.glob("data/*/*.parquet")

    def replace(numbers):
        write(tmp_path / "new.parquet", numbers)
        (tmp_path / "new.parquet").replace(shard)
        map_file.cache_clear()  # as in a worker that is started now

    splits = open_in_place(export, str(tmp_path / "index"))
    assert splits is not None
    return replace, splits["train"], export


@pytest.mark.parametrize("first", [1, 4])
def test_a_shard_that_was_replaced_is_noticed(opened, first):
    """By images of other sizes and, from the fourth on, of the same."""
    replace, rows, _ = opened
    replace(range(first, first + 40))
    with pytest.raises(UserError, match="was replaced since the data was opened"):
        stored_images(rows).read(range(len(rows)))
    with pytest.raises(UserError, match="was replaced since the data was opened"):
        as_picture(rows[0]["image"])


def test_a_raw_shard_that_is_written_over_while_it_is_mapped_is_noticed_where_sizes_differ(tmp_path):
    features = make_features(is_raw=True)

    def write(path, numbers):
        write_shard(path, (example(number, True) for number in numbers), features)

    export = write_export(tmp_path / "export", {"train": [range(40)]}, write)
    splits = open_in_place(export, str(tmp_path / "index"))
    assert splits is not None
    write(next(export.glob("data/*/*.parquet")), range(1, 41))
    with pytest.raises(UserError, match="does not hold the image that stood there"):
        stored_images(splits["train"]).read(range(40))


def test_a_shard_that_was_replaced_before_it_is_opened_is_read_as_it_is(opened, tmp_path):
    """As after a copy of the export, whose files may have other times and whose build.json is the same."""
    replace, rows, export = opened
    before = np.asarray(as_picture(rows[0]["image"]))
    replace(range(4, 44))
    again = open_in_place(export, str(tmp_path / "index"))
    assert again is not None
    after = np.asarray(as_picture(again["train"][0]["image"]))
    assert after.shape == before.shape and not np.array_equal(after, before)
