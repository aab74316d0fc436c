"""Studies of rows, and batches of studies: their views, their padding, their tokens, and keyed draws."""

import re

import pytest
import torch
from datasets import Dataset
from report_rows import bar_report, report_rows

from medhiera.data.augmentation import Augmentation
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.report_dataset import ReportCollator, ReportDataset, read_studies, rows_of
from medhiera.errors import UserError
from medhiera.evaluation.report_cleaning import CLEANERS

PREPROCESSING = Preprocessing(64, 72, 0.4, 0.2)


@pytest.fixture(scope="module")
def rows():
    return report_rows(9, "train")


def test_a_study_is_its_adjacent_rows(rows):
    studies = read_studies(rows, "findings", 2)
    assert [study.name for study in studies] == [f"IU X-Ray/{number}" for number in range(9)]
    assert [len(study.rows) for study in studies] == [1, 2, 2, 2, 1, 2, 2, 2, 1]
    assert studies[2].report == bar_report("", 0)
    assert [rows[row]["image_id"] for row in studies[1].rows] == ["train-1-0", "train-1-1"]
    assert {len(study.rows) for study in read_studies(rows, "findings", 1)} == {1}
    assert len(rows_of(rows, studies)) == len(rows)


def test_studies_without_the_section_are_left_out_and_limits_are_keyed(rows):
    assert len(read_studies(rows, "impression", 2)) == 6
    chosen = read_studies(rows, "findings", 2, at_most=4, seed=3)
    assert len(chosen) == 4 and chosen == read_studies(rows, "findings", 2, at_most=4, seed=3)
    assert chosen != read_studies(rows, "findings", 2, at_most=4, seed=4)


@pytest.mark.parametrize("emptied", ["1. ___.", "XXXX.", "1. XXXX XXXX. 2. ___", " . ", "2"])
@pytest.mark.parametrize("clean", CLEANERS)
def test_a_report_that_nothing_is_left_of_is_none(emptied, clean):
    """Scoring refuses a reference without a word, and that would be after all training."""
    texts = [emptied, "XXXX is clear.", "1. No."]
    rows = Dataset.from_dict(
        {"source": ["a"] * 3, "study_id": list("xyz"), "view": [""] * 3, "report_findings": texts}
    )
    studies = read_studies(rows, "findings", 1)
    assert [study.report for study in studies] == texts[1:]
    assert all(re.search("[a-z]", CLEANERS[clean](study.report)) for study in studies)


def test_data_without_reports_is_refused_in_words(rows):
    with pytest.raises(UserError, match="the data has no reports"):
        read_studies(rows.remove_columns("report_findings"), "findings", 2)
    normal = rows.filter(lambda row: not row["report_impression"])
    with pytest.raises(UserError, match="no study of the train split has a report's impression"):
        read_studies(normal, "impression", 2)


def test_a_batch_has_room_for_every_view(rows):
    studies = read_studies(rows, "findings", 3)
    dataset = ReportDataset(rows, studies, PREPROCESSING, 3, [[5, 2], [5, 6, 2], *[[2]] * 7])
    batch = ReportCollator()(dataset.__getitems__([0, 1]))
    assert batch["pixel_values"].shape == (2, 3, 1, 64, 64) and batch["pixel_values"].dtype == torch.uint8
    assert batch["has_view"].tolist() == [[True, False, False], [True, True, False]]
    assert batch["labels"].tolist() == [[5, 2, -100], [5, 6, 2]]
    assert batch["image_ids"] == ["train-0-0", "train-1-0", "train-1-1"]
    assert batch["pixel_values"][0, 0].float().std() > 0 and not batch["pixel_values"][0, 1:].any()
    assert "labels" not in ReportDataset(rows, studies, PREPROCESSING, 3)[0]


EVERY_DRAW = Augmentation(0.5, has_flip=True, has_rand_augment=True, rotation_degrees=10.0)


@pytest.mark.parametrize(
    ("augmentation", "drawn"),
    [
        (Augmentation(), set()),
        (EVERY_DRAW, {"crop_size", "is_flipped", "operations", "angle"}),
        (Augmentation(rotation_degrees=10.0, has_nearest_rotation=True), {"nearest_angle"}),
    ],
)
def test_every_tensor_of_a_batch_of_studies_can_be_pinned(rows, augmentation, drawn):
    """Pinning copies a tensor into its own strides, which fails where elements share memory."""
    studies = read_studies(rows, "findings", 2)
    tokens = [[number + 5, 2] for number in range(len(studies))]
    dataset = ReportDataset(rows, studies, PREPROCESSING, 2, tokens, augmentation=augmentation)
    batch = ReportCollator()(dataset.__getitems__([(0, study) for study in range(4)]))
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    assert tensors.keys() == {"pixel_values", "has_view", "labels"} | drawn
    for tensor in tensors.values():
        assert tensor.is_contiguous() and len(tensor) == 4
        copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        assert torch.equal(copy, tensor)
    assert batch["pixel_values"].dtype == torch.uint8 and batch["pixel_values"].shape[:3] == (4, 2, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_draws_depend_on_seed_epoch_and_picture_alone(rows, workers):
    studies = read_studies(rows, "findings", 2)
    augmentation = Augmentation(smallest_scale=0.5, rotation_degrees=10)

    def batches(order, epoch, batch_size):
        dataset = ReportDataset(rows, studies, PREPROCESSING, 2, seed=1, augmentation=augmentation)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size, sampler=[(epoch, study) for study in order], num_workers=workers,
            collate_fn=ReportCollator(),
        )  # fmt: skip
        found = {}
        for batch in loader:
            ids = iter(batch["image_ids"])
            for place in batch["has_view"].nonzero().tolist():
                crop = [batch[name][tuple(place)] for name in ("crop_size", "angle")]
                found[next(ids)] = torch.cat([crop[0].float(), crop[1][None]]).tolist()
        return found

    forward = batches(range(9), 0, 4)
    assert len(forward) == len(rows)
    assert forward == batches(reversed(range(9)), 0, 2)
    assert forward != batches(range(9), 1, 4)


def test_the_frontal_view_comes_first_whatever_the_sources_order():
    rows = report_rows(6, "train", views=3)
    turned = ["LATERAL", "PA", "LATERAL"]
    views = [turned[int(name.rsplit("-", 1)[1])] for name in rows["image_id"]]
    rows = rows.remove_columns("view").add_column("view", views)
    studies = read_studies(rows, "findings", 3)
    assert len(studies) > 1
    for study in studies:
        shown = [views[row] for row in study.rows]
        assert shown == sorted(shown, key=lambda view: view == "LATERAL")
        assert len(study.rows) == 1 or (shown[0], study.rows[1] < study.rows[2]) == ("PA", True)
