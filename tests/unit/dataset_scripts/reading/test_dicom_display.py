"""Stored DICOM values as a viewer shows them: modality, values of interest, padding, polarity, palettes."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import CHEST, FILM, assert_shown, linear, lookup_table, percentiles, refusal, write_dicom
from PIL import Image
from pydicom.dataset import Dataset

from dataset_scripts.reading.images import read_image

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


@pytest.mark.parametrize("is_filled", [False, True])
def test_a_modality_table_that_is_empty_counts_as_absent(tmp_path: Path, is_filled: bool) -> None:
    item = Dataset()
    if is_filled:
        item = lookup_table(np.zeros(2, np.uint16))
        item.LUTDescriptor = item.LUTData = None
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, ModalityLUTSequence=[item])
    assert_shown(path, percentiles(CHEST))


def test_a_modality_table_that_is_too_short_is_refused(tmp_path: Path) -> None:
    table = lookup_table(np.zeros(64, np.uint16))
    table.LUTDescriptor = [4096, 0, 16]
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, ModalityLUTSequence=[table])
    assert refusal(path).startswith("bad_header: the modality lookup table cannot be read: 4096 entries")


@pytest.mark.parametrize("text", [b"0,50", b"NaN ", b"1\\2 ", b"inf ", b"half"])
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_that_is_no_number_is_refused(tmp_path: Path, name: str, text: bytes) -> None:
    elements = {"RescaleSlope": "2", "RescaleIntercept": "0", name: "7.55"}
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, WindowCenter=2000, WindowWidth=3000, **elements)
    path.write_bytes(path.read_bytes().replace(b"7.55", text))
    assert refusal(path).startswith(f"bad_header: {name} is ")


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_functional_groups_of_a_single_frame_are_used(tmp_path: Path, groups: str) -> None:
    transform, window, measures, group = Dataset(), Dataset(), Dataset(), Dataset()
    transform.RescaleSlope, transform.RescaleIntercept = "2", "-1000"
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = "3000", "4000", "LINEAR_EXACT"
    measures.PixelSpacing = ["0.4", "0.2"]
    group.PixelValueTransformationSequence = [transform]
    group.FrameVOILUTSequence, group.PixelMeasuresSequence = [window], [measures]
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, NumberOfFrames=1, **{groups: [group]})
    image = read_image(path)
    assert image.shape == (192, 80)
    wanted = np.clip((2.0 * CHEST - 1000 - 3000) / 4000 + 0.5, 0, 1) * 255
    assert np.abs(image[::2] - wanted).mean() < 3
    transform.RescaleSlope = "7.55"
    write_dicom(path, CHEST, 12, NumberOfFrames=1, **{groups: [group]})
    path.write_bytes(path.read_bytes().replace(b"7.55", b"0,50"))
    assert refusal(path).startswith("bad_header: RescaleSlope is ")


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


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "LINEAR", None])
def test_a_window_below_1_is_meant_exactly(tmp_path: Path, function: str | None) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", CHEST, 12, RescaleSlope="0.0001", RescaleIntercept="0",
        WindowCenter="0.2", WindowWidth="0.3", VOILUTFunction=function,
    )  # fmt: skip
    assert_shown(path, np.clip((CHEST * 0.0001 - 0.2) / 0.3 + 0.5, 0, 1) * 255)


@pytest.mark.parametrize(
    ("width", "function"),
    [
        ("0.5", "LINEAR"), ("0.5", None), ("1", "LINEAR"), ("3", "LINEAR"),
        ("0.5", "LINEAR_EXACT"), ("1", "LINEAR_EXACT"), ("0.1", "SIGMOID"),
    ],
)  # fmt: skip
def test_a_window_that_makes_a_threshold_falls_back_to_percentiles(
    tmp_path: Path, width: str, function: str | None
) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", CHEST, 12, WindowCenter=2000, WindowWidth=width, VOILUTFunction=function
    )
    assert_shown(path, percentiles(CHEST), ("window_ignored",))


def test_a_table_that_makes_a_threshold_falls_back_to_percentiles(tmp_path: Path) -> None:
    table = lookup_table(np.where(np.arange(4096) > 2000, 65535, 0).astype(np.uint16))
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, VOILUTSequence=[table])
    assert_shown(path, percentiles(CHEST), ("window_ignored",))


def test_a_picture_of_few_stored_levels_keeps_its_window(tmp_path: Path) -> None:
    coarse = CHEST // 300 * 300
    path = write_dicom(tmp_path / "a.dcm", coarse, 12, WindowCenter=2000, WindowWidth=3000)
    assert_shown(path, linear(coarse, 2000, 3000))


def test_a_voi_table_from_above_32767_on_values_that_are_not_negative(tmp_path: Path) -> None:
    """The intercept makes some value negative, yet none that a pixel has."""
    stored = CHEST * np.uint16(6) + np.uint16(40000)
    entries = np.rint(np.linspace(0, 1, 20000) ** 1.5 * 65535).astype(np.uint16)
    table = lookup_table(entries, 40000)
    path = write_dicom(
        tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=-1, VOILUTSequence=[table]
    )
    assert_shown(path, entries[stored.astype(int) - 1 - 40000] / 65535 * 255)


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_brightness_beside_padding_is_refused(tmp_path: Path, dtype: type) -> None:
    pixels = np.full((64, 64), 128, dtype)
    pixels[:, :26] = 0
    for elements in ({}, {"WindowCenter": 128, "WindowWidth": 200}):
        path = write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=0, **elements)
        assert refusal(path).startswith("shows_nothing: ")


@pytest.mark.parametrize(("padding", "offset"), [(-3024, 2000), (65535, 0)])
def test_padding_beyond_the_bits_stored(tmp_path: Path, padding: int, offset: int) -> None:
    stored = CHEST.astype(np.int16) - 2000 if offset else CHEST.copy()
    stored[:30] = padding
    path = write_dicom(tmp_path / "a.dcm", stored, 12, PixelPaddingValue=padding)
    assert_shown(path, percentiles(stored.astype(int), stored != padding))
    path = write_dicom(tmp_path / "b.dcm", stored, 12)  # not declared as padding
    notes: list[str] = []
    read_image(path, note=lambda kind, detail: notes.append(kind))
    assert notes == ["bits_dropped"]


@pytest.mark.parametrize("text", [b"0,50", b"9\\0 "])
def test_padding_that_is_no_number_is_refused(tmp_path: Path, text: bytes) -> None:
    path = write_dicom(tmp_path / "a.dcm", CHEST, 12, PixelPaddingValue=("DS", "7.55"))
    path.write_bytes(path.read_bytes().replace(b"7.55", text))
    assert refusal(path).startswith("bad_header: PixelPaddingValue is ")


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


def test_a_palette_of_colors_is_noted(tmp_path: Path) -> None:
    elements: dict[str, object] = {}
    ramps = np.arange(256), np.arange(256), np.arange(256)[::-1]
    for color, ramp in zip(("Red", "Green", "Blue"), ramps, strict=True):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = ("US", [256, 0, 8])
        elements[f"{color}PaletteColorLookupTableData"] = ("OW", ramp.astype(np.uint8).tobytes())
    path = write_dicom(tmp_path / "a.dcm", FILM, PhotometricInterpretation="PALETTE COLOR", **elements)
    colors = np.stack([ramp[FILM] for ramp in ramps], -1)
    assert_shown(path, colors @ np.array([0.299, 0.587, 0.114]), ("color",))


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
