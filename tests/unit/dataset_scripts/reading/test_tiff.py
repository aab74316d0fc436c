"""TIFFs of every layout: read rightly, or refused in words; never garbled, and no missing part filled in."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import jpeg
from PIL import Image

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.images import read_image

ROWS, COLUMNS = np.mgrid[:64, :96]
SHAPE = 0.5 + 0.3 * np.sin(ROWS / 9) + 0.2 * np.cos(COLUMNS / 7)  # in 0…1
FILM = np.rint(SHAPE * 250).astype(np.uint8)
DEEP = np.rint(SHAPE * 60_000 + 1000).astype(np.uint16)

Tags = dict[int, tuple[str, list[int] | bytes]]  # a struct code and values


def tiff(parts: list[bytes], tags: Tags, order: str = "<") -> bytes:
    """A TIFF of one picture: parts, then tags; offsets and sizes of the parts are filled in where absent."""
    is_tiled = 322 in tags
    starts = list(np.cumsum([8] + [len(part) for part in parts])[:-1])
    own: Tags = {
        324 if is_tiled else 273: ("I", [int(start) for start in starts]),
        325 if is_tiled else 279: ("I", [len(part) for part in parts]),
    }
    own |= tags
    content = b"".join(parts)
    directory, lists, after = b"", b"", 8 + len(content) + 2 + 12 * len(own) + 4
    for tag, (code, values) in sorted(own.items()):
        count = len(values)
        packed = values if isinstance(values, bytes) else struct.pack(order + code * count, *values)
        if len(packed) > 4:
            lists, packed = lists + packed, struct.pack(order + "I", after + len(lists))
        kind = {"s": 2, "H": 3, "I": 4}[code]
        directory += struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8 + len(content))
    return start + content + struct.pack(order + "H", len(own)) + directory + bytes(4) + lists


def described(pixels: np.ndarray, **changed: tuple[str, list[int]]) -> Tags:
    """The tags of pixels (height, width) or (height, width, samples)."""
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags: Tags = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [8 * pixels.itemsize] * samples),
        259: ("H", [1]), 262: ("H", [1 if samples == 1 else 2]), 277: ("H", [samples]),
        339: ("H", [kind] * samples),
    }  # fmt: skip
    return tags | {int(name[1:]): value for name, value in changed.items()}


def in_strips(pixels: np.ndarray, rows: int, order: str = "<") -> list[bytes]:
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    return [pixels[top : top + rows].tobytes() for top in range(0, len(pixels), rows)]


def in_tiles(pixels: np.ndarray, side: int, order: str = "<") -> list[bytes]:
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    height, width = pixels.shape[:2]
    return [
        pixels[top : top + side, left : left + side].tobytes()
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


TILED = {322: ("I", [32]), 323: ("I", [32])}
STRIPS = {278: ("I", [16])}
PLANES = {284: ("H", [2])}


def read(tmp_path: Path, content: bytes) -> np.ndarray:
    (tmp_path / "a.tif").write_bytes(content)
    return read_image(tmp_path / "a.tif")


def refusal(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        read(tmp_path, content)
    return str(caught.value)


def stretched(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values[np.isfinite(values)], (0.1, 99.9))
    return np.clip((values - low) / (high - low), 0, 1) * 255


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_tiled", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_strips_and_tiles_of_16_bits(tmp_path: Path, samples: int, is_tiled: bool, order: str) -> None:
    pixels = DEEP if samples == 1 else np.stack([DEEP] * 3, -1)
    parts = in_tiles(pixels, 32, order) if is_tiled else in_strips(pixels, 16, order)
    content = tiff(parts, described(pixels) | (TILED if is_tiled else STRIPS), order)
    assert np.abs(read(tmp_path, content) - stretched(DEEP)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_tiled", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_planes_of_16_bits_are_refused(tmp_path: Path, samples: int, is_tiled: bool, order: str) -> None:
    """Pillow reads them as planes of 8 bits: noise that looks like none of the film."""
    pixels = DEEP if samples == 1 else np.stack([DEEP] * 3, -1)
    plane = in_tiles(DEEP, 32, order) if is_tiled else in_strips(DEEP, 16, order)
    tags = described(pixels) | PLANES | (TILED if is_tiled else STRIPS)
    said = refusal(tmp_path, tiff(plane * samples, tags, order))
    assert said.startswith(
        f"unsupported_depth: a TIFF of unsigned samples of 16 bits, {samples} a pixel in sep"
    )
    assert said.endswith("save it as 8- or 16-bit PNG")


def test_planes_of_8_bits(tmp_path: Path) -> None:
    tags = described(np.stack([FILM] * 3, -1)) | PLANES | STRIPS
    assert np.array_equal(read(tmp_path, tiff(in_strips(FILM, 16) * 3, tags)), FILM)


def test_uncompressed_ycbcr_and_16_bit_cmyk_are_refused(tmp_path: Path) -> None:
    gray = np.stack([FILM, np.full_like(FILM, 128), np.full_like(FILM, 128)], -1)
    content = tiff([gray.tobytes()], described(gray, _262=("H", [6]), _530=("H", [1, 1])))
    assert refusal(tmp_path, content).startswith("unsupported_depth: ")
    cmyk = np.stack([65_535 - DEEP] * 3 + [np.zeros_like(DEEP)], -1)
    content = tiff([cmyk.tobytes()], described(cmyk, _262=("H", [5])))
    assert refusal(tmp_path, content).startswith("unsupported_depth: ")


def test_signed_8_bits(tmp_path: Path) -> None:
    signed = (FILM.astype(int) - 128).astype(np.int8)
    assert np.array_equal(read(tmp_path, tiff([signed.tobytes()], described(signed))), FILM)


def test_unsigned_32_bits_above_half_of_their_range(tmp_path: Path) -> None:
    large = DEEP.astype(np.uint32) * 65_000
    assert large.max() > 2**31
    image = read(tmp_path, tiff([large.tobytes()], described(large)))
    assert np.abs(image - stretched(DEEP)).max() <= 1


@pytest.mark.parametrize(
    ("stored", "nodata"),
    [
        (lambda: FILM, 255),
        (lambda: (FILM.astype(int) - 128).astype(np.int8), -128),
        (lambda: DEEP, 65_535),
        (lambda: (DEEP.astype(int) - 31_000).astype(np.int16), -32_768),
        (lambda: (DEEP.astype(int) - 31_000).astype(np.int32), -99_999),
        (lambda: DEEP.astype(np.uint32) * 65_000, 2**32 - 1),
        (lambda: DEEP.astype(np.float32), -9999.1),
    ],
    ids=["uint8", "int8", "uint16", "int16", "int32", "uint32", "float32"],
)
def test_a_value_that_means_no_data_becomes_black(
    tmp_path: Path, stored: Callable[[], np.ndarray], nodata: float
) -> None:
    """GDAL's tag 42113 names it; it has no part in the window."""
    pixels = stored().copy()
    pixels[:20] = nodata
    shown = FILM[20:] if pixels.itemsize == 1 else stretched(DEEP[20:])
    tags = described(pixels) | {42113: ("s", f"{nodata}".encode() + b"\0")}
    image = read(tmp_path, tiff([pixels.tobytes()], tags))
    assert not image[:20].any()
    assert np.abs(image[20:] - shown).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_no_data_is_black_where_white_is_zero(tmp_path: Path, dtype: type) -> None:
    pixels = DEEP.astype(dtype)
    pixels[:20] = 0
    tags = described(pixels, _262=("H", [0])) | {42113: ("s", b"0\0")}
    image = read(tmp_path, tiff([pixels.tobytes()], tags))
    assert not image[:20].any()
    assert np.abs(image[20:] - (255 - stretched(DEEP[20:]))).max() <= 1


def test_all_of_it_no_data_shows_nothing(tmp_path: Path) -> None:
    for dtype in (np.uint16, np.float32):
        pixels = np.full((64, 96), 7, dtype)
        tags = described(pixels) | {42113: ("s", b"7\0")}
        assert refusal(tmp_path, tiff([pixels.tobytes()], tags)).startswith("shows_nothing: ")


@pytest.mark.parametrize("nothing", [-3e38, 3.4e38, 1.2e30, np.inf, -np.inf, np.nan])
def test_floats_that_mean_nothing_become_black(tmp_path: Path, nothing: float) -> None:
    pixels = SHAPE.astype(np.float32)
    pixels[:20] = nothing
    image = read(tmp_path, tiff([pixels.tobytes()], described(pixels)))
    assert not image[:20].any()
    assert np.abs(image[20:] - stretched(SHAPE[20:])).max() <= 1


def test_a_window_torn_open_by_a_value_without_a_tag_is_refused(tmp_path: Path) -> None:
    pixels = SHAPE.astype(np.float32)
    pixels[:20] = -9999
    assert refusal(tmp_path, tiff([pixels.tobytes()], described(pixels))).startswith("shows_nothing: ")


@pytest.mark.parametrize("is_tiled", [False, True])
@pytest.mark.parametrize("missing", ["offsets", "sizes", "both", "short", "fewer"])
def test_missing_parts_are_not_filled_in(tmp_path: Path, is_tiled: bool, missing: str) -> None:
    """Half of the strips or tiles: sparse files have zeros for them, cut ones shorter lists."""
    parts = in_tiles(DEEP, 32) if is_tiled else in_strips(DEEP, 16)
    tags = described(DEEP) | (TILED if is_tiled else STRIPS)
    half, name = len(parts) // 2, "tiles" if is_tiled else "strips"
    starts = [8 + sum(len(part) for part in parts[:index]) for index in range(len(parts))]
    sizes = [len(part) for part in parts]
    if missing in ("offsets", "both"):
        starts[half:] = [0] * (len(parts) - half)
    if missing in ("sizes", "both", "short"):
        sizes[half:] = [100 if missing == "short" else 0] * (len(parts) - half)
    if missing == "fewer":
        starts, sizes = starts[:half], sizes[:half]
    tags |= {324 if is_tiled else 273: ("I", starts), 325 if is_tiled else 279: ("I", sizes)}
    said = refusal(tmp_path, tiff(parts, tags))
    assert said.startswith(f"truncated: {half} of {len(parts)} {name}")


def test_a_writer_that_leaves_out_all_sizes(tmp_path: Path) -> None:
    tags = described(DEEP) | STRIPS | {279: ("I", [0] * 4)}
    assert np.abs(read(tmp_path, tiff(in_strips(DEEP, 16), tags)) - stretched(DEEP)).max() <= 1


@pytest.mark.parametrize("is_tiled", [False, True])
def test_jpeg_parts(tmp_path: Path, is_tiled: bool) -> None:
    """Whole, of fewer rows than their place has, and of which the end was never written."""
    side = 32
    parts = [
        jpeg(FILM[top : top + side, left : left + (side if is_tiled else 96)])
        for top in range(0, 64, side)
        for left in (range(0, 96, side) if is_tiled else [0])
    ]
    tags = described(FILM, _259=("H", [7])) | (TILED if is_tiled else {278: ("I", [side])})
    assert np.abs(read(tmp_path, tiff(parts, tags)).astype(int) - FILM).max() <= 6
    name = "tiles" if is_tiled else "strips"
    last = [jpeg(FILM[:20, : side if is_tiled else 96])]
    assert refusal(tmp_path, tiff(parts[:-1] + last, tags)).startswith(f"truncated: JPEG {name} of ")
    last = [parts[-1][:-80] + bytes(80)]
    assert refusal(tmp_path, tiff(parts[:-1] + last, tags)) == f"truncated: JPEG {name} without an end"


def test_a_jpeg_strip_that_is_lower_than_its_picture(tmp_path: Path) -> None:
    tags = described(FILM, _259=("H", [7])) | {257: ("I", [100]), 278: ("I", [100])}
    said = refusal(tmp_path, tiff([jpeg(FILM)], tags))
    assert said == "truncated: JPEG strips of 96x64, wanted 96x100"


def test_what_pillow_does_not_open_is_named(tmp_path: Path) -> None:
    double = SHAPE.astype(np.float64)
    said = refusal(tmp_path, tiff([double.tobytes()], described(double)))
    assert said.startswith("unsupported_depth: a TIFF of floating-point samples of 64 bits, 1 a pixel, ")
    said = refusal(tmp_path, tiff([bytes(99)], described(FILM, _259=("H", [34712]))))
    assert said == "unsupported_compression: a TIFF of compression 34712; save it as 8- or 16-bit PNG"
    content = tiff([FILM.tobytes()], described(FILM))
    assert refusal(tmp_path, content[: 8 + FILM.size + 40]).startswith(("truncated: ", "undecodable: "))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_files_of_pillow_are_read(tmp_path: Path, compression: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(FILM).save(buffer, "TIFF", compression=compression)
    assert np.abs(read(tmp_path, buffer.getvalue()).astype(int) - FILM).max() <= 12


def test_jpeg_tables_of_which_the_end_was_never_written(tmp_path: Path) -> None:
    """With half of its quantization table zeros, the film decodes to another picture."""
    buffer = io.BytesIO()
    Image.fromarray(FILM).save(buffer, "TIFF", compression="jpeg")
    content = buffer.getvalue()
    start = content.index(b"\xff\xd8\xff\xdb\x00\x43")
    end = content.index(b"\xff\xd9", start) + 2
    middle = start + 20
    cut = content[:middle] + bytes(end - middle) + content[end:]
    assert refusal(tmp_path, cut) == "truncated: JPEG tables without an end"
