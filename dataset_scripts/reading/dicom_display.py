"""Stored DICOM values → 8-bit gray, by the standard's grayscale transformation (PS3.4, N.2; PS3.3, C.11).

`dicom` decodes → here: modality transform → values of interest (lookup table or window) → polarity. Each step
is computed once for every value that 16 bits can hold and then looked up: a picture costs little memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.decoding import Note, shows_nothing
from dataset_scripts.reading.dicom_elements import number, numbers
from dataset_scripts.reading.grayscale import (
    WINDOW_PERCENTILES,
    GrayImage,
    apply_table,
    check_levels,
    count_values,
    linear_to_8bit,
    luminance_16bit,
    percentiles_of_counts,
    window_16bit,
)

Values = npt.NDArray[np.floating]

_PATTERNS = np.arange(65536)

_CLEARLY_BRIGHTER = 10.0  # gray levels

_FEWEST_GRAYS = 16  # that a window or table leaves; a threshold leaves two or three

GRAY_CHROMA = 10.0
"""Mean distance of the largest to the smallest of R, G and B, of 255; tinted scans of films stay below."""

_COLOR_DETAIL = "a color picture, and radiographs are gray; its luminance is shown"


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The stored values of a picture, as what each of the 65,536 patterns of 16 bits means.

    Attributes:
        patterns: (rows, columns), uint16: the bits of each pixel.
        values: (65536,), the stored value of each pattern.
        counts: (65536,), how many pixels of the picture, padding left out, hold each pattern.
        bits: of a value.
    """

    patterns: npt.NDArray[np.uint16]
    values: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    bits: int

    def occurring(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of `values`, one for each pattern, those that a pixel of the picture has."""
        return values[self.counts > 0]


def show_color(stored: npt.NDArray[Any], note: Note) -> GrayImage:
    """Luminance of RGB.

    Args:
        stored: (rows, columns, 3), uint8, or uint16, which is windowed between percentiles.
        note: told of a picture that is not gray, kind "color".

    Raises:
        BadImageError: kind "unsupported_depth".
    """
    if stored.dtype not in (np.uint8, np.uint16):
        raise BadImageError("unsupported_depth", f"color of {8 * stored.itemsize} bits; wanted 8 or 16")
    step = max(1, max(stored.shape) // 256)
    sample = stored[::step, ::step].astype(np.int64)
    top = 255 if stored.dtype == np.uint8 else max(int(sample.max()), 1)
    if (sample.max(axis=2) - sample.min(axis=2)).mean() * 255 / top > GRAY_CHROMA:
        note("color", _COLOR_DETAIL)
    if stored.dtype == np.uint8:
        return np.asarray(Image.fromarray(stored).convert("L"))
    return window_16bit(luminance_16bit(stored))


def show_gray(stored: npt.NDArray[Any], dataset: Any, note: Note) -> GrayImage:
    """Apply the display chain of a data set to its pixels.

    Args:
        stored: (rows, columns), integers of at most 16 bits, with whatever stands beside the bits that count.
        dataset: the elements that describe them.
        note: told of elements that are wrong and what was done instead.

    Returns:
        (rows, columns), uint8; black is dark.

    Raises:
        BadImageError: kind "shows_nothing", "unsupported_depth" or "bad_header".
    """
    pixels = _sort_pixels(stored, dataset, note)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        table = _palette_luminance(pixels, dataset, note)
    else:
        values = _modality(pixels, dataset, note)
        table = _values_of_interest(values, pixels, dataset, note)
    if shows_nothing(_levels(table, pixels)):
        shown = pixels.occurring(table)
        detail = f"of one brightness or nearly so beside padding (gray levels {shown.min()} to {shown.max()})"
        raise BadImageError("shows_nothing", detail)
    return apply_table(pixels.patterns, 255 - table if is_inverted(dataset) else table)


def _sort_pixels(stored: npt.NDArray[Any], dataset: Any, note: Note) -> _Pixels:
    """Find what each pattern of bits means (PS3.5, 8.1.1), and take padding out of the statistics."""
    if stored.dtype.itemsize > 2:
        low, high = int(stored.min()), int(stored.max())
        if low < -32768 or high > (32767 if low < 0 else 65535):
            raise BadImageError("unsupported_depth", f"values {low} to {high}; wanted at most 16 bits")
        stored = stored.astype(np.int16 if low < 0 else np.uint16)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    allocated = 8 * stored.dtype.itemsize
    patterns = stored.view(f"uint{allocated}").astype(np.uint16, copy=False)
    is_signed = stored.dtype.kind == "i"
    bits, shift = _place_of_bits(dataset, allocated)
    values = _as_numbers(_PATTERNS >> shift & (1 << bits) - 1, bits, is_signed)
    counts = count_values(patterns)
    # A pixel may have bits beside those of its value; in signed ones they may repeat the sign.
    cells = _as_numbers(_PATTERNS & (1 << allocated) - 1, allocated, is_signed)
    has_more = (_PATTERNS != (values << shift) & (1 << bits + shift) - 1) & (cells != values << shift)
    is_padding, is_padding_cell = _find_padding(values, cells, allocated, dataset)
    is_padding_cell &= has_more & (shift == 0)
    values = np.where(is_padding_cell, cells, values)
    is_padding |= is_padding_cell
    if not counts[~is_padding].any():
        raise BadImageError("shows_nothing", "every pixel is padding")
    counts[is_padding] = 0
    has_overlay = any(tag.group & 0xFF00 == 0x6000 for tag in dataset.keys())
    if counts[has_more].any() and not has_overlay:  # an old overlay lies in the bits above
        top = int(np.abs(cells[has_more & (counts > 0)]).max())
        place = f"{bits} bits" + (f" from bit {shift} on" if shift else "")
        note("bits_dropped", f"pixels hold values up to {top}, the header says {place}; the rest is dropped")
    return _Pixels(patterns, values, counts, bits)


def _as_numbers(bits_of: npt.NDArray[np.int64], bits: int, is_signed: bool) -> npt.NDArray[np.int64]:
    """Patterns of so many bits as numbers, negative ones in two's complement."""
    return np.where(bits_of >= 1 << bits - 1, bits_of - (1 << bits), bits_of) if is_signed else bits_of


def _place_of_bits(dataset: Any, allocated: int) -> tuple[int, int]:
    """How many bits a value has, and how far above the lowest bit it begins.

    A decompressed picture begins at the lowest bit whatever the header says; RLE keeps all bits in place.
    """
    bits, high = (number(dataset, name) for name in ("BitsStored", "HighBit"))
    stored = int(bits or allocated)
    syntax = dataset.file_meta.TransferSyntaxUID
    if high is None or (syntax.is_encapsulated and syntax.name != "RLE Lossless"):
        return min(stored, allocated), 0
    shift = int(high) + 1 - stored
    if shift < 0 or (shift > 0 and stored + shift > allocated):
        detail = f"HighBit is {high:g}, BitsStored {stored}, BitsAllocated {dataset.BitsAllocated}"
        raise BadImageError("bad_header", f"{detail}: the bits of a pixel do not fit")
    return min(stored, allocated), shift


def _find_padding(
    values: npt.NDArray[np.int64], cells: npt.NDArray[np.int64], allocated: int, dataset: Any
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which values, and which whole cells, are padding: one, or a range (PS3.3, C.7.5.1.1.2)."""
    padding, limit = (number(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if padding is None:
        return np.zeros(65536, bool), np.zeros(65536, bool)
    # Written as unsigned in signed data, or the other way around: what counts is the pattern of bits.
    ends = [cells[int(end) & (1 << allocated) - 1] for end in (padding, padding if limit is None else limit)]
    low, high = min(ends), max(ends)
    return (values >= low) & (values <= high), (cells >= low) & (cells <= high)


def _modality(pixels: _Pixels, dataset: Any, note: Note) -> Values:
    """The modality transform of every pattern: a lookup table, or slope and intercept."""
    for item in dataset.get("ModalityLUTSequence") or []:
        if _is_empty(item):
            continue
        try:
            return _look_up(pixels.values.astype(np.float64), item, pixels, dataset)
        except (ValueError, TypeError) as error:
            detail = f"the modality lookup table cannot be read: {error}"
            raise BadImageError("bad_header", detail) from error
    slope, intercept = (number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        note("rescale_ignored", "a rescale slope of 0 would leave one brightness; taken as 1")
    return pixels.values * (slope or 1.0) + (intercept or 0.0)


def _is_empty(item: Any) -> bool:
    return item.get("LUTDescriptor") is None and not item.get("LUTData")


def _values_of_interest(values: Values, pixels: _Pixels, dataset: Any, note: Note) -> GrayImage:
    """The gray value of every pattern: by the first table or window that shows something, or by percentiles.

    Pictures of at most 8 bits without table or window are shown as they are, like a PNG (docs/decisions.md).

    Args:
        values: (65536,), after the modality transform.
        pixels: what each pattern means and how often it occurs.
        dataset: holds tables and windows.
        note: told of each that was not used.

    Returns:
        (65536,), uint8.
    """
    has_choice = False
    for name, shown in _tables_and_windows(values, pixels, dataset, note):
        has_choice = True
        table = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        levels = _levels(table, pixels)
        count = np.count_nonzero(levels)
        # A threshold shows an outline, no radiograph; few levels are right only where no more are stored.
        fewest = _FEWEST_GRAYS if np.count_nonzero(pixels.counts) >= _FEWEST_GRAYS else 3
        if shows_nothing(levels):
            note("window_ignored", f"{name} shows nothing of these pixels")
        elif count < fewest:
            note("window_ignored", f"{name} shows {count} gray levels only")
        else:
            return table
    if not has_choice and pixels.bits <= 8:
        is_signed = bool(pixels.values.min() < 0)
        least, most = -(1 << pixels.bits - 1) if is_signed else 0, (1 << pixels.bits - is_signed) - 1
        whole = values[(pixels.values == least) | (pixels.values == most)]
        inside = pixels.occurring(values)
        return linear_to_8bit(values, min(whole.min(), inside.min()), max(whole.max(), inside.max()))
    low, high = percentiles_of_counts(pixels.values.astype(np.float64), pixels.counts, WINDOW_PERCENTILES)
    check_levels(low, high)
    low, high = percentiles_of_counts(values, pixels.counts, WINDOW_PERCENTILES)
    if low == high:
        raise BadImageError("shows_nothing", f"the modality transform gives {low:g} everywhere")
    return linear_to_8bit(values, low, high)


def _levels(table: GrayImage, pixels: _Pixels) -> npt.NDArray[np.int64]:
    """How many pixels, padding left out, a table shows at each of the 256 gray levels."""
    return np.bincount(table, weights=pixels.counts, minlength=256).astype(np.int64)


def _tables_and_windows(
    values: Values, pixels: _Pixels, dataset: Any, note: Note
) -> Iterator[tuple[str, Values]]:
    """Each way that the file names of showing its values: its name, and 0…1 for every pattern."""
    for item in dataset.get("VOILUTSequence") or []:
        try:
            entries = _look_up(values, item, pixels, dataset)
        except (ValueError, TypeError) as error:
            note("window_ignored", f"the VOI lookup table cannot be read: {error}")
            continue
        yield "the VOI lookup table", entries / max(entries.max(), 1)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    try:
        centers, widths = (numbers(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    except BadImageError as error:  # a picture can be shown without its window
        note("window_ignored", error.detail)
        return
    if len(centers) != len(widths):
        note("window_ignored", f"{len(centers)} window centers and {len(widths)} widths")
    for center, width in zip(centers, widths, strict=False):
        if width <= 0:
            note("window_ignored", f"a window {width:g} wide; wanted more than 0")
            continue
        yield f"the window {center:g} ± {width / 2:g}", _window(values, center, width, function)


def _window(values: Values, center: float, width: float, function: str) -> Values:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3; 0 is black, 1 is white, not clipped.

    A linear window narrower than 1 is outside the standard; it is meant as LINEAR_EXACT.
    """
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR_EXACT" or width < 1:
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _look_up(values: Values, item: Any, pixels: _Pixels, dataset: Any) -> Values:
    """Values through a lookup table (PS3.3, C.11.1.1); what lies outside takes its first or last entry.

    Args:
        values: (65536,), of every pattern; rounded to whole numbers.
        item: of the sequence, with descriptor (entries, first value mapped, bits) and data.
        pixels: which patterns occur.
        dataset: knows the byte order.

    Raises:
        ValueError: the table is empty or shorter than its descriptor says.
    """
    descriptor = [int(number) for number in (item.get("LUTDescriptor") or ())]
    if len(descriptor) != 3:
        raise ValueError(f"its descriptor holds {descriptor or 'nothing'}, wanted three numbers")
    count, first = descriptor[0] & 0xFFFF or 65536, descriptor[1]
    if first > 32767 and pixels.occurring(values).min() < 0:  # a negative first value, written as unsigned
        first -= 65536
    entries = _lut_entries(item.get("LUTData"), count, dataset)
    return entries[np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)].astype(np.float64)


def _lut_entries(data: Any, count: int, dataset: Any) -> npt.NDArray[np.int64]:
    """The entries of a lookup table: one a word, or two 8-bit ones packed in a word."""
    if isinstance(data, bytes):
        is_little = dataset.original_encoding[1] is not False
        words = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2" if is_little else ">u2")
    else:
        numbers = [] if data is None else [data] if isinstance(data, int) else list(data)
        words = np.asarray(numbers, np.int64).astype(np.uint16)
    if len(words) >= count:
        return words[:count].astype(np.int64)
    packed = np.frombuffer(words.astype("<u2").tobytes(), np.uint8)
    if len(packed) < count:
        raise ValueError(f"{count} entries, {len(packed)} bytes of data")
    return packed[:count].astype(np.int64)


def is_inverted(dataset: Any) -> bool:
    """Whether low values are shown white; MONOCHROME1 and INVERSE both say so, and together still once.

    See PS3.3, C.8.11.3.1.2.
    """
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    return dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE"


def looks_inverted(image: GrayImage) -> bool:
    """Whether the lungs of a frontal chest are brighter than the mediastinum: black and white are exchanged.

    A hint, no proof: of 4,647 real films it held for 0.3 % as they are and for 99.1 % inverted
    (docs/decisions.md).
    """
    small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX), np.float64)
    lungs = (small[20:40, 12:22].mean() + small[20:40, 42:52].mean()) / 2
    return bool(small[20:44, 28:36].mean() < lungs - _CLEARLY_BRIGHTER)


def _palette_luminance(pixels: _Pixels, dataset: Any, note: Note) -> GrayImage:
    """Luminance of every pattern's palette color, (65536,), uint8."""
    from pydicom.pixels import apply_color_lut

    colors = apply_color_lut(pixels.values, dataset)[:, :3].astype(np.float64)
    top = 255 if colors.max() <= 255 else 65535
    chroma = (colors.max(axis=1) - colors.min(axis=1)) * (255 / top)
    if np.average(chroma, weights=pixels.counts) > GRAY_CHROMA:
        note("color", _COLOR_DETAIL)
    return np.rint(colors @ np.array([0.299, 0.587, 0.114]) * (255 / top)).astype(np.uint8)
