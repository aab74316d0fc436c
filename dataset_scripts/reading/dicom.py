"""One DICOM file → one 8-bit grayscale array, as a viewer would show it.

Raw file → `images.read_image` → here. Needs the extra `medhiera[dicom]` (pydicom).

The order is the standard's (PS3.4, grayscale transformation sequence): modality transform (rescale), then the
value-of-interest window, then inversion where low values are meant to be white (MONOCHROME1).
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.grayscale import GrayImage, check_size, window_to_8bit
from dataset_scripts.reading.image_files import has_bare_dicom, read_head


def read_dicom(path: Path) -> GrayImage:
    """Decode a single-frame DICOM file.

    The first window the file names is used; without one, robust percentiles of the pixels that are not
    padding. Color becomes luminance.

    Returns:
        (height, width), uint8.

    Raises:
        BadImageError: no DICOM file, no pixels, several frames, or a compression nobody here can undo.
    """
    import pydicom  # an optional extra, and slow to import
    from pydicom.errors import InvalidDicomError

    try:
        is_bare = has_bare_dicom(read_head(path))  # without the preamble pydicom must be told so
        dataset = pydicom.dcmread(path, force=is_bare)
        if is_bare and "TransferSyntaxUID" not in dataset.file_meta:
            is_implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = (
                "1.2.840.10008.1.2" if is_implicit else "1.2.840.10008.1.2.1"
            )
        if "PixelData" not in dataset:
            raise BadImageError("no_pixels", "a DICOM file without pixel data")
        check_size(int(dataset.Columns), int(dataset.Rows))
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise BadImageError("several_frames", f"{dataset.NumberOfFrames} frames, wanted one")
        return _render(dataset)
    except InvalidDicomError as error:
        raise BadImageError("not_an_image", "no DICOM header") from error
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise BadImageError("undecodable", f"a DICOM element is missing or wrong: {error}") from error
    except (NotImplementedError, RuntimeError) as error:
        raise BadImageError("unsupported_compression", str(error).split("\n")[0]) from error


def _render(dataset: Any) -> GrayImage:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    stored = dataset.pixel_array
    if stored.ndim == 3:  # color: rows, columns, samples
        return np.rint(stored[..., :3] @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    values = np.asarray(apply_modality_lut(stored, dataset), np.float32)
    if dataset.get("VOILUTSequence"):
        entries = dataset.VOILUTSequence[0]
        top = float(2 ** int(entries.LUTDescriptor[2]) - 1)
        shown = np.asarray(apply_voi_lut(stored, dataset, prefer_lut=True), np.float32) * (255.0 / top)
        image = np.rint(np.clip(shown, 0, 255)).astype(np.uint8)
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        image = _apply_window(values, dataset)
    else:
        padding = dataset.get("PixelPaddingValue")
        is_picture = np.ones(stored.shape, bool) if padding is None else stored != padding
        image = window_to_8bit(values, is_picture if is_picture.any() else None)
    return np.asarray(255 - image if dataset.PhotometricInterpretation == "MONOCHROME1" else image)


def _apply_window(values: npt.NDArray[np.float32], dataset: Any) -> GrayImage:
    """Apply the first window, PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(-4 * (values - center) / max(width, 1e-6)))
    elif function == "LINEAR_EXACT":
        share = (values - center) / max(width, 1e-6) + 0.5
    else:
        share = (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _first(value: Any) -> float:
    return float(value[0]) if hasattr(value, "__len__") and not isinstance(value, str) else float(value)
