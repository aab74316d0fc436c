"""What the elements of a DICOM data set say: numbers, and what enhanced objects keep in functional groups.

Below `dicom` and `dicom_display`. One rule for every number: an element that is absent or empty says nothing,
and one that holds anything but finite numbers is refused in words, never passed over.
"""

import zlib
from typing import Any

import numpy as np

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.decoding import BoundedFile

MAXIMUM_DECODED_BYTES = 120_000_000  # 40 megapixels of 16 bits, with room

_GROUP_ELEMENTS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "FramePixelDataPropertiesSequence": ("ImagerPixelSpacing",),
}
"""Functional group macros and what they say of a frame's display (PS3.3, C.7.6.16.2 and C.8.19.6.4)."""


class DicomFile(BoundedFile):
    """A DICOM file that does not hand out what would inflate to more than any picture needs.

    pydicom asks for all that is left of a file only where it inflates it at once, so that is where a deflated
    data set is measured, wherever it begins and whatever the elements before it look like.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """As `BoundedFile.read`.

        Raises:
            BadImageError: kind "too_many_bytes".
        """
        content = super().read(size)
        if size is None or size < 0:
            _check_inflated_size(content)
        return content


def _check_inflated_size(deflated: bytes) -> None:
    inflater, inflated, at = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    rest = deflated[:65536]
    while rest and not inflater.eof:
        try:
            inflated += len(inflater.decompress(rest, 1 << 20))
        except zlib.error:  # damaged: pydicom will say so, having inflated no more than this
            return
        if inflated > MAXIMUM_DECODED_BYTES:
            limit = f"at most {MAXIMUM_DECODED_BYTES:,} are read"
            raise BadImageError("too_many_bytes", f"inflates to more than {inflated:,} bytes; {limit}")
        rest = inflater.unconsumed_tail
        if not rest:
            at += 65536
            rest = deflated[at : at + 65536]


def use_functional_groups(dataset: Any) -> None:
    """Put what the functional groups of the (first) frame say in the place where other objects say it."""
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(sequence) or [])[:1]:
            for macro, names in _GROUP_ELEMENTS.items():
                for item in (group.get(macro) or [])[:1]:
                    for name in names:
                        element = item.get_item(name)  # as it is in the file, perhaps no number
                        if element is not None and element.value:
                            dataset[element.tag] = element


def numbers(dataset: Any, name: str) -> tuple[float, ...]:
    """The numbers that an element holds; none where it is absent or empty.

    Raises:
        BadImageError: kind "bad_header", where it holds anything else, NaN and infinity included.
    """
    try:
        value = dataset.get(name)
        is_list = hasattr(value, "__len__") and not isinstance(value, (str, bytes))
        parts = list(value) if is_list else [value]
        if all(part is None or part == "" for part in parts):
            return ()
        found = tuple(float(part) for part in parts)
        if np.isfinite(found).all():
            return found
    except (ValueError, TypeError, ArithmeticError):
        pass
    raise BadImageError("bad_header", f"{name} is {_as_written(dataset, name)}; wanted numbers")


def number(dataset: Any, name: str) -> float | None:
    """The number that an element holds; None where it is absent or empty.

    Raises:
        BadImageError: kind "bad_header", where it holds anything but one number.
    """
    found = numbers(dataset, name)
    if len(found) > 1:
        raise BadImageError("bad_header", f"{name} is {_as_written(dataset, name)}; wanted one number")
    return found[0] if found else None


def number_pair(dataset: Any, name: str) -> tuple[float, float] | None:
    """The two numbers that an element holds; None where it is absent or empty.

    Raises:
        BadImageError: kind "bad_header", where it holds anything but two numbers.
    """
    found = numbers(dataset, name)
    if found and len(found) != 2:
        raise BadImageError("bad_header", f"{name} is {_as_written(dataset, name)}; wanted two numbers")
    return (found[0], found[1]) if found else None


def _as_written(dataset: Any, name: str) -> str:
    """An element's value as the file holds it, for a message."""
    value = dataset.get_item(name).value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return repr(text.strip(" \0")[:40])
