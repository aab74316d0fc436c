"""Contours that the user has: CheXmask's table and folders of masks, right and wrong ones."""

import csv
import gzip
import io
import logging

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.build import chest_contour, contour_files
from dataset_scripts.build.chest_region import region_of_mask
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


def test_many_pictures_of_one_file_name_are_each_looked_at_once(tmp_path, monkeypatch):
    """CheXpert's 190,000 `view1_frontal.jpg` took days where each row was compared with all of them."""
    pictures = [f"train/patient{index:05}/study1/view1_frontal.jpg" for index in range(100)]
    table = write_table(tmp_path / "t.csv", {f"CheXpert/{path}": {} for path in pictures}, "Path")
    calls, parts = [], contour_files._parts
    monkeypatch.setattr(contour_files, "_parts", lambda path: calls.append(path) or parts(path))
    assert read_contours(table, tmp_path, pictures).regions.keys() == set(pictures)
    assert len(calls) < 10 * len(pictures)


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


def encoded(form):
    """Both lungs as a mask of some form, and of those that know no suffix but their own, the suffix."""
    left, right = draw_lungs()
    both, sides = left | right, left * 1 + right * 2
    bright = Image.fromarray((both * 255).astype(np.uint8))
    if form in ("VOC palette", "palette of 0, 1, 2"):
        palette = Image.fromarray(sides.astype(np.uint8)).convert("P")
        palette.putpalette(
            [0, 0, 0, 128, 0, 0, 0, 128, 0] if form.startswith("VOC") else [0, 0, 0, 1, 1, 1, 2, 2, 2]
        )
        return palette
    if form == "JPEG":
        bright.save(content := io.BytesIO(), "JPEG", quality=70)
        return Image.open(content).copy()
    if form == "red and green":
        return Image.fromarray(np.stack([left, right, left & right], axis=-1) * np.uint8(255))
    return {
        "0 and 255": lambda: bright,
        "0 and 1": lambda: Image.fromarray(both.astype(np.uint8)),
        "0, 1 and 2": lambda: Image.fromarray(sides.astype(np.uint8)),
        "0, 127 and 255": lambda: Image.fromarray((sides * 127.5).astype(np.uint8)),
        "1 and 2": lambda: Image.fromarray((both + 1).astype(np.uint8)),
        "one bit": lambda: bright.convert("1"),
        "RGB of 0 and 1": lambda: Image.fromarray(np.stack([both] * 3, axis=-1).astype(np.uint8)),
        "RGBA": lambda: bright.convert("RGBA"),
        "16 bits, 0, 1 and 2": lambda: Image.fromarray(sides.astype(np.uint16)),
        "16 bits, 0 and 65535": lambda: Image.fromarray((both * 65535).astype(np.uint16)),
        "32 bits, 0 and 1": lambda: Image.fromarray(both.astype(np.int32)),
        "floating point, 0 and 1": lambda: Image.fromarray(both.astype(np.float32)),
        "soft edges": lambda: bright.resize((WIDTH * 3, HEIGHT * 3), Image.Resampling.BICUBIC),
    }[form]()  # fmt: skip


@pytest.mark.parametrize(
    "form",
    [
        "0 and 255", "0 and 1", "0, 1 and 2", "0, 127 and 255", "1 and 2", "one bit", "VOC palette",
        "palette of 0, 1, 2", "RGB of 0 and 1", "RGBA", "red and green", "16 bits, 0, 1 and 2",
        "16 bits, 0 and 65535", "32 bits, 0 and 1", "floating point, 0 and 1", "JPEG", "soft edges",
    ],
)  # fmt: skip
def test_lungs_are_found_whatever_numbers_stand_for_them(form, tmp_path):
    write_picture(tmp_path / "p" / "a.png")
    (tmp_path / "own").mkdir()
    encoded(form).save(tmp_path / "own" / ("a.tif" if form.startswith(("32", "floating")) else "a.png"))
    contours = read_contours(tmp_path / "own", tmp_path / "p", ["a.png"])
    assert not contours.refused
    region = contours.regions["a.png"]
    assert not region.is_fallback and region.share == pytest.approx(hull_share(), abs=0.01)
    assert hull_holds_the_lungs(region.draw(HEIGHT, WIDTH)) or form in ("JPEG", "soft edges")


def hull_share():
    left, right = draw_lungs()
    return region_of_mask(left | right).share


@pytest.mark.parametrize("form", ["a radiograph", "four labels", "four labels as grays"])
def test_what_is_no_mask_of_lungs_is_refused_and_named(form, tmp_path):
    left, right = draw_lungs()
    labels = left * 1 + right * 2
    labels[70:95, 35:65] = 3  # a heart
    write_picture(tmp_path / "p" / "a.png")
    if form == "a radiograph":
        write_picture(tmp_path / "own" / "a.png")
    else:
        (tmp_path / "own").mkdir()
        drawn = labels * (1 if form == "four labels" else 85)
        Image.fromarray(drawn.astype(np.uint8)).save(tmp_path / "own" / "a.png")
    contours = read_contours(tmp_path / "own", tmp_path / "p", ["a.png"])
    [(picture, why)] = contours.refused
    assert picture == "a.png" and not contours.regions
    assert (
        "mask a.png: not_a_mask: it holds" in why and "wanted one for the background and one for lung" in why
    )


def write_sides(root, *names, sides=("leftMask", "rightMask")):
    for side, lung in zip(sides, draw_lungs(), strict=True):
        for name in names:
            (root / side / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((lung * 255).astype(np.uint8)).save(root / side / name)
    return root


@pytest.mark.parametrize("sides", [("leftMask", "rightMask"), ("left lung", "right lung"), ("Left", "Right")])
@pytest.mark.parametrize("name", ["a.png", "deep/a.png"])
def test_masks_of_the_left_and_of_the_right_lung_are_united(sides, name, tmp_path):
    write_picture(tmp_path / "pictures" / "a.png")
    own = write_sides(tmp_path / "own", name, sides=sides)
    contours = read_contours(own, tmp_path / "pictures", ["a.png"])
    assert contours.refused == []
    assert contours.regions["a.png"].share == pytest.approx(hull_share())
    assert hull_holds_the_lungs(contours.regions["a.png"].draw(HEIGHT, WIDTH))


def test_a_folder_that_holds_the_pictures_too_is_read_for_its_masks(tmp_path):
    """As Montgomery County's is unpacked: CXR_png, ManualMask/leftMask and ManualMask/rightMask."""
    write_picture(tmp_path / "CXR_png" / "a.png")
    write_sides(tmp_path / "ManualMask", "a.png")
    contours = read_contours(tmp_path, tmp_path / "CXR_png", ["a.png"])
    assert contours.refused == [] and hull_holds_the_lungs(contours.regions["a.png"].draw(HEIGHT, WIDTH))
    chest_contour.write_contours(tmp_path / "CXR_png", tmp_path / "out", tmp_path)
    assert hull_holds_the_lungs(read_mask(tmp_path / "out" / "a.png"))


def test_a_mask_may_say_that_it_is_one(tmp_path):
    """As Shenzhen's in Kaggle's set, beside Montgomery's without it; a picture may be called so too."""
    names = ("CHNCXR_0001_0.png", "MCUCXR_0001_0.png", "odd_mask.png")
    for name in names:
        write_picture(tmp_path / "p" / name)
    left, right = draw_lungs()
    (tmp_path / "own").mkdir()
    for name in ("CHNCXR_0001_0_mask.png", "MCUCXR_0001_0.png", "odd_mask.png", "none_mask.png"):
        Image.fromarray(((left | right) * 255).astype(np.uint8)).save(tmp_path / "own" / name)
    contours = read_contours(tmp_path / "own", tmp_path / "p", names)
    assert contours.regions.keys() == set(names) and not contours.refused
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "own" / "MCUCXR_0001_0_mask.tif")
    contours = read_contours(tmp_path / "own", tmp_path / "p", names)
    assert contours.refused[0][1].startswith("MCUCXR_0001_0.png and MCUCXR_0001_0_mask.tif fit it")


def test_several_masks_of_a_picture_that_are_not_its_two_lungs_are_refused(tmp_path):
    names = ("copy.png", "form.png", "one.png", "size.png", "right.png", "heart.png", "empty.png")
    for name in names:
        write_picture(tmp_path / "p" / name)
    own = write_sides(tmp_path / "own", *names)
    for path in ("copy/copy.png", "leftMask/form.jpg", "heart/heart.png"):
        (own / path).parent.mkdir(exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT), 255).save(own / path)
    (own / "rightMask" / "one.png").unlink()
    Image.new("L", (WIDTH * 2, HEIGHT * 2)).save(own / "leftMask" / "size.png")
    Image.new("L", (WIDTH, HEIGHT)).save(own / "rightMask" / "empty.png")
    contours = read_contours(own, tmp_path / "p", names)
    why = dict(contours.refused)
    assert contours.regions.keys() == {"right.png"} and why.keys() == set(names) - {"right.png"}
    assert "copy/copy.png and leftMask/copy.png and rightMask/copy.png fit it" in why["copy.png"]
    assert "leftMask/form.jpg and leftMask/form.png" in why["form.png"]
    assert "heart/heart.png" in why["heart.png"]
    assert "beside mask leftMask/one.png there is none of the other lung" in why["one.png"]
    assert "masks leftMask/size.png and rightMask/size.png differ in size" in why["size.png"]
    assert "mask rightMask/empty.png is empty" in why["empty.png"]


def test_two_rows_of_a_picture_count_once_where_they_agree_and_are_refused_where_not(tmp_path):
    upper = {"Left Lung": f"1 {WIDTH * 30}", "Right Lung": "1 1"}
    poor = upper | {"Dice RCA (Mean)": 0.4}
    rows = {"x/a.png": {}, "y/a.png": {}, "x/b.png": {}, "y/b.png": upper, "x/c.png": {}, "y/c.png": poor}
    contours = read_contours(write_table(tmp_path / "t.csv", rows), tmp_path, ["a.png", "b.png", "c.png"])
    assert contours.refused == [("b.png", "2 rows name it, with different contours")]
    for name in ("a.png", "c.png"):
        assert hull_holds_the_lungs(contours.regions[name].draw(HEIGHT, WIDTH))


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
