"""Pixels as they should be seen: modes, 16 bits, DICOM, MRI slices."""

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from raw_folders import write_volume

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.grayscale import encode_png, resize_shorter_side, window_to_8bit
from dataset_scripts.reading.images import read_image
from dataset_scripts.reading.nifti import axial_slices, read_volume

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_every_mode_of_a_gray_picture_reads_the_same(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RAMP).convert(mode).save(path)
    assert np.abs(read_image(path).astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_windowed_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.linspace(1000, 5000, 64 * 48).reshape(48, 64).astype(np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(deep).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert len(np.unique(image)) == 256
    expected = (deep - 1000.0) / 4000 * 255
    assert np.abs(image - expected).max() < 2


def test_one_hot_pixel_does_not_darken_the_picture() -> None:
    values = np.random.default_rng(0).normal(500, 50, (100, 100))
    values[3, 3] = 60_000
    assert np.median(window_to_8bit(values)) > 100


def test_values_that_do_not_vary() -> None:
    assert not window_to_8bit(np.full((20, 20), 7.0)).any()
    sparse = np.zeros((200, 200))
    sparse[0, 0] = 9
    assert window_to_8bit(sparse)[0, 0] == 255


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(RAMP).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    assert read_image(tmp_path / "phone.jpg").shape == (64, 48)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path: Path) -> None:
    big = np.asarray(Image.fromarray(RAMP).resize((1600, 1200), Image.Resampling.BICUBIC))
    Image.fromarray(big).save(tmp_path / "big.jpg", quality=95)
    quick = resize_shorter_side(read_image(tmp_path / "big.jpg", 100), 100)
    whole = resize_shorter_side(read_image(tmp_path / "big.jpg"), 100)
    assert read_image(tmp_path / "big.jpg", 100).shape < (1200, 1600)
    assert quick.shape == whole.shape == (100, 133)
    assert np.abs(quick.astype(int) - whole).max() <= 3


def test_resizing_never_enlarges_and_never_undershoots() -> None:
    assert resize_shorter_side(RAMP, 100) is RAMP
    assert resize_shorter_side(RAMP, 0) is RAMP
    assert resize_shorter_side(np.zeros((300, 1000), np.uint8), 256).shape == (256, 853)


@pytest.mark.parametrize("compression", ["fast", "none"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 40), (300, 257)])
def test_png_bytes_carry_pixels_and_nothing_else(compression: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels, compression))) as image:
        assert (image.mode, image.info) == ("L", {})
        assert np.array_equal(np.asarray(image), pixels)


def test_fast_compression_pays_on_smooth_pictures() -> None:
    smooth = np.asarray(Image.fromarray(RAMP).resize((256, 256), Image.Resampling.BICUBIC))
    assert len(encode_png(smooth, "fast")) < smooth.size / 2
    assert smooth.size < len(encode_png(smooth, "none")) < smooth.size * 1.02


def write_dicom(path: Path, pixels: np.ndarray, **elements: object) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def deep() -> np.ndarray:
    return np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))


def test_dicom_window_and_rescale(tmp_path: Path, deep: np.ndarray) -> None:
    path = tmp_path / "a.dcm"
    write_dicom(
        path, deep, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[3000, 1], WindowWidth=[2001, 2]
    )
    expected = np.clip((2.0 * deep - 1000 - 2999.5) / 2000 + 0.5, 0, 1) * 255
    assert np.abs(read_image(path) - expected).max() <= 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [("LINEAR_EXACT", lambda share: share + 0.5), ("SIGMOID", lambda share: 1 / (1 + np.exp(-4 * share)))],
)
def test_dicom_window_functions(tmp_path: Path, deep: np.ndarray, function: str, expected: object) -> None:
    path = tmp_path / "a.dcm"
    write_dicom(path, deep, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    share = (deep.astype(float) - 2000) / 1000
    assert np.abs(read_image(path) - np.clip(expected(share), 0, 1) * 255).max() <= 1


def test_dicom_monochrome1_is_inverted(tmp_path: Path, deep: np.ndarray) -> None:
    for name in ("MONOCHROME1", "MONOCHROME2"):
        write_dicom(tmp_path / f"{name}.dcm", deep, PhotometricInterpretation=name)
    inverted, plain = read_image(tmp_path / "MONOCHROME1.dcm"), read_image(tmp_path / "MONOCHROME2.dcm")
    assert plain[0, 0] < 5 < 250 < plain[0, -1]
    assert np.array_equal(255 - plain, inverted)


def test_dicom_padding_does_not_count_for_the_window(tmp_path: Path, deep: np.ndarray) -> None:
    signed = deep.astype(np.int16)
    signed[:20] = -32_000
    write_dicom(tmp_path / "a.dcm", signed, PixelPaddingValue=-32_000)
    image = read_image(tmp_path / "a.dcm")
    assert not image[:20].any()
    assert len(np.unique(image[20:])) > 50


def test_dicom_lookup_table(tmp_path: Path, deep: np.ndarray) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65535 - np.arange(4096) * 16).astype(np.uint16).tobytes()
    write_dicom(tmp_path / "a.dcm", deep, VOILUTSequence=[table])
    expected = (65535 - deep * 16.0) / 65535 * 255
    assert np.abs(read_image(tmp_path / "a.dcm") - expected).max() <= 1


def test_dicom_colour_becomes_luminance(tmp_path: Path) -> None:
    color = np.stack([RAMP] * 3, -1)
    write_dicom(tmp_path / "a.dcm", color, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert np.abs(read_image(tmp_path / "a.dcm").astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("several_frames", {"NumberOfFrames": 3}),
        ("undecodable", {"BitsAllocated": 8}),
        ("too_small", {"Rows": 2}),
    ],
)
def test_dicom_that_is_no_picture(
    tmp_path: Path, deep: np.ndarray, kind: str, elements: dict[str, int]
) -> None:
    write_dicom(tmp_path / "a.dcm", deep, **elements)
    with pytest.raises(BadImageError, match=kind):
        read_image(tmp_path / "a.dcm")


def test_dicom_without_pixels_or_header(tmp_path: Path, deep: np.ndarray) -> None:
    write_dicom(tmp_path / "a.dcm", deep)
    (tmp_path / "b.dcm").write_bytes(b"no dicom at all" * 30)
    with pytest.raises(BadImageError, match="not_an_image"):
        read_image(tmp_path / "b.dcm")
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:600])
    with pytest.raises(BadImageError):
        read_image(tmp_path / "a.dcm")


def marked_head() -> np.ndarray:
    """A head (right, anterior, superior) with a bright block anterior on the patient's right."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in (40, 36, 30)), indexing="ij"))
    right, anterior, _ = grid
    head = np.where((grid**2).sum(axis=0) < 0.9, 300, 0).astype(np.int16)
    head[(right > 0.2) & (right < 0.5) & (anterior > 0.3) & (anterior < 0.6) & (head > 0)] = 900
    return head


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_slices_show_anterior_up_and_the_right_side_on_the_left(tmp_path: Path, axes: str) -> None:
    canonical = nibabel.Nifti1Image(marked_head(), np.eye(4))
    wanted = nibabel.orientations.axcodes2ornt(axes)
    turned = canonical.as_reoriented(wanted_from_canonical(wanted))
    assert "".join(nibabel.aff2axcodes(turned.affine)) == axes
    nibabel.save(turned, tmp_path / "head.nii.gz")
    slices = dict(axial_slices(read_volume(tmp_path / "head.nii.gz"), 5))
    assert len(slices) == 5
    middle = slices[sorted(slices)[2]]
    assert middle.shape == (36, 40)
    rows, columns = np.nonzero(middle == 255)
    assert rows.mean() < 18
    assert columns.mean() < 20


def wanted_from_canonical(wanted: np.ndarray) -> np.ndarray:
    return nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), wanted)


def test_slices_run_evenly_through_the_brain_and_miss_the_air(tmp_path: Path) -> None:
    voxels = np.zeros((30, 30, 100), np.int16)
    voxels[5:25, 5:25, 20:81] = np.random.default_rng(0).integers(100, 900, (20, 20, 61))
    write_volume(tmp_path / "a.nii.gz", voxels=voxels)
    slices = list(axial_slices(read_volume(tmp_path / "a.nii.gz"), 4))
    assert [index for index, _ in slices] == [20, 40, 60, 80]
    assert all(not image[:4].any() and image[10:20, 10:20].any() for _, image in slices)


def test_fewer_slices_than_asked_for_are_not_repeated(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz")
    indices = [index for index, _ in axial_slices(read_volume(tmp_path / "a.nii.gz"), 500)]
    assert len(indices) == len(set(indices)) <= 18
