"""An uploaded file → a gray picture, or one sentence on why not; and pictures → HTML that needs no files.

Between the page (app.py) and the readers of dataset_scripts.
"""

import base64
import hashlib
import html
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.dicom_display import GRAY_CHROMA
from dataset_scripts.reading.grayscale import GrayImage
from dataset_scripts.reading.image_files import IMAGE_FORMATS, is_dicom
from dataset_scripts.reading.images import read_image
from medhiera.data.preprocessing import CenterCrop
from medhiera.plotting import heat_colors

WHAT_IS_CHECKED = (
    "Checked: the picture is gray, no side more than twice the other, of more than two brightnesses, and a "
    "DICOM file names no modality other than a radiograph's. Nothing checks that it shows a chest."
)
LARGEST_RATIO = 2.0
RADIOGRAPHS = {"CR", "DX", "DR", "RG", "XR"}
"""DICOM modalities of projection radiographs."""
UNSAID = {"OT", "SC", ""}
"""Modalities (other, secondary capture, none) that say nothing either way: read, with a remark."""
SHOWN_SIDE = 640

_COLOR = "This is a color picture, and radiographs are gray; it was not analysed."

_SENTENCES = {
    "absent": "The file is no longer there; drop it again.",
    "empty_file": "The file is empty.",
    "not_an_image": "This is no image that can be read here; wanted PNG, JPEG, TIFF, BMP or DICOM.",
    "truncated": "A part of the picture is missing; the file may not have been copied to its end.",
    "no_permission": "The file may not be read.",
    "needs_pydicom": "DICOM files are not read here; save the picture as PNG.",
    "too_small": "The picture is too small to show a chest ({detail}).",
    "too_many_pixels": "The picture is too large ({detail}).",
    "too_many_bytes": "The file is too large ({detail}).",
    "too_long": "One side of the picture is many times the other ({detail}); a chest is not.",
    "shows_nothing": "The picture is of one brightness or two; there is nothing to see in it.",
    "unsupported_depth": "Pixels of this kind are not read here ({detail}).",
    "wrong_size": "The file contradicts itself: {detail}.",
    "bad_header": "The header of this DICOM file cannot be understood: {detail}.",
    "no_pixels": "This DICOM file holds no picture.",
    "several_frames": "This file holds several pictures ({detail}); save one of them alone.",
    "unsupported_compression": "This file is compressed in a way that is not read here ({detail}).",
}


class RefusedError(ValueError):
    """The upload is not analysed; the message is one sentence for the page."""


@dataclass(frozen=True)
class Picture:
    """What was uploaded.

    Attributes:
        gray: (height, width), uint8, upright, black is air.
        notes: sentences the reader should see beside the result.
    """

    gray: GrayImage
    notes: tuple[str, ...] = ()


def read_upload(path: Path) -> Picture:
    """Decode a file and see whether it can be a radiograph.

    More than 8 bits are windowed, never clipped; MONOCHROME1 is inverted (dataset_scripts.reading.images).

    Args:
        path: the file, under any name; DICOM is known by its content.

    Raises:
        RefusedError: it cannot be read, or cannot be a chest radiograph (see WHAT_IS_CHECKED).
    """
    found: list[tuple[str, str]] = []
    try:
        gray = read_image(path, note=lambda kind, detail: found.append((kind, detail)))
    except BadImageError as error:
        wanted = _SENTENCES.get(error.kind, "The file is damaged and cannot be read.")
        raise RefusedError(wanted.format(detail=error.detail)) from error
    if any(kind == "color" for kind, _ in found):
        raise RefusedError(_COLOR)
    remarks = [_remark(kind, detail) for kind, detail in found]
    if is_dicom(path):
        remarks = _check_dicom(path) + remarks
    else:
        _refuse_color(path)
    height, width = gray.shape
    if max(height, width) > LARGEST_RATIO * min(height, width):
        raise RefusedError(
            f"The picture is {width}×{height} pixels, one side more than twice the other; a chest is not."
        )
    return Picture(gray, tuple(remarks))


def _remark(kind: str, detail: str) -> str:
    """A sentence of what the reader found odd about a DICOM file's header."""
    if kind == "polarity_unclear":
        return "The picture was inverted as its header asks, yet its lungs are bright: is the header right?"
    return f"The DICOM header was not followed in one point: {detail}."


def _check_dicom(path: Path) -> list[str]:
    """Refuse what the header says is no radiograph; note what it leaves open, and another body part."""
    import pydicom  # slow to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that the standard does not allow
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            modality = str(header.get("Modality") or "").strip().upper()
            part = str(header.get("BodyPartExamined") or "").strip().upper()
    except Exception:  # a damaged header raises anything; the decoder says what is wrong
        return []
    if modality not in RADIOGRAPHS | UNSAID:
        raise RefusedError(
            f"The DICOM file says its modality is {modality}; wanted a radiograph's (CR or DX), or none."
        )
    remarks = ["The file does not say that it is a radiograph."] if modality in UNSAID else []
    if part and not {"CHEST", "THORAX"} & set(part.replace("/", " ").replace("_", " ").split()):
        remarks.append(f"The DICOM file says it shows: {part.lower()}, not the chest.")
    return remarks


def _refuse_color(path: Path) -> None:
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16"):
            return
        image.thumbnail((256, 256))
        colors = np.asarray(image.convert("RGB"), np.int16)
    chroma = float((colors.max(axis=2) - colors.min(axis=2)).mean())
    if chroma > GRAY_CHROMA:
        raise RefusedError(_COLOR)


def digest(gray: GrayImage) -> str:
    """Which picture it is, by size and pixels: 128 bits of a hash, as hex."""
    return hashlib.blake2b(f"{gray.shape}".encode() + gray.tobytes(), digest_size=16).hexdigest()


def what_the_model_sees(gray: GrayImage, crop: CenterCrop) -> GrayImage:
    """The center square that preprocessing cuts out, at a size for the screen; black where it is padded.

    Args:
        gray: (height, width), uint8.
        crop: of the model's preprocessing.

    Returns:
        (SHOWN_SIDE, SHOWN_SIDE), uint8.
    """
    height, width = gray.shape
    left, top, right, bottom = crop.box(width, height).in_image()
    # A crop that is larger than the resized image reaches beyond it.
    inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    scale = SHOWN_SIDE / (right - left)
    x, y = round((inside[0] - left) * scale), round((inside[1] - top) * scale)
    size = round((inside[2] - left) * scale) - x, round((inside[3] - top) * scale) - y
    square = Image.new("L", (SHOWN_SIDE, SHOWN_SIDE))
    square.paste(Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC, box=inside), (x, y))
    return np.asarray(square)


def color_heat(heat: npt.NDArray[np.floating[Any]], side: int = SHOWN_SIDE) -> npt.NDArray[np.uint8]:
    """Heat as color whose opacity grows with it, to lie on the gray picture.

    Args:
        heat: (height, width) in 0…1.
        side: of the result in pixels.

    Returns:
        (side, side, 4), uint8, RGBA.
    """
    smooth = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    )
    return _as_bytes(heat_colors(np.clip(smooth, 0, 1)))


def heat_scale() -> npt.NDArray[np.uint8]:
    """(1, 256, 4), RGBA: the colors of `color_heat` for heat of 0…1, from left to right."""
    return _as_bytes(heat_colors(np.linspace(0, 1, 256)[None]))


def _as_bytes(colors: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.rint(colors * 255).astype(np.uint8)


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """The pixels as a PNG inside the page: no file is written."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_tag(pixels: npt.NDArray[np.uint8], alt: str, css_class: str = "") -> str:
    """An <img> that holds its pixels."""
    return f'<img class="{css_class}" alt="{html.escape(alt, quote=True)}" src="{data_uri(pixels)}">'
