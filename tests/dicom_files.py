"""Writes DICOM files for tests."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.images import read_image


def make_dicom(pixels: np.ndarray, bits: int = 0, **elements: object) -> FileDataset:
    """A data set of one picture.

    Args:
        pixels: (rows, columns) or (rows, columns, 3).
        bits: BitsStored; all that are allocated if 0.
        elements: set as they are; a pair is (VR, value).
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if isinstance(value, tuple):
            setattr(dataset, name, value[1])
            dataset[name].VR = value[0]
        else:
            setattr(dataset, name, value)
    return dataset


def write_dicom(path: Path, pixels: np.ndarray, bits: int = 0, **elements: object) -> Path:
    """Write the data set of `make_dicom` and return its path."""
    make_dicom(pixels, bits, **elements).save_as(path, enforce_file_format=True)
    return path


def write_compressed(path: Path, pixels: np.ndarray, syntax: UID, frames: list[bytes]) -> Path:
    """Write compressed frames under the header of `pixels`, whatever they hold."""
    dataset = make_dicom(pixels)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def lookup_table(entries: np.ndarray, first: int = 0, bits: int = 16, vr: str = "US") -> Dataset:
    """An item of a modality or VOI LUT sequence; 8-bit entries are packed two to a word."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = vr
    item.LUTData = entries.tobytes()
    item["LUTData"].VR = "OW"
    return item


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
