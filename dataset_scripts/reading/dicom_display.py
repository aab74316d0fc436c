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


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The stored values of a picture, as what each of the 65,536 patterns of 16 bits means.

    Attributes:
        patterns: (rows, columns), uint16: the bits of each pixel.
        values: (65536,), the stored value of each pattern.
        counts: (65536,), how many pixels of the picture, padding left out, hold each pattern.
    """

    patterns: npt.NDArray[np.uint16]
    values: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def show_color(stored: npt.NDArray[Any]) -> GrayImage:
    """Luminance of RGB.

    Args:
        stored: (rows, columns, 3), uint8, or uint16, which is windowed between percentiles.

    Raises:
        BadImageError: kind "unsupported_depth".
    """
    if stored.dtype == np.uint8:
        return np.asarray(Image.fromarray(stored).convert("L"))
    if stored.dtype != np.uint16:
        raise BadImageError("unsupported_depth", f"color of {8 * stored.itemsize} bits; wanted 8 or 16")
    return window_16bit(luminance_16bit(stored))


def show_gray(stored: npt.NDArray[Any], dataset: Any, note: Note) -> GrayImage:
    """Apply the display chain of a data set to its pixels.

    Args:
        stored: (rows, columns), integers of at most 16 bits.
        dataset: the elements that describe them.
        note: told of elements that are wrong and what was done instead.

    Returns:
        (rows, columns), uint8; black is dark.

    Raises:
        BadImageError: kind "shows_nothing" or "unsupported_depth".
    """
    pixels = _sort_pixels(stored, dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return apply_table(pixels.patterns, _palette_luminance(pixels, dataset))
    values = _modality(pixels.values, dataset, note)
    table = _values_of_interest(values, pixels, dataset, note)
    return apply_table(pixels.patterns, 255 - table if is_inverted(dataset) else table)


def _sort_pixels(stored: npt.NDArray[Any], dataset: Any) -> _Pixels:
    """Take padding out of the statistics and find what each pattern of bits means."""
    if stored.dtype.itemsize > 2:
        low, high = int(stored.min()), int(stored.max())
        if low < -32768 or high > (32767 if low < 0 else 65535):
            raise BadImageError("unsupported_depth", f"values {low} to {high}; wanted at most 16 bits")
        stored = stored.astype(np.int16 if low < 0 else np.uint16)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    is_signed = stored.dtype.kind == "i"
    bits = 8 * stored.dtype.itemsize
    patterns = stored.view(f"uint{bits}").astype(np.uint16, copy=False)
    values = (
        np.where(_PATTERNS >= 2 ** (bits - 1), _PATTERNS - 2**bits, _PATTERNS) if is_signed else _PATTERNS
    )
    counts = count_values(patterns)
    is_padding = _find_padding(values, bits, dataset)
    if not counts[~is_padding].any():
        raise BadImageError("shows_nothing", "every pixel is padding")
    counts[is_padding] = 0
    return _Pixels(patterns, values, counts)


def _find_padding(values: npt.NDArray[np.int64], bits: int, dataset: Any) -> npt.NDArray[np.bool_]:
    """Which patterns are padding: one value, or all from it to the range limit (PS3.3, C.7.5.1.1.2)."""
    padding = first_number(dataset, "PixelPaddingValue")
    if padding is None:
        return np.zeros(65536, bool)
    limit = first_number(dataset, "PixelPaddingRangeLimit")
    # Written as unsigned in signed data, or the other way around: what counts is the pattern of bits.
    ends = [values[int(end) & (2**bits - 1)] for end in (padding, padding if limit is None else limit)]
    return (values >= min(ends)) & (values <= max(ends))


def _modality(stored: npt.NDArray[np.int64], dataset: Any, note: Note) -> Values:
    """The modality transform of every pattern: a lookup table, or slope and intercept."""
    for item in dataset.get("ModalityLUTSequence") or []:
        return _look_up(stored.astype(np.float64), item, dataset)
    slope, intercept = (first_number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        note("rescale_ignored", "a rescale slope of 0 would leave one brightness; taken as 1")
    return stored * (slope or 1.0) + (intercept or 0.0)


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
    for name, shown in _tables_and_windows(values, dataset, note):
        has_choice = True
        table = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        levels = np.bincount(table, weights=pixels.counts, minlength=256).astype(np.int64)
        if not shows_nothing(levels):
            return table
        note("window_ignored", f"{name} shows nothing of these pixels")
    if not has_choice and (dataset.BitsStored or 16) <= 8:
        bits = int(dataset.BitsStored)
        is_signed = pixels.values.min() < 0
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
        ends = values[[low & 0xFF, high & 0xFF]]
        inside = values[pixels.counts > 0]
        return linear_to_8bit(values, min(*ends, inside.min()), max(*ends, inside.max()))
    low, high = percentiles_of_counts(pixels.values.astype(np.float64), pixels.counts, WINDOW_PERCENTILES)
    check_levels(low, high)
    low, high = percentiles_of_counts(values, pixels.counts, WINDOW_PERCENTILES)
    if low == high:
        raise BadImageError("shows_nothing", f"the modality transform gives {low:g} everywhere")
    return linear_to_8bit(values, low, high)


def _tables_and_windows(values: Values, dataset: Any, note: Note) -> Iterator[tuple[str, Values]]:
    """Each way that the file names of showing its values: its name, and 0…1 for every pattern."""
    for item in dataset.get("VOILUTSequence") or []:
        try:
            entries = _look_up(values, item, dataset)
        except (ValueError, TypeError) as error:
            note("window_ignored", f"the VOI lookup table cannot be read: {error}")
            continue
        yield "the VOI lookup table", entries / max(entries.max(), 1)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    count = max(_multiplicity(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    for index in range(count):
        center, width = (first_number(dataset, name, index) for name in ("WindowCenter", "WindowWidth"))
        if center is None or width is None:
            if _multiplicity(dataset, "WindowCenter") and _multiplicity(dataset, "WindowWidth"):
                note("window_ignored", "a window of which center or width is no number")
            continue
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


def _look_up(values: Values, item: Any, dataset: Any) -> Values:
    """Values through a lookup table (PS3.3, C.11.1.1); what lies outside takes its first or last entry.

    Args:
        values: (n,); rounded to whole numbers.
        item: of the sequence, with descriptor (entries, first value mapped, bits) and data.
        dataset: knows the byte order.

    Raises:
        ValueError: the table is empty or shorter than its descriptor says.
    """
    descriptor = [int(number) for number in (item.get("LUTDescriptor") or ())]
    if len(descriptor) != 3:
        raise ValueError(f"its descriptor holds {descriptor or 'nothing'}, wanted three numbers")
    count, first = descriptor[0] & 0xFFFF or 65536, descriptor[1]
    if first > 32767 and values.min() < 0:  # a negative first value, written as unsigned
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


def _palette_luminance(pixels: _Pixels, dataset: Any) -> GrayImage:
    """Luminance of every pattern's palette color, (65536,), uint8."""
    from pydicom.pixels import apply_color_lut

    colors = apply_color_lut(pixels.values, dataset)[:, :3].astype(np.float64)
    top = 255 if colors.max() <= 255 else 65535
    return np.rint(colors @ np.array([0.299, 0.587, 0.114]) * (255 / top)).astype(np.uint8)


def _multiplicity(dataset: Any, name: str) -> int:
    """How many values an element holds; 0 where it is absent or empty, 1 where it cannot be understood."""
    try:
        value = dataset.get(name)
    except (ValueError, TypeError, ArithmeticError):
        return 1
    if value is None or value == "":
        return 0
    return len(value) if hasattr(value, "__len__") and not isinstance(value, str) else 1


def first_number(dataset: Any, name: str, index: int = 0) -> float | None:
    """One number of an element; None where it is absent, empty, no number or not finite."""
    try:
        value = dataset.get(name)
        if hasattr(value, "__len__") and not isinstance(value, str):
            value = value[index] if index < len(value) else None
        elif index:
            value = None
        number = float(value)
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None
    return number if np.isfinite(number) else None
