"""DICOM files: sizes, compressions, what is refused, and pixels beside those of an independent reader."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import (
    CHEST,
    FILM,
    assert_shown,
    linear,
    make_dicom,
    percentiles,
    refusal,
    write_compressed,
    write_dicom,
)
from image_files import jpeg
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import UID, JPEGBaseline8Bit, RLELossless

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.images import read_image


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelSpacing": [0.4, 0.2]},
        {"ImagerPixelSpacing": [0.4, 0.2]},
        {"PixelAspectRatio": [2, 1]},
        {"PixelSpacing": [0, 0], "PixelAspectRatio": [2, 1]},
    ],
)
def test_pixels_that_are_not_square_are_stretched(tmp_path: Path, elements: dict[str, object]) -> None:
    wide = write_dicom(tmp_path / "a.dcm", CHEST[::2], 12, WindowCenter=2000, WindowWidth=3000, **elements)
    image = read_image(wide)
    assert image.shape == (96, 80)
    assert np.abs(image - linear(CHEST, 2000, 3000)).mean() < 3
    high = {name: value[::-1] for name, value in elements.items()}
    path = write_dicom(tmp_path / "b.dcm", CHEST[:, ::2], 12, WindowCenter=2000, WindowWidth=3000, **high)
    assert read_image(path).shape == (96, 80)


def test_spacing_that_cannot_be_right_is_ignored(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", FILM, PixelSpacing=[0.2, 200])
    assert_shown(path, FILM, ("spacing_ignored",))


@pytest.mark.parametrize("spacing", [b"0,20\\0.10", b"0.20\\NaN ", b"0.20     "])
def test_spacing_that_is_no_pair_of_numbers_is_refused(tmp_path: Path, spacing: bytes) -> None:
    path = write_dicom(tmp_path / "a.dcm", FILM, PixelSpacing=["0.20", "0.10"])
    path.write_bytes(path.read_bytes().replace(b"0.20\\0.10", spacing))
    assert refusal(path).startswith("bad_header: PixelSpacing is ")


def test_spacing_of_one_direction_only_is_noted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", FILM, PixelSpacing=[0.2, 0])
    assert_shown(path, FILM, ("spacing_ignored",))


def test_bits_beyond_those_stored_are_noted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", CHEST | np.uint16(0x4000), 12)
    assert_shown(path, percentiles(CHEST), ("bits_dropped",))


@pytest.mark.parametrize("is_signed", [False, True])
def test_values_in_the_high_bits(tmp_path: Path, is_signed: bool) -> None:
    """HighBit 15 with BitsStored 12: the lowest four bits are none of the value."""
    values = CHEST.astype(np.int16) - 2000 if is_signed else CHEST
    path = write_dicom(tmp_path / "a.dcm", values << 4, 12, HighBit=15, WindowCenter=700, WindowWidth=1500)
    assert_shown(path, linear(values, 700, 1500))
    write_dicom(path, values << 4 | 5, 12, HighBit=15, WindowCenter=700, WindowWidth=1500)
    assert_shown(path, linear(values, 700, 1500), ("bits_dropped",))


def test_signed_bits_beyond_those_stored_are_noted(tmp_path: Path) -> None:
    values = CHEST.astype(np.int16) - 2000  # -1062 to 1000
    assert_shown(write_dicom(tmp_path / "a.dcm", values, 12), percentiles(values))
    without_sign = values & 0xFFF  # the bits above are not said to repeat the sign
    assert_shown(write_dicom(tmp_path / "a.dcm", without_sign, 12), percentiles(values))
    path = write_dicom(tmp_path / "a.dcm", values ^ 0x2000, 12)
    assert_shown(path, percentiles(values), ("bits_dropped",))


@pytest.mark.parametrize("high", [3, 20])
def test_a_high_bit_that_cannot_be_is_refused(tmp_path: Path, high: int) -> None:
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, HighBit=high)
    assert refusal(path).startswith(f"bad_header: HighBit is {high}, BitsStored 12, BitsAllocated 16")


def test_a_data_set_without_preamble(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", CHEST, 12)
    content = (tmp_path / "a.dcm").read_bytes()
    start = content.index(b"\x08\x00\x16\x00UI")  # SOPClassUID, the first element of the data set
    (tmp_path / "1.2.840.1").write_bytes(content[start:])
    assert_shown(tmp_path / "1.2.840.1", percentiles(CHEST))


# --- what is refused


def test_frames_without_their_number(tmp_path: Path) -> None:
    dataset = make_dicom(FILM)
    dataset.PixelData = FILM.tobytes() * 3
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "several_frames" in refusal(tmp_path / "a.dcm")


def test_compressed_frames_without_their_number(tmp_path: Path) -> None:
    path = write_compressed(tmp_path / "a.dcm", FILM, JPEGBaseline8Bit, [jpeg(FILM)] * 2)
    assert "several_frames: 2 compressed frames" in refusal(path)


@pytest.mark.parametrize("shape", [(48, 80), (192, 80), (96, 160)])
def test_a_compressed_picture_of_another_size_than_the_header_says(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    path = write_compressed(tmp_path / "a.dcm", np.zeros(shape, np.uint8), JPEGBaseline8Bit, [jpeg(FILM)])
    assert "wrong_size: the compressed picture is 80x96" in refusal(path)


def test_more_rows_in_the_header_than_in_the_file(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", FILM, Rows=120)
    assert "undecodable" in refusal(path)


def test_a_compression_that_no_package_reads_names_a_way_out(tmp_path: Path) -> None:
    syntax = UID("1.2.840.10008.1.2.4.100")
    message = refusal(write_compressed(tmp_path / "a.dcm", FILM, syntax, [bytes(60)]))
    assert message.startswith(f"unsupported_compression: {syntax.name}")
    assert "save the file uncompressed" in message


def test_rle_is_read(tmp_path: Path) -> None:
    dataset = make_dicom(CHEST, 12)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert_shown(tmp_path / "a.dcm", percentiles(CHEST))


# --- an independent reader


GRAY_FILES = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
    "MR_small_padded.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "693_J2KI.dcm",
    "examples_overlay.dcm", "image_dfl.dcm", "JPEG2000.dcm", "J2K_pixelrep_mismatch.dcm",
]  # fmt: skip


def independent(path: Path) -> np.ndarray:
    """The picture by SimpleITK's decoder, its modality transform and its window filter, 0…255."""
    import SimpleITK
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True)
    image = SimpleITK.ReadImage(str(path))
    is_inverted = header.PhotometricInterpretation == "MONOCHROME1"
    if is_inverted:  # it has exchanged black and white itself, before any window
        image = 2**header.BitsStored - 1 - SimpleITK.Cast(image, SimpleITK.sitkFloat64)
    values = SimpleITK.GetArrayFromImage(image).squeeze().astype(float)
    window = [header.get(name) for name in ("WindowCenter", "WindowWidth")]
    if window[0] is None:
        shown = values if header.BitsStored <= 8 else percentiles(values)
    else:
        center, width = (float(np.atleast_1d(value)[0]) for value in window)
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
        real = SimpleITK.Cast(image, SimpleITK.sitkFloat64)
        windowed = SimpleITK.IntensityWindowing(real, low, high, 0.0, 255.0)
        shown = SimpleITK.GetArrayFromImage(windowed).squeeze()
    return 255 - shown if is_inverted else shown


@pytest.mark.parametrize("name", GRAY_FILES)
def test_pixels_are_those_of_an_independent_reader(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    assert_shown(path, independent(path))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("RG1_J2KI.dcm", ()),
        ("RG3_JLSL.dcm", ()),
        ("RG3_JPLL.dcm", ()),
        ("Fake_MONOHR1.dcm", ("polarity_unclear",)),
        ("1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm", ()),
    ],
)
def test_real_radiographs_are_those_of_an_independent_reader(
    real_dicom: Path, name: str, notes: tuple[str, ...]
) -> None:
    assert_shown(real_dicom / name, independent(real_dicom / name), notes)


@pytest.mark.realdata
def test_a_real_modality_table_and_a_compression_that_no_package_here_reads(real_dicom: Path) -> None:
    from pydicom import dcmread

    header = dcmread(real_dicom / "mlut_18.dcm")
    table = np.asarray(header.ModalityLUTSequence[0].LUTData)
    values = table[header.pixel_array.astype(int) + 2048]
    assert_shown(real_dicom / "mlut_18.dcm", percentiles(values))
    assert "python-gdcm" in refusal(real_dicom / "RG3_JPLY.dcm")


@pytest.fixture
def deep() -> np.ndarray:
    return np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))


def test_dicom_color_becomes_luminance(tmp_path: Path) -> None:
    color = np.stack([FILM] * 3, -1)
    assert_shown(write_dicom(tmp_path / "a.dcm", color, PhotometricInterpretation="RGB"), FILM)
    deep = np.stack([CHEST] * 3, -1)
    path = write_dicom(tmp_path / "b.dcm", deep, PhotometricInterpretation="RGB")
    assert_shown(path, percentiles(CHEST))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_that_is_not_gray_is_noted(tmp_path: Path, dtype: type) -> None:
    color = np.stack([FILM, FILM, 255 - FILM], -1)
    path = write_dicom(tmp_path / "a.dcm", color.astype(dtype), PhotometricInterpretation="RGB")
    luminance = np.asarray(Image.fromarray(color).convert("L"))
    assert_shown(path, luminance if dtype == np.uint8 else percentiles(luminance), ("color",))
    tinted = np.stack([FILM, FILM, FILM - FILM // 30], -1)
    path = write_dicom(tmp_path / "b.dcm", tinted, PhotometricInterpretation="RGB")
    assert_shown(path, np.asarray(Image.fromarray(tinted).convert("L")))


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("several_frames", {"NumberOfFrames": 3}),
        ("several_frames", {"BitsAllocated": 8}),
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
