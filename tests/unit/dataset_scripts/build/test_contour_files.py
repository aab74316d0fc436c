"""Contours that the user has: CheXmask's table and folders of masks, right and wrong ones."""

import csv
import gzip
import logging

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.build import chest_contour
from dataset_scripts.build.contour_files import read_contours
from dataset_scripts.errors import DataLayoutError, LabelFileError

HEIGHT, WIDTH = 120, 100

COLUMNS = (
    "Dice RCA (Max)",
    "Dice RCA (Mean)",
    "Landmarks",
    "Left Lung",
    "Right Lung",
    "Heart",
    "Height",
    "Width",
)


def encode_runs(mask):
    """CheXmask's run-length encoding: start (from 1) and length of each run, row by row."""
    padded = np.concatenate([[0], mask.ravel().astype(int), [0]])
    changes = np.flatnonzero(np.diff(padded))
    return " ".join(f"{start + 1} {end - start}" for start, end in changes.reshape(-1, 2))


def draw_lungs():
    left, right = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
    right[20:90, 10:40] = left[30:100, 60:95] = True
    return left, right


def write_table(path, rows, id_column="Image Index"):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, [id_column, *COLUMNS])
        writer.writeheader()
        for name, changes in rows.items():
            left, right = map(encode_runs, draw_lungs())
            row = {id_column: name, "Dice RCA (Max)": 0.9, "Dice RCA (Mean)": 0.85, "Heart": "1 2"}
            row |= {"Height": HEIGHT, "Width": WIDTH, "Landmarks": "[[1 2]\n [3 4]]"}
            row |= {"Left Lung": left, "Right Lung": right}
            writer.writerow(row | changes)
    return path


def write_picture(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, size[::-1], dtype=np.uint8)
    Image.fromarray(noise).save(path)


def read_mask(path):
    with Image.open(path) as mask:
        return np.asarray(mask)


def hull_holds_the_lungs(mask):
    left, right = draw_lungs()
    tight = np.zeros_like(left)
    tight[20:100, 10:95] = True
    return (mask[left | right] > 0).all() and not mask[~tight].any()


@pytest.mark.parametrize(
    ("id_column", "name", "picture"),
    [
        ("Image Index", "00000001_000.png", "00000001_000.png"),
        ("Path", "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg",
         "train/patient00001/study1/view1_frontal.jpg"),
        ("dicom_id", "02aa804e-bde0afdd.5", "02aa804e-bde0afdd.5.png"),
        ("image_id", "0108949daa13dc94634a7d650a05c0bb", "below/0108949daa13dc94634a7d650a05c0bb.png"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_row_of_chexmask_is_the_region_of_its_picture(id_column, name, picture, suffix, tmp_path, caplog):
    write_picture(tmp_path / "pictures" / picture)
    table = write_table(tmp_path / f"table{suffix}", {name: {}, "another.png": {}}, id_column)
    masks = tmp_path / "masks"
    with caplog.at_level(logging.INFO):
        arguments = [str(tmp_path / "pictures"), "--output_dir", str(masks), "--contours", str(table)]
        assert chest_contour.main(arguments) == 0
    [mask] = masks.rglob("*.png")
    assert hull_holds_the_lungs(read_mask(mask))
    assert "0 from the network, 1 from --contours" in caplog.text


def test_rows_of_the_same_file_name_are_told_apart_by_their_folders(tmp_path):
    pictures = ["p1/view1.jpg", "p2/view1.jpg"]
    upper = {"Left Lung": f"1 {WIDTH * 30}", "Right Lung": "1 1"}
    table = write_table(tmp_path / "t.csv", {"x/p1/view1.jpg": {}, "x/p2/view1.jpg": upper}, "Path")
    regions = read_contours(table, tmp_path, pictures).regions
    assert regions["p1/view1.jpg"].share == pytest.approx(0.5, abs=0.1)
    assert regions["p2/view1.jpg"].share == pytest.approx(0.25)


def test_a_row_of_low_quality_is_left_to_the_network_and_named(tmp_path, caplog):
    write_picture(tmp_path / "pictures" / "a.png")
    table = write_table(tmp_path / "t.csv", {"a.png": {"Dice RCA (Mean)": 0.4}})
    with caplog.at_level(logging.INFO):
        chest_contour.write_contours(tmp_path / "pictures", tmp_path / "masks", table)
    assert "a.png: its contour is not used: Dice RCA (Mean) 0.4 is below 0.7" in caplog.text
    assert "1 from the network, 0 from --contours" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Left Lung": "5 10 7"}, "pairs of start and length"),
        ({"Left Lung": "a b"}, "pairs of start and length"),
        ({"Left Lung": "0 5"}, "a run leaves the picture"),
        ({"Right Lung": f"{HEIGHT * WIDTH} 2"}, "a run leaves the picture of 120×100"),
        ({"Height": ""}, "Height, Width"),
        ({"Width": "0"}, "no size of a picture"),
        ({"Width": "nan"}, "Height, Width"),
    ],
)
def test_a_row_that_cannot_be_decoded_names_its_line(changes, said, tmp_path):
    table = write_table(tmp_path / "t.csv", {"b.png": {}, "a.png": changes})
    with pytest.raises(LabelFileError, match=r"t\.csv, line 5") as error:  # the landmarks hold line ends
        read_contours(table, tmp_path, ["a.png"])
    assert said in str(error.value)


def test_wrong_files_are_refused_with_what_is_missing(tmp_path):
    with pytest.raises(DataLayoutError, match="is not there. Name a CSV of CheXmask or a folder"):
        read_contours(tmp_path / "absent.csv", tmp_path, ["a.png"])
    (tmp_path / "other.csv").write_text("image,label\na.png,1\n")
    with pytest.raises(LabelFileError, match="not a table of CheXmask.*'image', 'label'.*Left Lung"):
        read_contours(tmp_path / "other.csv", tmp_path, ["a.png"])
    table = write_table(tmp_path / "t.csv", {"a.png": {}}, "patient")
    with pytest.raises(LabelFileError, match=r"the picture's id \(Image Index, Path"):
        read_contours(table, tmp_path, ["a.png"])
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(LabelFileError, match="cannot be read as a CSV"):
        read_contours(tmp_path / "picture.csv", tmp_path, ["a.png"])
    whole = write_table(tmp_path / "cut.csv.gz", {f"{index}.png": {} for index in range(50)})
    whole.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(LabelFileError, match="cannot be read as a CSV.*Download it again"):
        read_contours(whole, tmp_path, ["a.png"])
    table = write_table(tmp_path / "t.csv", {"b.png": {}})
    with pytest.raises(LabelFileError, match="names none of the 1 pictures, of which the first is a.png"):
        read_contours(table, tmp_path, ["a.png"])


def test_masks_in_a_folder_are_the_regions_of_their_pictures(tmp_path, caplog):
    left, right = draw_lungs()
    for name in ("a.jpg", "below/b.jpg", "without.jpg", "wide.jpg"):
        write_picture(tmp_path / "pictures" / name)
    own = tmp_path / "own"
    (own / "below").mkdir(parents=True)
    lungs = Image.fromarray(((left | right) * 255).astype(np.uint8))
    lungs.save(own / "a.png")
    lungs.resize((WIDTH * 2, HEIGHT * 2), Image.Resampling.NEAREST).save(own / "below" / "b.png")
    lungs.resize((WIDTH * 2, HEIGHT)).save(own / "wide.png")  # of another picture
    with caplog.at_level(logging.INFO):
        chest_contour.write_contours(tmp_path / "pictures", tmp_path / "masks", own)
    for name in ("a.png", "below/b.png"):
        mask = read_mask(tmp_path / "masks" / name)
        assert mask.shape == (HEIGHT, WIDTH) and hull_holds_the_lungs(mask)
    assert "wide.jpg: its contour is not used: mask wide.png is 200×120, the picture 100×120" in caplog.text
    assert "2 from the network, 2 from --contours" in caplog.text


def test_an_empty_mask_is_the_rectangle(tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "own").mkdir()
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "own" / "a.png")
    assert read_contours(tmp_path / "own", tmp_path, ["a.png"]).regions["a.png"].is_fallback


def test_other_tables_keep_their_limit_of_a_field(tmp_path):
    limit = csv.field_size_limit()
    write_picture(tmp_path / "p" / "a.png")
    read_contours(write_table(tmp_path / "right.csv", {"a.png": {}}), tmp_path / "p", ["a.png"])
    wrong = write_table(tmp_path / "wrong.csv", {"a.png": {"Height": "tall"}})
    with pytest.raises(LabelFileError):
        read_contours(wrong, tmp_path / "p", ["a.png"])
    assert csv.field_size_limit() == limit
