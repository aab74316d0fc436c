"""Compressed and deflated DICOM: what is cut short, lies about its size, or inflates too far is refused."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import CHEST, FILM, assert_shown, make_dicom, refusal, write_compressed, write_dicom
from image_files import jpeg, saved
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dataset_scripts.reading.images import read_image

COLOR = np.stack([FILM, FILM[::-1], 255 - FILM], -1)


def with_stream(pixels: np.ndarray, syntax: UID, stream: bytes) -> Dataset:
    """A data set of one compressed picture."""
    dataset = make_dicom(
        pixels, PhotometricInterpretation="MONOCHROME2" if pixels.ndim == 2 else "YBR_FULL_422"
    )
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    return dataset


def compressed(pixels: np.ndarray, syntax: UID, **elements: object) -> Dataset:
    """A data set that pydicom compresses."""
    dataset = make_dicom(pixels, **elements)
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def of_pydicom(name: str) -> Dataset:
    """One of pydicom's test files."""
    return dcmread(str(get_testdata_file(name)))


WHOLE: dict[str, Callable[[], Dataset]] = {
    "jpeg": lambda: with_stream(FILM, JPEGBaseline8Bit, jpeg(FILM)),
    "jpeg, restart markers": lambda: with_stream(
        FILM, JPEGBaseline8Bit, saved(FILM, "JPEG", quality=95, restart_marker_rows=1)
    ),
    "jpeg, color": lambda: with_stream(COLOR, JPEGBaseline8Bit, saved(COLOR, "JPEG", quality=95)),
    "jpeg of dcmtk": lambda: of_pydicom("SC_rgb_jpeg_dcmtk.dcm"),
    "jpeg extended": lambda: of_pydicom("JPGExtended.dcm"),
    "jpeg lossless, color": lambda: of_pydicom("SC_rgb_jpeg_gdcm.dcm"),
    "jpeg-ls": lambda: compressed(CHEST, JPEGLSLossless),
    "jpeg-ls of mr": lambda: of_pydicom("MR_small_jpeg_ls_lossless.dcm"),
    "jpeg 2000": lambda: compressed(CHEST, JPEG2000Lossless),
    "rle": lambda: compressed(CHEST, RLELossless),
}


def cut(dataset: Dataset, share: float, end: bytes) -> None:
    """Keep the first part of the compressed data, and put `end` behind it."""
    fragments = list(generate_fragments(dataset.PixelData))[1:]
    stream = b"".join(fragments)
    marker = stream.rfind(b"\xff\xd9")
    stream = stream[: int(share * (marker if marker > 0 else len(stream)))]
    dataset.PixelData = encapsulate([stream + end])


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["no end marker", "an end marker"])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_picture_is_refused(tmp_path: Path, kind: str, end: bytes) -> None:
    WHOLE[kind]().save_as(tmp_path / "a.dcm", enforce_file_format=True)
    read_image(tmp_path / "a.dcm")
    for share in (0.4, 0.9, 0.99):
        dataset = WHOLE[kind]()
        cut(dataset, share, end)
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        assert refusal(tmp_path / "a.dcm").startswith("truncated: ")


def test_a_picture_cut_within_a_stuffed_byte_is_refused(tmp_path: Path) -> None:
    stream = jpeg(FILM)
    starts = [at for at in range(len(stream) // 2, len(stream) - 8) if stream[at : at + 2] == b"\xff\0"]
    assert starts
    for start in starts[::4]:
        half = stream[: start + 1] + b"\xff\xd9"
        path = write_compressed(tmp_path / "a.dcm", FILM, JPEGBaseline8Bit, [half])
        assert refusal(path).startswith("truncated: ")


def test_a_color_without_its_scan_is_refused(tmp_path: Path) -> None:
    """JPEG-LS may keep each color in a scan of its own."""
    planes = np.moveaxis(COLOR, -1, 0)
    dataset = make_dicom(COLOR, PhotometricInterpretation="RGB", PlanarConfiguration=1)
    dataset.PixelData = planes.tobytes()
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert_shown(tmp_path / "a.dcm", np.asarray(Image.fromarray(COLOR).convert("L")), ("color",))
    stream = b"".join(list(generate_fragments(dataset.PixelData))[1:])
    last_scan = stream.rfind(b"\xff\xda")
    dataset.PixelData = encapsulate([stream[:last_scan] + b"\xff\xd9"])
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert refusal(tmp_path / "a.dcm") == "truncated: 2 of 3 samples of the compressed picture"


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["RG3_JPLL.dcm", "RG3_JLSL.dcm", "RG1_J2KI.dcm"])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["no end marker", "an end marker"])
def test_a_truncated_real_radiograph_is_refused(
    tmp_path: Path, real_dicom: Path, name: str, end: bytes
) -> None:
    for share in (0.4, 0.9, 0.99):
        dataset = dcmread(real_dicom / name)
        cut(dataset, share, end)
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        assert refusal(tmp_path / "a.dcm").startswith("truncated: ")


@pytest.mark.realdata
def test_a_kind_of_jpeg_that_no_package_reads_is_one_sentence(real_dicom: Path) -> None:
    assert refusal(real_dicom / "RG3_JPLY.dcm") == (
        "unsupported_compression: JPEG Extended (Process 2 and 4) of 12 bits "
        "is read by no installed package; pip install python-gdcm"
    )


# --- what a stream says of its size


def test_a_stream_in_boxes_is_read(tmp_path: Path) -> None:
    stream = saved(FILM, "JPEG2000")
    assert stream[4:8] == b"jP  "
    assert_shown(write_compressed(tmp_path / "a.dcm", FILM, JPEG2000, [stream]), FILM)


SMALL = np.zeros((64, 64), np.uint8)


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (JPEG2000, saved(FILM, "JPEG2000")),
        (JPEG2000, saved(FILM, "JPEG2000", no_jp2=True)),
        (JPEGBaseline8Bit, jpeg(FILM)),
        (JPEGBaseline8Bit, b"\xff\xd8\xff\x01" + jpeg(FILM)[2:]),
        (JPEGBaseline8Bit, b"\xff\xd8\xff\xd0\xff\xff" + jpeg(FILM)[3:]),
    ],
)
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, syntax: UID, stream: bytes
) -> None:
    path = write_compressed(tmp_path / "a.dcm", SMALL, syntax, [stream])
    assert refusal(path) == "wrong_size: the compressed picture is 80x96, the header says 64x64"


def test_a_picture_of_more_samples_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write_compressed(tmp_path / "a.dcm", FILM, JPEGBaseline8Bit, [saved(COLOR, "JPEG")])
    wanted = "wrong_size: the compressed picture is 80x96 of 3 samples, the header says 80x96 of 1 samples"
    assert refusal(path) == wanted


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    "stream", [bytes(64), b"\xff\xd8\xff\xf7" + bytes(60) + b"\xff\xd9"], ids=["zeros", "no height"]
)
def test_a_stream_without_a_size_is_refused_before_it_is_decoded(
    tmp_path: Path, syntax: UID, stream: bytes
) -> None:
    path = write_compressed(tmp_path / "a.dcm", FILM, syntax, [stream])
    assert refusal(path) == (
        f"unsupported_compression: {syntax.name}: no header in it says the size of the picture; "
        "if other programs show the file, pip install python-gdcm"
    )


def test_color_is_bounded_by_its_bytes(tmp_path: Path) -> None:
    color = np.broadcast_to(COLOR[:1, :1], (3200, 3200, 3))
    assert refusal(write_dicom(tmp_path / "a.dcm", color, PhotometricInterpretation="RGB")) == (
        "too_many_bytes: 30,720,000 bytes of pixels, at most 30,000,000 of color"
    )


# --- what a deflated data set inflates to


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    head = group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr
    return head + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize("kind", ["usual", "no group length", "a far transfer syntax", "no preamble"])
def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path: Path, kind: str) -> None:
    dataset = make_dicom(FILM)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    content = (tmp_path / "a.dcm").read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    meta = content[144:start]
    if kind == "a far transfer syntax":
        meta = element(2, 1, b"UT", b"")[:6] + b"\0\0" + (1500).to_bytes(4, "little") + bytes(1500) + meta
    length = element(2, 0, b"UL", len(meta).to_bytes(4, "little"))
    before = b"" if kind == "no preamble" else content[:132]
    before += meta if kind == "no group length" else length + meta

    def write(tail: int) -> Path:
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        trailing = b"\xfc\xff\xfc\xffOB\0\0" + tail.to_bytes(4, "little")  # DataSetTrailingPadding
        body = packer.compress(plain + trailing)
        body += b"".join(packer.compress(bytes(1 << 20)) for _ in range(tail >> 20)) + packer.flush()
        (tmp_path / "a.dcm").write_bytes(before + body)
        return tmp_path / "a.dcm"

    assert_shown(write(1 << 20), FILM)
    assert "too_many_bytes: inflates to more than" in refusal(write(130 << 20))
