"""One damaged thing each: counted, named, and the rest is built; or stopped at once with advice."""

import errno
import gzip
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import datasets
import nibabel
import numpy as np
import pandas
import pytest
from dicom_files import write_dicom
from PIL import Image
from raw_folders import ChestFolder, gray, write_volume

from dataset_scripts import Brats2020, ChestXray14, CovidRadiography, CovidxCxr
from dataset_scripts.build.build_log import note_lines, read_report
from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.errors import BadImageError, DataLayoutError, LabelFileError, TooManyBadFilesError
from dataset_scripts.reading.images import read_image

NAME = "00000001_000.png"


def build(root: Path, builder_class: type[SourceBuilder] = ChestXray14, **options: object) -> SourceBuilder:
    builder = builder_class(data_dir=root, build_dir=root.parent.parent / "cache", **options)
    builder.download_and_prepare(num_proc=options.pop("num_proc", 1))
    return builder


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds one row of nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def whole_png(tmp_path: Path) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(
        tmp_path / "whole.png"
    )
    return (tmp_path / "whole.png").read_bytes()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("empty_file", b""),
        ("not_an_image", b"<!DOCTYPE html><html><body>404</body></html>"),
        ("too_many_pixels", png_header(40_000, 40_000)),
        ("too_many_pixels", png_header(10_001, 10_000)),
        ("too_small", png_header(1, 1)),
        ("truncated", None),
    ],
)
def test_an_unreadable_file_is_named_and_the_rest_is_built(
    chest: ChestFolder, tmp_path: Path, kind: str, content: bytes | None
) -> None:
    root = chest.finish()
    damaged = whole_png(tmp_path)[:2000] if content is None else content
    (root / "images" / NAME).write_bytes(damaged)
    builder = build(root)
    (problem,) = read_report(builder.cache_dir)["problems"]
    assert (problem["kind"], problem["name"], problem["is_bad"]) == (kind, f"images/{NAME}", True)
    assert sum(len(rows) for rows in builder.as_dataset().values()) == 39


def test_a_remark_about_a_picture_stands_in_the_report(chest: ChestFolder) -> None:
    root = chest.finish()
    film = np.random.default_rng(0).normal(2000, 400, (64, 64)).clip(0, 4095).astype(np.uint16)
    write_dicom(root / "images" / NAME, film, 12, WindowCenter=2000, WindowWidth=0)
    builder = build(root)
    (problem,) = read_report(builder.cache_dir)["problems"]
    assert (problem["kind"], problem["name"], problem["is_bad"]) == (
        "window_ignored",
        f"images/{NAME}",
        False,
    )
    assert problem["detail"] == "a window 0 wide; wanted more than 0"
    assert f"ChestX-ray14/{NAME}" in builder.as_dataset()["train"]["image_id"]


def test_a_link_out_of_the_folder_is_not_followed(chest: ChestFolder, tmp_path: Path) -> None:
    root = chest.finish()
    gray(5).save(tmp_path / "private.png")
    (root / "images" / NAME).unlink()
    (root / "images" / NAME).symlink_to(tmp_path / "private.png")
    (root / "images" / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    (root / "images" / "loop").symlink_to(root, target_is_directory=True)
    (root / "images" / "dangling.png").symlink_to(root / "nothing.png")
    built = Path(build(root).cache_dir)
    report = read_report(built)
    named = {(problem["kind"], problem["name"]) for problem in report["problems"]}
    assert named == {
        ("link_out_of_folder", f"images/{NAME}"),
        ("link_out_of_folder", "images/elsewhere"),
    }
    assert report["problem_counts"] == {"ChestX-ray14": {"link_out_of_folder": 2}}
    assert "links that leave their folder are not followed" in "; ".join(note_lines(built))


def test_the_source_folder_itself_may_be_a_link(chest: ChestFolder, tmp_path: Path) -> None:
    root = chest.finish()
    (tmp_path / "shortcut").symlink_to(root, target_is_directory=True)
    assert sum(len(rows) for rows in build(tmp_path / "shortcut").as_dataset().values()) == 40


@pytest.mark.parametrize("num_proc", [1, 2])
def test_too_many_unreadable_files_stop_the_build(chest: ChestFolder, num_proc: int) -> None:
    root = chest.finish()
    for path in sorted((root / "images").iterdir())[:11]:
        path.write_bytes(b"")
    builder = ChestXray14(data_dir=root, build_dir=root.parent.parent / "cache")
    with pytest.raises(
        TooManyBadFilesError, match=r"(?s)11 files are unreadable.*at most 10.*00000001_000\.png"
    ) as caught:
        builder.download_and_prepare(num_proc=num_proc)
    assert str(root) not in str(caught.value)
    assert not Path(builder.cache_dir).exists()
    allowed = build(root, max_bad_fraction=0.5)
    assert read_report(allowed.cache_dir)["problem_counts"] == {"ChestX-ray14": {"empty_file": 11}}


def test_ten_unreadable_files_are_always_allowed(chest: ChestFolder) -> None:
    root = chest.finish()
    for path in sorted((root / "images").iterdir())[:10]:
        path.write_bytes(b"")
    assert len(read_report(build(root).cache_dir)["problems"]) == 10


def test_absent_files_never_stop_the_build(chest: ChestFolder) -> None:
    root = chest.finish()
    for path in sorted((root / "images").iterdir())[:30]:
        path.unlink()
    assert read_report(build(root).cache_dir)["problem_counts"] == {"ChestX-ray14": {"absent": 30}}


def test_a_split_without_one_readable_image_is_left_out(chest: ChestFolder) -> None:
    root = chest.finish()
    for path in sorted((root / "images").iterdir())[-2:]:
        path.write_bytes(b"")
    assert set(build(root).as_dataset()) == {"train", "validation"}


def test_not_one_readable_image(chest: ChestFolder) -> None:
    root = chest.finish()
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(TooManyBadFilesError, match="Not one image could be read"):
        build(root, max_bad_fraction=1.0)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_full_disk_says_what_to_do(
    chest: ChestFolder, monkeypatch: pytest.MonkeyPatch, num_proc: int
) -> None:
    root = chest.finish()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(datasets.arrow_writer.ArrowWriter, "write", fail)
    builder = ChestXray14(data_dir=root, build_dir=root.parent.parent / "cache")
    with pytest.raises(OSError, match="disk is full.*build_dir") as caught:
        builder.download_and_prepare(num_proc=num_proc)
    assert caught.value.errno == errno.ENOSPC
    assert not Path(builder.cache_dir).exists()


def test_covidx_lines_that_cannot_be_read(tmp_path: Path) -> None:
    root = tmp_path / "raw" / "COVIDx_CXR"
    (root / "train").mkdir(parents=True)
    gray(1).save(root / "train" / "a b.png")
    (root / "train.txt").write_bytes(
        b"\xef\xbb\xbf1 a b.png positive cohen\r\n2 lonely\r\n1 a b.png positive cohen\r\n"
    )
    builder = build(root, CovidxCxr)
    assert builder.as_dataset()["train"]["patient_id"][:] == ["COVIDx CXR-3/cohen/1"]
    counts = read_report(builder.cache_dir)["problem_counts"]
    assert counts == {"COVIDx CXR-3": {"bad_line": 1, "duplicate_row": 1}}
    (root / "train.txt").write_text("image,label\n")
    with pytest.raises(LabelFileError, match="patient file class source"):
        build(root, CovidxCxr)


def test_covidx_keeps_a_test_patient_out_of_training(tmp_path: Path) -> None:
    root = tmp_path / "raw" / "COVIDx_CXR"
    for split, name in [("train", "a.png"), ("train", "b.png"), ("test", "c.png")]:
        (root / split).mkdir(parents=True, exist_ok=True)
        gray(ord(name[0])).save(root / split / name)
    (root / "train.txt").write_text("1 a.png positive cohen\n2 b.png positive cohen\n")
    (root / "test.txt").write_text("1 c.png positive cohen\n")
    builder = build(root, CovidxCxr)
    assert {split: rows["image_id"][:] for split, rows in builder.as_dataset().items()} == {
        "train": ["COVIDx CXR-3/train/b.png"],
        "test": ["COVIDx CXR-3/test/c.png"],
    }


def test_a_text_file_in_another_encoding(tmp_path: Path) -> None:
    root = tmp_path / "raw" / "COVIDx_CXR"
    (root / "train").mkdir(parents=True)
    gray(1).save(root / "train" / "a.png")
    (root / "train.txt").write_bytes("1 a.png positive Müller".encode("utf-16"))  # says so by its first bytes
    assert build(root, CovidxCxr).as_dataset()["train"]["patient_id"][:] == ["COVIDx CXR-3/Müller/1"]
    (root / "train.txt").write_bytes("1 a.png positive Müller".encode("latin-1"))
    with pytest.raises(LabelFileError, match=r"train\.txt, line 1 .*not UTF-8.*Download the list again"):
        build(root, CovidxCxr)


def test_covidx_rows_that_are_equal_or_name_two_patients(tmp_path: Path) -> None:
    root = tmp_path / "raw" / "COVIDx_CXR"
    (root / "train").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.PNG"):
        gray(ord(name[0])).save(root / "train" / name)
    lines = [
        "1 a.png positive x",
        "1 a.png positive x",
        "2 b.png positive x",
        "3 b.png positive x",
        "4 c.png negative x",
    ]
    (root / "train.txt").write_text("\n".join(lines))
    builder = build(root, CovidxCxr)
    assert builder.as_dataset()["train"]["image_id"][:] == [
        f"COVIDx CXR-3/train/{n}" for n in ("a.png", "c.PNG")
    ]
    counts = read_report(builder.cache_dir)["problem_counts"]
    assert counts == {"COVIDx CXR-3": {"duplicate_row": 1, "conflicting_row": 2}}


@pytest.mark.parametrize("content", ["cut", "one_sheet_of_noise", "empty", "header", "disagreeing"])
def test_radiography_sheets_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    root = tmp_path / "raw" / "COVID-19_Radiography_Dataset"
    (root / "Normal" / "images").mkdir(parents=True)
    for name in ("Normal-1.png", "Normal-2.PNG"):
        gray(1).save(root / "Normal" / "images" / name)
    sheet = root / "Normal.metadata.xlsx"
    shown = ["u/00000001_000.png", "u/00000002_000.png", "u/00000003_000.png"]
    rows = {"FILE NAME": ["NORMAL-1", "Normal-2", "Normal-2"], " url": shown}
    frame = {"empty": pandas.DataFrame(), "header": pandas.DataFrame(columns=list(rows))}.get(
        content, pandas.DataFrame(rows)
    )
    frame.to_excel(sheet, index=False)
    if content == "cut":
        sheet.write_bytes(sheet.read_bytes()[:-200])
    elif content == "one_sheet_of_noise":
        with zipfile.ZipFile(sheet, "w") as archive:
            archive.writestr("[Content_Types].xml", "<no xml")
    (listing,) = CovidRadiography(data_dir=root, build_dir=tmp_path / "cache").list_records(None)
    kinds = {"disagreeing": ["duplicate_row"], "header": []}.get(content, ["bad_metadata"])
    assert [problem.kind for problem in listing.problems] == kinds
    shown = {record.path[-12:]: record.nih_image for record in listing.splits["train"]}
    first = "00000001_000.png" if content == "disagreeing" else ""
    assert shown == {"Normal-1.png": first, "Normal-2.PNG": ""}


def test_a_folder_of_links_says_that_they_are_not_followed(chest: ChestFolder, tmp_path: Path) -> None:
    root = chest.finish()
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "images").mkdir()
    for path in (tmp_path / "elsewhere").iterdir():
        (root / "images" / path.name).symlink_to(path)
    with pytest.raises(DataLayoutError, match=r"40 links leave the folder and are not followed.*cp -rL"):
        build(root)
    (root / "images" / "one.png").write_bytes((tmp_path / "elsewhere" / NAME).read_bytes())
    with pytest.raises(DataLayoutError, match="link that leaves its folder is not followed"):
        build(root)


def test_radiography_takes_no_mask_for_an_image(tmp_path: Path) -> None:
    root = tmp_path / "raw" / "COVID-19_Radiography_Dataset"
    for path in ["COVID/images/COVID-1.png", "COVID/masks/COVID-1.png", "Normal/Normal-1.png"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        gray(1).save(root / path)
    (root / "COVID.metadata.xlsx").write_bytes(b"no sheet")
    builder = build(root, CovidRadiography)
    ids = builder.as_dataset()["train"]["image_id"][:]
    assert ids == [
        "COVID-19 Radiography/COVID/images/COVID-1.png",
        "COVID-19 Radiography/Normal/Normal-1.png",
    ]
    assert read_report(builder.cache_dir)["problem_counts"] == {"COVID-19 Radiography": {"bad_metadata": 1}}


@pytest.mark.parametrize("builder_class", [ChestXray14, CovidRadiography, CovidxCxr, Brats2020])
def test_an_empty_folder_is_refused(tmp_path: Path, builder_class: type[SourceBuilder]) -> None:
    root = tmp_path / "raw" / "empty"
    root.mkdir(parents=True)
    with pytest.raises(DataLayoutError, match="Point data_dir|point data_dir"):
        build(root, builder_class)
    with pytest.raises(DataLayoutError, match="not a folder"):
        builder_class(data_dir=tmp_path / "nowhere", build_dir=tmp_path / "cache")


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    root = tmp_path / "raw" / "MICCAI_BraTS2020_TrainingData"
    for modality in ("flair", "t1", "t1ce", "t2", "seg"):
        write_volume(root / "BraTS20_Training_001" / f"BraTS20_Training_001_{modality}.nii.gz")
    return root


def damage_volume(path: Path, damage: str) -> None:
    voxels = np.random.default_rng(0).integers(1, 900, (24, 20, 18)).astype(np.float32)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-400])
    elif damage == "not_gzip":
        path.write_bytes(b"<html>")
    elif damage == "not_nifti":
        path.write_bytes(gzip.compress(bytes(5000)))
    elif damage == "4-D":
        nibabel.save(nibabel.Nifti1Image(np.stack([voxels] * 3, -1), np.eye(4)), path)
    elif damage == "2-D":
        nibabel.save(nibabel.Nifti1Image(voxels[..., 0], np.eye(4)), path)
    elif damage == "blank":
        nibabel.save(nibabel.Nifti1Image(np.zeros_like(voxels), np.eye(4)), path)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        ("truncated", {"truncated"}),
        ("not_gzip", {"truncated", "undecodable"}),
        ("not_nifti", {"undecodable"}),
        ("4-D", {"wrong_shape"}),
        ("2-D", {"wrong_shape"}),
        ("blank", {"empty_volume"}),
        ("empty", {"empty_file"}),
        ("missing", {"absent"}),
    ],
)
def test_a_damaged_volume_is_named_and_the_rest_is_built(brats: Path, damage: str, kinds: set[str]) -> None:
    path = brats / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz"
    damage_volume(path, damage)
    builder = build(brats, Brats2020, slices_per_volume=4)
    (problem,) = read_report(builder.cache_dir)["problems"]
    assert problem["kind"] in kinds
    assert problem["name"] == "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz"
    ids = builder.as_dataset()["train"]["image_id"]
    assert len(ids) == 12
    assert not any("/t1/" in image_id or "seg" in image_id for image_id in ids)


def test_voxels_that_are_no_number_count_as_background(brats: Path) -> None:
    path = brats / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz"
    voxels = np.random.default_rng(0).integers(1, 900, (24, 20, 18)).astype(np.float32)
    voxels[3:6, 4, 9] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    builder = build(brats, Brats2020)
    (problem,) = read_report(builder.cache_dir)["problems"]
    assert (problem["kind"], problem["is_bad"]) == ("bad_voxels", False)
    assert problem["detail"].startswith("3 NaN or infinite voxels")


def test_one_volume_in_two_formats_is_taken_once(brats: Path) -> None:
    path = brats / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    builder = build(brats, Brats2020, slices_per_volume=4)
    assert read_report(builder.cache_dir)["problem_counts"] == {"BraTS 2020": {"same_name": 1}}
    assert len(builder.as_dataset()["train"]) == 16


def test_a_folder_that_cannot_be_listed(chest: ChestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = chest.finish()
    monkeypatch.setattr(
        "os.scandir", lambda path: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no", path))
    )
    with pytest.raises(DataLayoutError, match="may not be listed"):
        ChestXray14(data_dir=root, build_dir=root.parent.parent / "cache")


def test_an_absent_image_has_its_own_kind(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="absent"):
        read_image(tmp_path / "nothing.png")


def test_a_source_file_that_vanishes_during_the_build(chest: ChestFolder) -> None:
    root = chest.finish()
    rows = ChestXray14(data_dir=root, build_dir=root.parent.parent / "cache").as_streaming_dataset("train")
    shutil.rmtree(root / "images")
    assert list(rows) == []
