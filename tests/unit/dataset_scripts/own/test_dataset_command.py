"""`python -m dataset_scripts` of a dataset that others wrote: the images that training on it would build."""

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from dataset_scripts.__main__ import main
from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import BuiltDataset, open_cocktail
from medhiera.data.stored_images import as_picture


def films(count: int = 60, first: int = 0) -> datasets.Dataset:
    """Two columns that may be the image, two that may be the class, and a patient of three images each."""
    generator = np.random.default_rng(first)
    pictures = [Image.fromarray(generator.integers(0, 256, (40, 40), np.uint8)) for _ in range(count)]
    columns: dict[str, Any] = {"film": pictures, "mask": pictures[::-1]}
    columns |= {"kind": [n % 2 for n in range(count)], "other": [0] * count}
    columns |= {"who": [f"p{(first + n) // 3}" for n in range(count)]}
    kinds = {name: datasets.ClassLabel(names=["normal", "sick"]) for name in ("kind", "other")}
    pixels = {name: datasets.Image() for name in ("film", "mask")}
    features = datasets.Features(**pixels, **kinds, who=datasets.Value("string"))
    return datasets.Dataset.from_dict(columns, features=features)


def saved(folder: Path) -> Path:
    datasets.DatasetDict(train=films(), test=films(9, 60)).save_to_disk(folder)
    return folder


def parquet(folder: Path) -> Path:
    folder.mkdir()
    films().to_parquet(folder / "train.parquet")
    films(9, 60).to_parquet(folder / "test.parquet")
    return folder


COLUMNS = {"image_column": "film", "label_column": "kind", "patient_column": "who"}


def build(source: Path | str, output: Path, **options: str) -> int:
    words = ["--data_dir", str(source), "--output_dir", str(output), "--stored_size", "32", "--num_proc", "1"]
    return main(words + [word for name, value in options.items() for word in (f"--{name}", value)])


def content(data: BuiltDataset) -> list[tuple[Any, ...]]:
    """Split, name, patient, labels and pixels of every image."""
    return sorted(
        (split, row["image_id"], row["patient_id"], *row["labels"], as_picture(row["image"]).tobytes())
        for split, rows in data.rows.items()
        for row in rows
    )


@pytest.mark.parametrize("write", [saved, parquet])
def test_built_first_or_on_the_way_the_images_are_the_same(write: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "source")
    assert build(source, tmp_path / "built", **COLUMNS) == 0
    built = open_cocktail(DataArguments(str(tmp_path / "built"), str(tmp_path / "cache")))
    options = DataArguments(str(source), str(tmp_path / "on_the_way"), stored_size=32, **COLUMNS)
    assert content(built) == content(open_cocktail(options))
    assert built.names == ["normal", "sick"] and built.is_exclusive
    assert len(built.split("test")) == 9 and {len(rows) % 3 for rows in built.rows.values()} == {0}


def test_the_same_command_again_reuses_the_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = parquet(tmp_path / "source")
    for _ in range(2):
        assert build(source, tmp_path / "built", **COLUMNS) == 0
    assert "Reusing the complete build" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"source", "built", "built.datasets"}


def test_columns_of_your_own_table_are_taken_too(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for number, row in enumerate(films(30)):
        row["film"].save(tmp_path / "own" / f"{number}.png")
    lines = [f"{number}.png,p{number // 3},{'ab'[number % 2]}" for number in range(30)]
    (tmp_path / "own" / "labels.csv").write_text("\n".join(["film,who,kind", *lines, ""]))
    assert build(tmp_path / "own", tmp_path / "built", **COLUMNS) == 0
    built = open_cocktail(DataArguments(str(tmp_path / "built"), str(tmp_path / "cache")))
    assert built.names == ["a", "b"]
    assert "p0" in {row["patient_id"].split("/")[-1] for rows in built.rows.values() for row in rows}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("source", {}, "['film', 'mask'] may each hold the image; name one: --image_column."),
        ("source", COLUMNS | {"label_column": "gone"}, "has no column 'gone' (--label_column)"),
        ("source", COLUMNS | {"dataset_config": "gone"}, "no configuration 'gone'"),
        ("own", {"dataset_config": "films"}, "dataset_config is of a dataset on the Hub or of Parquet"),
        ("sources", {"image_column": "film"}, "image_column are of your own images or of a dataset"),
        ("sourec", {}, "there is no such folder; did you mean"),
        ("source/sub/typo", COLUMNS, "there is no such folder; the nearest that exists is"),
        ("done", {}, "done is built data"),
    ],
)
def test_what_cannot_be_built_is_named(
    name: str, options: dict[str, str], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parquet(tmp_path / "source")
    (tmp_path / "own").mkdir()
    films(1)[0]["film"].save(tmp_path / "own" / "1.png")
    (tmp_path / "sources" / "BraTS2020").mkdir(parents=True)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "build.json").write_text("{}")
    with caplog.at_level(logging.ERROR):
        assert build(tmp_path / name, tmp_path / "built", **options) == 1
    assert words in caplog.text
    assert not (tmp_path / "built").exists()


def test_an_output_that_may_not_be_is_refused_before_images_are_copied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = parquet(tmp_path / "source")
    assert build(source, source / "built", **COLUMNS) == 1
    assert "lies inside --data_dir" in caplog.text and not (source / "built.datasets").exists()


def test_a_dataset_of_the_hub_is_said_to_be_out_of_reach(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert build("nobody/chests", tmp_path / "built") == 1
    assert "HF_HUB_OFFLINE is set, so the Hub was not asked" in caplog.text
