"""DICOM as a viewer shows it: the display chain, sizes, compressions."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_files import lookup_table, make_dicom, write_compressed, write_dicom
from image_files import jpeg
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.images import read_image

ROWS, COLUMNS = np.mgrid[0:96, 0:80]
IS_LUNG = sum(((COLUMNS - x) / 12) ** 2 + ((ROWS - 46) / 28) ** 2 < 1 for x in (24, 56)) > 0
CHEST = np.where(IS_LUNG, 900 + 3 * ROWS, 2600 + 400 * np.cos((COLUMNS - 40) / 27)).astype(np.uint16)
"""A schematic chest of 12 bits, 938 to 3000."""

FILM = np.rint(CHEST / 4095 * 255).astype(np.uint8)


def linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """PS3.3, C.11.2.1.2.1, to 0…255."""
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255


def percentiles(values: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """What docs/data.md says of pictures without a window, to 0…255."""
    low, high = np.percentile(values if inside is None else values[inside], (0.1, 99.9))
    return np.clip((values - low) / (high - low), 0, 1) * 255


def assert_shown(path: Path, wanted: np.ndarray, notes: tuple[str, ...] = ()) -> None:
    """The file is read as `wanted` to one gray level, with notes of these kinds."""
    got: list[str] = []
    image = read_image(path, note=lambda kind, detail: got.append(kind))
    assert np.abs(image - wanted).max() <= 1
    assert tuple(got) == notes


def refusal(path: Path) -> str:
    """What is said of a file that is refused."""
    with pytest.raises(BadImageError) as caught:
        read_image(path)
    return str(caught.value)


# --- modality


@pytest.mark.parametrize(
    "empty", [["RescaleSlope"], ["RescaleIntercept"], ["RescaleSlope", "RescaleIntercept"]]
)
def test_an_empty_rescale_counts_as_absent(tmp_path: Path, empty: list[str]) -> None:
    elements: dict[str, object] = {"RescaleSlope": 2, "RescaleIntercept": -1000, **dict.fromkeys(empty)}
    slope = 1 if "RescaleSlope" in empty else 2
    intercept = 0 if "RescaleIntercept" in empty else -1000
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, WindowCenter=2000, WindowWidth=3000, **elements)
    assert_shown(path, linear(slope * CHEST.astype(float) + intercept, 2000, 3000))


def test_a_slope_of_zero_is_noted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, RescaleSlope=0, RescaleIntercept=0)
    assert_shown(path, percentiles(CHEST), ("rescale_ignored",))


@pytest.mark.parametrize("bits", [12, 16])
def test_a_modality_table_comes_before_the_window(tmp_path: Path, bits: int) -> None:
    table = lookup_table((np.arange(4096)[::-1] // 2).astype(np.uint16), bits=bits)
    path = write_dicom(
        tmp_path / "a.dcm", CHEST, 12, ModalityLUTSequence=[table], WindowCenter=1000, WindowWidth=2000
    )
    assert_shown(path, linear((4095 - CHEST) // 2, 1000, 2000))


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_a_modality_table_of_signed_values(tmp_path: Path, vr: str) -> None:
    first = -2048 if vr == "SS" else 65536 - 2048
    table = lookup_table((np.arange(4096) ** 2 // 256).astype(np.uint16), first, vr=vr)
    path = write_dicom(tmp_path / "a.dcm", (CHEST - 2048).astype(np.int16), 12, ModalityLUTSequence=[table])
    assert_shown(path, percentiles(CHEST.astype(int) ** 2 // 256))


# --- values of interest


def test_the_voi_table_takes_rescaled_values(tmp_path: Path) -> None:
    entries = np.rint((np.arange(4096) / 4095) ** 1.5 * 65535).astype(np.uint16)
    table = lookup_table(entries, -1024, vr="SS")
    path = write_dicom(
        tmp_path / "a.dcm", CHEST, 12, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[table]
    )
    assert_shown(path, entries[CHEST] / 65535 * 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [4096, 4095])
def test_8_bit_entries_one_or_two_to_a_word(tmp_path: Path, dtype: type, count: int) -> None:
    entries = np.rint(np.linspace(0, 255, count)).astype(dtype)
    filled = np.append(entries, dtype(0)) if dtype == np.uint8 and count % 2 else entries  # whole words
    packed = lookup_table(filled, bits=8)
    packed.LUTDescriptor = [count, 0, 8]
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, VOILUTSequence=[packed])
    assert_shown(path, entries[CHEST])


def test_a_table_that_uses_a_part_of_its_range_is_scaled_by_its_maximum(tmp_path: Path) -> None:
    entries = np.arange(4096, dtype=np.uint16)  # twelve bits, declared as sixteen
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, VOILUTSequence=[lookup_table(entries)])
    assert_shown(path, CHEST / 4095 * 255)


def test_an_empty_or_short_table_gives_way_to_the_window(tmp_path: Path) -> None:
    empty, short = lookup_table(np.zeros(2, np.uint16)), lookup_table(np.zeros(64, np.uint16))
    empty.LUTDescriptor = empty.LUTData = None
    short.LUTDescriptor = [4096, 0, 16]
    path = write_dicom(
        tmp_path / "a.dcm", CHEST, 12, VOILUTSequence=[empty, short], WindowCenter=2000, WindowWidth=3000
    )
    assert_shown(path, linear(CHEST, 2000, 3000), ("window_ignored", "window_ignored"))


def test_a_window_below_1_is_meant_exactly(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", CHEST, 12, RescaleSlope="0.0001", RescaleIntercept="0",
        WindowCenter="0.2", WindowWidth="0.3",
    )  # fmt: skip
    assert_shown(path, np.clip((CHEST * 0.0001 - 0.2) / 0.3 + 0.5, 0, 1) * 255)


@pytest.mark.parametrize(("center", "width"), [(2000, 0), (2000, -3000), (60000, 100), (-9000, 2)])
def test_a_window_that_shows_nothing_falls_back_to_percentiles(
    tmp_path: Path, center: object, width: object
) -> None:
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, WindowCenter=center, WindowWidth=width)
    assert_shown(path, percentiles(CHEST), ("window_ignored",))


@pytest.mark.parametrize("text", [b"nan ", b"inf ", b"wide", b"1e999 "])
def test_a_window_that_is_no_number_counts_as_absent(tmp_path: Path, text: bytes) -> None:
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, WindowCenter="2000", WindowWidth="3000")
    length = {4: b"\x04\0", 6: b"\x06\0"}
    content = path.read_bytes().replace(b"DS\x04\x003000", b"DS" + length[len(text)] + text)
    path.write_bytes(content)
    assert_shown(path, percentiles(CHEST), ("window_ignored",))


def test_the_first_window_that_shows_something_is_used(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", CHEST, 12, WindowCenter=[90000, 2000, 1000], WindowWidth=[100, 3000, 5]
    )
    assert_shown(path, linear(CHEST, 2000, 3000), ("window_ignored",))


def test_empty_windows_count_as_absent(tmp_path: Path) -> None:
    empty = dict.fromkeys(["WindowCenter", "WindowWidth", "VOILUTFunction"])
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, **empty)
    assert_shown(path, percentiles(CHEST))


# --- padding


def test_padding_written_as_unsigned_in_signed_data(tmp_path: Path) -> None:
    signed = (CHEST.astype(int) - 2000).astype(np.int16)
    signed[:30] = -32768
    path = write_dicom(tmp_path / "a.dcm", signed, PixelPaddingValue=("US", 32768))
    assert_shown(path, percentiles(signed, signed != -32768))


@pytest.mark.parametrize("ends", [(0, 50), (50, 0)])
def test_a_range_of_padding(tmp_path: Path, ends: tuple[int, int]) -> None:
    padded = CHEST.copy()
    padded[:30] = np.random.default_rng(0).integers(0, 51, (30, 80))
    path = write_dicom(
        tmp_path / "a.dcm", padded, 12, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1]
    )
    assert_shown(path, percentiles(padded, padded > 50))


def test_high_padding(tmp_path: Path) -> None:
    padded = CHEST.copy()
    padded[:30] = 4095
    path = write_dicom(tmp_path / "a.dcm", padded, 12, PixelPaddingValue=4095)
    assert_shown(path, percentiles(padded, padded < 4095))


def test_all_padding_shows_nothing(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.full((64, 64), 7, np.uint16), PixelPaddingValue=7)
    assert "shows_nothing: every pixel is padding" in refusal(path)


# --- polarity, color, shape


@pytest.mark.parametrize(
    ("photometric", "shape", "is_inverted"),
    [
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
def test_polarity(tmp_path: Path, photometric: str, shape: str | None, is_inverted: bool) -> None:
    low_is_white = 4095 - CHEST if is_inverted else CHEST
    path = write_dicom(
        tmp_path / "a.dcm", low_is_white, 12, PhotometricInterpretation=photometric,
        PresentationLUTShape=shape, WindowCenter=2048, WindowWidth=4096,
    )  # fmt: skip
    assert_shown(path, FILM)


def test_a_film_tagged_monochrome1_by_mistake_is_noted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", FILM, PhotometricInterpretation="MONOCHROME1")
    assert_shown(path, 255 - FILM, ("polarity_unclear",))


def test_a_film_of_8_bits_is_the_same_as_dicom_and_as_png(tmp_path: Path) -> None:
    Image.fromarray(FILM).save(tmp_path / "film.png")
    write_dicom(tmp_path / "film.dcm", FILM)
    assert np.array_equal(read_image(tmp_path / "film.dcm"), read_image(tmp_path / "film.png"))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_palette_becomes_luminance(tmp_path: Path, depth: int) -> None:
    top = 2**depth - 1
    elements: dict[str, object] = {}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = ("US", [256, 0, depth])
        ramp = np.linspace(top, 0, 256).astype(f"uint{depth}")
        elements[f"{color}PaletteColorLookupTableData"] = ("OW", ramp.tobytes())
    path = write_dicom(tmp_path / "a.dcm", FILM, PhotometricInterpretation="PALETTE COLOR", **elements)
    assert_shown(path, 255 - FILM)


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


def test_bits_beyond_those_stored_are_noted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", CHEST | np.uint16(0x4000), 12)
    assert_shown(path, percentiles(CHEST), ("bits_dropped",))


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


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, "1.2.840.10008.1.2.4.100"])
def test_a_compression_that_cannot_be_undone_names_a_way_out(tmp_path: Path, syntax: str) -> None:
    from pydicom.uid import UID

    frame = b"\xff\xd8\xff\xf7" + bytes(60) + b"\xff\xd9"
    message = refusal(write_compressed(tmp_path / "a.dcm", FILM, UID(syntax), [frame]))
    assert message.startswith("unsupported_compression: ") and UID(syntax).name in message
    assert "pip install" in message or "uncompressed" in message


def test_rle_is_read(tmp_path: Path) -> None:
    dataset = make_dicom(CHEST, 12)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert_shown(tmp_path / "a.dcm", percentiles(CHEST))


def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    dataset = make_dicom(FILM)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert_shown(tmp_path / "a.dcm", FILM)
    content = (tmp_path / "a.dcm").read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = b"\x09\x00\x10\x10OB\0\0" + (200_000_000).to_bytes(4, "little")
    body = packer.compress(element + bytes(200_000_000)) + packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(content[:start] + body)
    assert "too_many_bytes: inflates to more than" in refusal(tmp_path / "bomb.dcm")


# --- an independent reader


GRAY_FILES = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
    "MR_small_padded.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "693_J2KI.dcm",
    "examples_overlay.dcm", "image_dfl.dcm", "JPEG2000.dcm",
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


def test_dicom_color_becomes_luminance(tmp_path: Path) -> None:
    color = np.stack([FILM] * 3, -1)
    assert_shown(write_dicom(tmp_path / "a.dcm", color, PhotometricInterpretation="RGB"), FILM)
    deep = np.stack([CHEST] * 3, -1)
    path = write_dicom(tmp_path / "b.dcm", deep, PhotometricInterpretation="RGB")
    assert_shown(path, percentiles(CHEST))


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
