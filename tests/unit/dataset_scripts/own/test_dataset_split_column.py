"""A column `split` in a dataset with a single split: what it holds out stays held out."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from raw_folders import gray

from dataset_scripts.errors import LabelFileError
from dataset_scripts.own.dataset_rows import extract_dataset
from dataset_scripts.own.labels import NOT_NAMED

WORDS = ["train", "test", "train", "val"]


def extracted(place: Path, words: list[Any], kind: Any, **others: datasets.Dataset) -> dict[str, list[str]]:
    """The numbers of the images in each split's folder."""
    features = datasets.Features(image=datasets.Image(), split=kind)
    columns = {"image": [gray(n, 24) for n in range(len(words))], "split": words}
    rows = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(train=rows, **others).save_to_disk(place / "saved")
    folder = extract_dataset(str(place / "saved"), "", NOT_NAMED, place / "out").folder
    pixels = {gray(n, 24).tobytes(): n for n in range(len(words))}
    return {
        part.name: [pixels[datasets.Image().decode_example({"path": str(file), "bytes": None}).tobytes()]
                    for file in sorted(part.iterdir())]
        for part in folder.iterdir() if part.is_dir()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (WORDS, datasets.Value("string")),
        ([" Train", "TEST", "train", "val"], datasets.Value("string")),
        ([0, 2, 0, 1], datasets.ClassLabel(names=["train", "val", "test"])),
    ],
)
def test_it_is_read(tmp_path: Path, words: list[Any], kind: Any) -> None:
    assert extracted(tmp_path, words, kind) == {"train": [0, 2], "test": [1], "val": [3]}


def test_the_datasets_own_splits_come_first(tmp_path: Path) -> None:
    other = datasets.Dataset.from_dict(
        {"image": [gray(0, 24)]}, features=datasets.Features(image=datasets.Image())
    )
    found = extracted(tmp_path, WORDS, datasets.Value("string"), test=other)
    assert found == {"train": [0, 1, 2, 3], "test": [0]}


@pytest.mark.parametrize("other", ["fold1", None, ""])
def test_rows_without_a_split_beside_others_are_refused(tmp_path: Path, other: str | None) -> None:
    with pytest.raises(
        LabelFileError, match="'split' holds .*; wanted train, validation or test in every row"
    ):
        extracted(tmp_path, [*WORDS, other], datasets.Value("string"))


def test_a_column_that_names_no_split_is_said_not_to_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert extracted(tmp_path, ["a", "b"], datasets.Value("string")) == {"train": [0, 1]}
    assert "its column 'split' names no split (['a', 'b']) and is not read" in caplog.text
