"""Headers that claim more rows than the file holds; decoders would fill them in silence."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_dicom, write_dicom
from image_files import jpeg, png_16bit, png_chunk, saved, tiff
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.images import read_image

DEEP = np.random.default_rng(0).normal(2000, 400, (64, 72)).clip(0, 4095).astype(np.uint16)
FILM = (DEEP >> 4).astype(np.uint8)


def refusal(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(BadImageError) as caught:
        read_image(tmp_path / "a")
    return str(caught.value)


@pytest.mark.parametrize("content", [saved(FILM, "PNG"), png_16bit(DEEP)])
def test_png(tmp_path: Path, content: bytes) -> None:
    header = content[12:20] + struct.pack(">I", 94) + content[24:29]
    taller = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    assert refusal(tmp_path, taller) == "truncated: pixels of 68 % of its 94 rows"


@pytest.mark.parametrize("bits", [4, 8])
def test_png_with_an_even_border_is_whole(tmp_path: Path, bits: int) -> None:
    bordered = np.pad(FILM, 20)
    picture = Image.fromarray(bordered >> 4 if bits == 4 else bordered)
    if bits == 4:
        picture.putpalette(np.repeat(np.arange(0, 256, 17, np.uint8), 3).tobytes())
    picture.save(tmp_path / "a.png", bits=bits)
    assert (tmp_path / "a.png").read_bytes()[24] == bits
    assert not read_image(tmp_path / "a.png")[-1].any()


def test_a_png_with_more_data_than_rows_is_inflated_no_further(tmp_path: Path) -> None:
    """Its last row is even, so the data are counted; 128 MB of zeros follow the rows."""
    bordered = np.pad(FILM, 20)
    packer = zlib.compressobj(9)
    data = packer.compress(b"".join(b"\0" + row.tobytes() for row in bordered))
    data += b"".join(packer.compress(bytes(1 << 24)) for _ in range(8)) + packer.flush()
    header = struct.pack(">IIBBBBB", *bordered.shape[::-1], 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in chunks))
    assert np.array_equal(read_image(tmp_path / "a.png"), bordered)


def test_interlaced_png_with_an_even_border_is_whole(tmp_path: Path) -> None:
    """Adam7 by hand: Pillow reads interlaced files and writes none."""
    bordered = np.pad(FILM, 21)
    height, width = bordered.shape
    rows = b""
    for left, top, across, down in [
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ]:  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in bordered[top::down, left::across])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in chunks))
    assert np.array_equal(read_image(tmp_path / "a.png"), bordered)


def test_tiff(tmp_path: Path) -> None:
    taller = tiff(DEEP).replace(struct.pack("<HHII", 257, 4, 1, 64), struct.pack("<HHII", 257, 4, 1, 94))
    assert refusal(tmp_path, taller) == "truncated: 1 of 2 strips"


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(tmp_path: Path, progressive: bool) -> None:
    content = saved(FILM, "JPEG", progressive=progressive)
    start = content.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    taller = content[: start + 5] + struct.pack(">H", 128) + content[start + 7 :]
    assert refusal(tmp_path, taller).startswith("truncated: the last ")


def test_a_jpeg_letterboxed_in_gray_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(np.pad(FILM, 24, constant_values=128)))
    assert read_image(tmp_path / "a.jpg").shape == (112, 120)


def test_jpeg_2000_as_image_and_as_dicom(tmp_path: Path) -> None:
    content = saved(DEEP, "JPEG2000")
    box, stream = content.index(b"ihdr"), content.index(b"\xff\x4f\xff\x51")
    taller = bytearray(content)
    taller[box + 4 : box + 8] = taller[stream + 12 : stream + 16] = struct.pack(">I", 94)
    assert refusal(tmp_path, bytes(taller)) == "truncated: 1 of 2 tiles"
    dataset = make_dicom(DEEP, 12)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.Rows = 94
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    content = (tmp_path / "b.dcm").read_bytes()
    stream = content.index(b"\xff\x4f\xff\x51")
    taller = content[: stream + 12] + struct.pack(">I", 94) + content[stream + 16 :]
    assert refusal(tmp_path, taller) == "truncated: 1 of 2 tiles"


def test_fewer_rows_in_the_header_than_in_the_file_are_noted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", FILM, Rows=44)
    notes: list[str] = []
    assert read_image(path, note=lambda kind, detail: notes.append(f"{kind}: {detail}")).shape == (44, 72)
    assert notes == ["rows_dropped: pixels of 64 rows, the header says 44; the rest is not shown"]


def png_in_chunks(film: np.ndarray, chunk_bytes: int) -> bytes:
    """A PNG whose pixels lie in several IDAT chunks, as most programs write them."""
    content = saved(film, "PNG")
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start], "big")
    data = content[start + 4 : start + 4 + length]
    pieces = [data[at : at + chunk_bytes] for at in range(0, length, chunk_bytes)]
    chunks = b"".join(png_chunk(b"IDAT", piece) for piece in pieces)
    return content[: start - 4] + chunks + content[start + 8 + length :]


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 500])
@pytest.mark.parametrize("kept", [0.3, 0.8, 0.97])
def test_a_png_whose_end_was_never_written(tmp_path: Path, chunk_bytes: int, kept: float) -> None:
    """A download into a file of the full size that broke off: the rest is zeros."""
    content = png_in_chunks(FILM, chunk_bytes)
    (tmp_path / "whole.png").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "whole.png"), FILM)
    start = int(kept * len(content))
    assert refusal(tmp_path, content[:start] + bytes(len(content) - start)).startswith(
        ("undecodable: a chunk of pixels does not match its checksum", "truncated: ")
    )


def test_a_png_cut_between_its_chunks(tmp_path: Path) -> None:
    content = png_in_chunks(FILM, 1 << 20)
    assert refusal(tmp_path, content[:-12]) == "truncated: no IEND chunk"
    assert refusal(tmp_path, content[:-12] + bytes(12)) == "truncated: no IEND chunk"


@pytest.mark.parametrize("is_lossless", [True, False])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.85])
def test_a_webp_whose_end_was_never_written(tmp_path: Path, is_lossless: bool, kept: float) -> None:
    content = saved(FILM, "WEBP", lossless=is_lossless)
    (tmp_path / "whole.webp").write_bytes(content)
    assert np.abs(read_image(tmp_path / "whole.webp").astype(int) - FILM).mean() < 10
    start = int(kept * len(content))
    assert "bytes are 0" in refusal(tmp_path, content[:start] + bytes(len(content) - start))


@pytest.mark.parametrize(("is_lossless", "method"), [(True, 4), (False, 0), (False, 4)])
def test_a_webp_with_an_even_lower_half_is_whole(tmp_path: Path, is_lossless: bool, method: int) -> None:
    film = np.kron(FILM, np.ones((6, 6), np.uint8))
    pixels = np.vstack([film, np.zeros_like(film)])
    (tmp_path / "a.webp").write_bytes(saved(pixels, "WEBP", lossless=is_lossless, method=method))
    assert read_image(tmp_path / "a.webp").shape == pixels.shape


def test_a_gif_that_fills_half_of_its_canvas(tmp_path: Path) -> None:
    content = bytearray(saved(FILM, "GIF"))
    struct.pack_into("<H", content, 8, 128)
    assert refusal(tmp_path, bytes(content)) == "wrong_size: pixels of 72x64 in a picture of 72x128"
