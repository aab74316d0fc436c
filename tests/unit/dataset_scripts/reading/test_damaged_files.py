"""Whatever is done to a file, it is read as a picture or refused in words: no other exception, no giant."""

import io
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from damage import damage
from dicom_files import lookup_table, make_dicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import exif_directory, jpeg, png_16bit, saved, tiff
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.images import read_image
from dataset_scripts.reading.nifti import axial_slices, read_volume

DEEP = (np.random.default_rng(0).normal(2000, 400, (64, 72)).clip(0, 4095)).astype(np.uint16)
FILM = (DEEP >> 4).astype(np.uint8)
COLOR = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], -1)


def dicom(pixels: np.ndarray, bits: int, syntax: str | None = None, **elements: object) -> bytes:
    dataset = make_dicom(pixels, bits, **elements)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


PICTURES: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(FILM, "PNG"),
    "png, 16 bits": lambda: png_16bit(DEEP),
    "png, 16-bit color": lambda: png_16bit(COLOR),
    "jpeg": lambda: jpeg(FILM, exif_directory(6, 0x9204, 10, b"\x26\0\0\0", bytes(8))),
    "jpeg, color, progressive": lambda: saved((COLOR >> 4).astype(np.uint8), "JPEG", progressive=True),
    "tiff": lambda: tiff(DEEP, 0),
    "tiff, float": lambda: tiff(DEEP.astype(np.float32)),
    "tiff, lzw": lambda: saved(FILM, "TIFF", compression="tiff_lzw"),
    "tiff, jpeg": lambda: saved(FILM, "TIFF", compression="jpeg"),
    "bmp": lambda: saved(FILM, "BMP"),
    "gif": lambda: saved(FILM, "GIF"),
    "webp": lambda: saved(FILM, "WEBP"),
    "jpeg 2000": lambda: saved(DEEP, "JPEG2000"),
    "ppm": lambda: saved((COLOR >> 4).astype(np.uint8), "PPM"),
    "dicom": lambda: dicom(DEEP, 12, WindowCenter=2000, WindowWidth=3000, RescaleIntercept=-9),
    "dicom, tables": lambda: dicom(
        DEEP, 12, ModalityLUTSequence=[lookup_table(np.arange(4096, dtype=np.uint16))],
        VOILUTSequence=[lookup_table(np.arange(4096, dtype=np.uint16) * 16)], PixelPaddingValue=0,
    ),
    "dicom, rle": lambda: dicom(DEEP, 12, RLELossless),
    "dicom, jpeg 2000": lambda: dicom(DEEP, 12, JPEG2000Lossless),
    "dicom, jpeg-ls": lambda: dicom(DEEP, 12, JPEGLSLossless),
    "dicom, color": lambda: dicom((COLOR >> 4).astype(np.uint8), 8, PhotometricInterpretation="RGB"),
}  # fmt: skip


def volume() -> bytes:
    """A NIfTI file."""
    voxels = np.zeros((20, 22, 24), np.int16)
    voxels[4:16, 4:18, 4:20] = np.random.default_rng(0).integers(50, 900, (12, 14, 16))
    return bytes(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes())


@pytest.mark.parametrize("kind", PICTURES)
def test_a_damaged_picture_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    content = PICTURES[kind]()
    (tmp_path / "a").write_bytes(content)
    read_image(tmp_path / "a")

    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        (tmp_path / "a").write_bytes(damage(content, np.random.default_rng(seed)))
        try:
            image = read_image(tmp_path / "a")
        except BadImageError as error:
            assert error.kind and "\n" not in error.detail and str(tmp_path) not in error.detail
        else:
            assert image.dtype == np.uint8 and image.ndim == 2 and image.std() > 0

    check()


@pytest.mark.parametrize("is_gzipped", [False, True])
def test_a_damaged_volume_is_read_or_refused(tmp_path: Path, is_gzipped: bool) -> None:
    import gzip

    content = gzip.compress(volume()) if is_gzipped else volume()
    (tmp_path / "a").write_bytes(content)
    assert list(axial_slices(read_volume(tmp_path / "a"), 4))

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        (tmp_path / "a").write_bytes(damage(content, np.random.default_rng(seed)))
        try:
            slices = list(axial_slices(read_volume(tmp_path / "a"), 4))
        except BadImageError as error:
            assert error.kind and "\n" not in error.detail and str(tmp_path) not in error.detail
        else:
            assert all(image.dtype == np.uint8 and image.ndim == 2 for _, image in slices)

    check()


@pytest.mark.parametrize("kind", PICTURES)
def test_a_header_that_claims_a_giant_takes_little_memory(tmp_path: Path, kind: str) -> None:
    """Numbers in the header are set to 30,000 or more, one after the other."""
    content = PICTURES[kind]()
    rng = np.random.default_rng(0)
    numbers = [b"\x75\x30", b"\x30\x75", b"\x75\x30\x75\x30", b"\xff\xff\xff\x7f"]
    tracemalloc.start()
    try:
        for at in rng.integers(0, min(len(content), 1100), 40):
            number = numbers[rng.integers(4)]
            (tmp_path / "a").write_bytes(content[:at] + number + content[at + len(number) :])
            try:
                read_image(tmp_path / "a")
            except BadImageError:
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000_000


MEASURE = """
import sys
from pathlib import Path
import pydicom.pixels
from dataset_scripts.reading.images import read_image

def most_memory():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

before = most_memory()
shape = read_image(Path(sys.argv[1])).shape
print(shape[0] * shape[1], most_memory() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "megapixels"),
    [
        ("png, 16 bits", 40), ("dicom", 40), ("png, 16-bit color", 20), ("tiff, float", 20),
        ("dicom, color", 10), pytest.param("dicom, color, jpeg", 10, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_largest_pictures_take_under_512_mb(tmp_path: Path, kind: str, megapixels: int) -> None:
    """In a process of its own: the pictures compress to less than a megabyte or so."""
    gray = np.tile(np.arange(8000, dtype=np.uint16) % 4000, (5000, 1))
    if kind == "png, 16 bits":
        (tmp_path / "a").write_bytes(png_16bit(gray))
    elif kind == "dicom":
        make_dicom(gray, 12).save_as(tmp_path / "a", enforce_file_format=True)
    elif kind.startswith("dicom, color"):
        color = np.repeat((gray[:2500, :4000, None] >> 4).astype(np.uint8), 3, 2)
        dataset = make_dicom(color, PhotometricInterpretation="YBR_FULL")
        if kind.endswith("jpeg"):
            dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
            dataset.PhotometricInterpretation = "YBR_FULL_422"
            dataset.PixelData = encapsulate([saved(color, "JPEG", progressive=True)])
            dataset["PixelData"].VR = "OB"
        dataset.save_as(tmp_path / "a", enforce_file_format=True)
    elif kind == "tiff, float":
        (tmp_path / "a").write_bytes(tiff(gray[:2500].astype(np.float32)))
    else:
        (tmp_path / "a").write_bytes(png_16bit(gray[:2500, :, None].repeat(4, 2)))
    root = str(Path(__file__).parents[4])
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "a")],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    pixels, memory = (int(word) for word in result.stdout.split())
    assert pixels == megapixels * 1_000_000
    assert memory < 512_000_000
