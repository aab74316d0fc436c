"""A classifier learns some of the data's findings, as if nobody had annotated the others."""

import math

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from dataset_scripts.findings import label_names, make_features
from medhiera.data.cocktail import BuiltDataset
from medhiera.data.columns import read_labels
from medhiera.data.kept_findings import keep_findings
from medhiera.errors import UserError

NAMES = ["Mass", "Effusion", "Pleural_Thickening"]


def box(finding: int, x: float) -> dict[str, float]:
    return {"finding": finding, "x": x, "y": 1.0, "width": 2.0, "height": 3.0}


LABELS = [[1, 0, 1], [math.nan] * 3, [0, 1, math.nan], [1, 1, 1]]
PRESENT = [[0, 2], [], [1], [0, 1, 2]]
BOXES = [[box(2, 5), box(0, 6)], [], [box(1, 7)], [box(2, 8), box(2, 9)]]


def built(folder, *, is_exclusive: bool = False) -> BuiltDataset:
    """Two splits that lie in files, the second of one row."""
    features = make_features(NAMES, is_exclusive=is_exclusive)
    columns = {
        "image": [None] * 4, "image_id": ["a", "b", "c", "d"], "labels": LABELS, "boxes": BOXES,
        "findings": [[0]] * 4 if is_exclusive else PRESENT,
    }  # fmt: skip
    columns |= {name: [None] * 4 for name in features if name not in columns}
    rows = Dataset.from_dict(columns, features=features, split="test")
    DatasetDict({"test": rows, "train": rows.select([2])}).save_to_disk(folder)
    return BuiltDataset(DatasetDict.load_from_disk(folder), NAMES, 0.5, 0.2, "official", folder, True)


def test_labels_names_and_boxes_are_of_the_findings_alone_in_the_datas_order(tmp_path):
    kept = keep_findings(built(tmp_path), ["pleural thickening", "Mass", "Mass"])
    assert kept.names == ["Mass", "Pleural_Thickening"] == label_names(kept.rows["test"].features)
    rows = kept.rows["test"]
    np.testing.assert_array_equal(read_labels(rows), np.array(LABELS)[:, [0, 2]])
    assert rows["findings"][:] == [[0, 1], [], [], [0, 1]]
    assert rows["boxes"][:] == [BOXES[0], [], [], BOXES[3]] and rows["image_id"][:] == ["a", "b", "c", "d"]
    assert rows.features["boxes"].feature["finding"].names == NAMES, "the boxes' numbers are as they were"
    assert rows.split == "test" and not kept.is_exclusive and kept.rows["train"]["findings"][:] == [[]]
    assert kept.rows["train"].features == rows.features


def test_images_stay_where_they_lie(tmp_path):
    data = built(tmp_path)
    rows = keep_findings(data, ["Mass"]).rows["test"]
    assert rows.cache_files == data.rows["test"].cache_files and rows._indices is None


def test_all_findings_are_the_data_itself(tmp_path):
    data = built(tmp_path)
    assert keep_findings(data, None) is data is keep_findings(data, [])


def test_what_the_data_does_not_label_and_classes_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"names \['Edema'\], which the data does not label; it labels \['Mass'"
    ):
        keep_findings(built(tmp_path / "a"), ["Mass", "Edema"])
    with pytest.raises(UserError, match="exactly one of the classes"):
        keep_findings(built(tmp_path / "b", is_exclusive=True), ["Mass"])
