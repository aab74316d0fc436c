"""Which files are pictures: by their first bytes where the suffix says nothing, by no guess where it does."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.image_files import (
    IMAGE_FORMATS,
    is_dicom,
    is_picture,
    picture_format,
    read_head,
    walk_folder,
)
from dataset_scripts.reading.images import read_image

GRAY = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)


def radiograph(syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = "1.2.3.4", syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = (
        meta.MediaStorageSOPClassUID,
        "1.2.3.4",
        "DX",
    )
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *GRAY.shape, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = GRAY.tobytes()
    return dataset


def write_bare(path: Path, syntax: str, with_meta: bool) -> Path:
    """The dataset as old archives keep it: without preamble, perhaps without file meta group."""
    whole = path.with_name("whole")
    radiograph(syntax).save_as(whole, enforce_file_format=True)
    content = whole.read_bytes()
    start = 132
    if not with_meta:  # group 2 ends after its length element (12 bytes) and as many bytes as that says
        start += 12 + pydicom.dcmread(whole).file_meta.FileMetaInformationGroupLength
    path.write_bytes(content[start:])
    whole.unlink()
    return path


@pytest.mark.parametrize(
    "kind",
    [*(name for name in IMAGE_FORMATS if name != "PPM"), "PPM", "PGM", "BIG_TIFF", "RGB_BMP", "JP2_STREAM"],
)
def test_a_picture_without_a_suffix_is_known_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "1.2.840.113619.2.5"
    mode, name, more = {
        "PGM": ("L", "PPM", {}),
        "PPM": ("RGB", "PPM", {}),
        "BIG_TIFF": ("L", "TIFF", {"big_tiff": True}),
        "RGB_BMP": ("RGB", "BMP", {}),
        "JP2_STREAM": ("L", "JPEG2000", {"no_jp2": True}),
    }.get(kind, ("L", kind, {}))
    Image.fromarray(GRAY).convert(mode).save(path, name, **more)
    assert picture_format(read_head(path)) == name
    assert is_picture(path) and not is_dicom(path)
    assert read_image(path).shape == GRAY.shape


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BM is how many a text begins, longer than the two headers of a bitmap are",
        b"P1 lungs clear\nP2 effusion\n",
        b"image,Mass\na.png,1\n",
        b"%PDF-1.7\n",
        b"PK\x03\x04" + bytes(200),
        b"\x08\0is no DICOM",
        bytes(400),
    ],
)
def test_other_files_are_no_pictures_unless_their_suffix_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes").write_bytes(content)
    assert not is_picture(tmp_path / "notes")
    (tmp_path / "notes.PNG").write_bytes(content)
    assert is_picture(tmp_path / "notes.PNG")
    with pytest.raises(BadImageError, match="empty_file|not_an_image|undecodable|truncated"):
        read_image(tmp_path / "notes.PNG")


@pytest.mark.parametrize("name", ["x.heic", "x.svg", "x.AVIF", "x.nii.gz", "x.psd"])
def test_pictures_that_cannot_be_read_are_pictures_and_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whatever such a file holds")
    assert is_picture(tmp_path / name)
    with pytest.raises(BadImageError, match="not_an_image"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["1.2.840.113619.2.5.1762583153.215519.78", "a.dicom", "a.IMA", "IM0001", "a.DCM", "a.png"]
)
def test_dicom_is_read_under_any_name(tmp_path: Path, name: str) -> None:
    radiograph().save_as(tmp_path / name, enforce_file_format=True)
    assert is_picture(tmp_path / name) and is_dicom(tmp_path / name)
    assert np.abs(read_image(tmp_path / name).astype(int) - GRAY).max() <= 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("with_meta", [True, False])
@pytest.mark.parametrize("name", ["IM0001", "a.dcm"])
def test_dicom_without_its_preamble_is_read(tmp_path: Path, syntax: str, with_meta: bool, name: str) -> None:
    path = write_bare(tmp_path / name, syntax, with_meta)
    assert is_picture(path) and is_dicom(path)
    assert np.abs(read_image(path).astype(int) - GRAY).max() <= 1


def test_a_jpeg_named_dcm_is_read_and_a_text_named_dcm_is_no_image(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.dcm", "PNG")
    assert np.array_equal(read_image(tmp_path / "a.dcm"), GRAY)
    (tmp_path / "b.dcm").write_bytes(b"<html>not found</html>" * 20)
    with pytest.raises(BadImageError, match="not_an_image: no DICOM header"):
        read_image(tmp_path / "b.dcm")


def test_hidden_and_system_files_are_counted_and_not_looked_into(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b", "._a.png", ".DS_Store", "Thumbs.db", "sub/desktop.ini", "DICOMDIR"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX", "sub/@eaDir"):
        (tmp_path / name).mkdir()
        Image.fromarray(GRAY).save(tmp_path / name / "copy.png")
    walk = walk_folder(tmp_path)
    assert list(walk.files) == ["a.png", "sub/b"]
    assert walk.hidden == (
        *(".DS_Store", "._a.png", ".ipynb_checkpoints", "DICOMDIR", "Thumbs.db", "__MACOSX"),
        *("sub/@eaDir", "sub/desktop.ini"),
    )


def test_links_are_followed_where_asked_and_never_in_circles(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / f"{folder.name}.png").write_bytes(b"x")
    (inside / "link.png").symlink_to(outside / "out.png")
    (inside / "folder").symlink_to(outside, target_is_directory=True)
    (outside / "back").symlink_to(inside, target_is_directory=True)
    (inside / "up").symlink_to(tmp_path, target_is_directory=True)
    (inside / "broken.png").symlink_to(inside / "nothing.png")
    walk = walk_folder(inside)
    assert (list(walk.files), walk.links_out) == (["in.png"], ("folder", "link.png", "up"))
    assert list(walk_folder(inside, follow_links_out=True).files) == ["folder/out.png", "in.png", "link.png"]


def test_a_structured_report_is_dicom_and_says_that_it_has_no_pixels(tmp_path: Path) -> None:
    report = radiograph()
    del report.PixelData
    report.ContentSequence = [Dataset()]
    report.save_as(tmp_path / "SR0001", enforce_file_format=True)
    assert is_picture(tmp_path / "SR0001")
    with pytest.raises(BadImageError, match="no_pixels"):
        read_image(tmp_path / "SR0001")
