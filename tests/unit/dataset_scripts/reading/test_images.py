"""Image files as they should be seen: modes, depth, orientation, and what is no picture."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_files import write_dicom
from image_files import exif_directory, jpeg, png_16bit, tiff
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tvf

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.decoding import decoding
from dataset_scripts.reading.grayscale import encode_png, resize_shorter_side
from dataset_scripts.reading.images import read_image, read_mask
from medhiera.data.preprocessing import CenterCrop

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_every_mode_of_a_gray_picture_reads_the_same(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RAMP).convert(mode).save(path)
    assert np.abs(read_image(path).astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("mode", ["uint8", "uint16", "int32", "float32"])
def test_a_mask_has_the_values_that_are_stored(tmp_path: Path, mode: str) -> None:
    labels = (RAMP // 100).astype(mode)  # 0, 1 and 2
    stored = labels.copy()
    if mode == "float32":
        labels[0], stored[0] = 0, np.nan
    Image.fromarray(stored).save(tmp_path / "mask.tif")
    assert np.array_equal(read_mask(tmp_path / "mask.tif"), labels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_windowed_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.linspace(1000, 5000, 64 * 48).reshape(48, 64).astype(np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(deep).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert len(np.unique(image)) == 256
    expected = (deep - 1000.0) / 4000 * 255
    assert np.abs(image - expected).max() < 2


def test_one_hot_pixel_does_not_darken_the_picture(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(5000, 500, (100, 100)).astype(np.uint16)
    values[3, 3] = 60_000
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.median(read_image(tmp_path / "a.png")) > 100


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(RAMP).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    assert read_image(tmp_path / "phone.jpg").shape == (64, 48)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path: Path) -> None:
    big = np.asarray(Image.fromarray(RAMP).resize((1600, 1200), Image.Resampling.BICUBIC))
    Image.fromarray(big).save(tmp_path / "big.jpg", quality=95)
    quick = resize_shorter_side(read_image(tmp_path / "big.jpg", 100), 100)
    whole = resize_shorter_side(read_image(tmp_path / "big.jpg"), 100)
    assert read_image(tmp_path / "big.jpg", 100).shape < (1200, 1600)
    assert quick.shape == whole.shape == (100, 133)
    assert np.abs(quick.astype(int) - whole).max() <= 3


def test_resizing_never_enlarges_and_never_undershoots() -> None:
    assert resize_shorter_side(RAMP, 100) is RAMP
    assert resize_shorter_side(RAMP, 0) is RAMP
    assert resize_shorter_side(np.zeros((300, 1000), np.uint8), 256).shape == (256, 853)


def test_a_stored_image_has_the_size_that_torchvision_and_the_published_processor_make(
    tmp_path: Path,
) -> None:
    """So a center crop of it has its corner where theirs has."""
    rng = np.random.default_rng(0)
    for height, width in rng.integers(257, 700, (40, 2)).tolist():
        stored = resize_shorter_side(np.zeros((height, width), np.uint8), 256)
        theirs = tvf.resize(torch.zeros(1, height, width, dtype=torch.uint8), [256])
        assert stored.shape == tuple(theirs.shape[1:]), (height, width)
        Image.fromarray(np.zeros((4 * height, 4 * width), np.uint8)[:-3, :-1]).save(tmp_path / "large.jpg")
        large = resize_shorter_side(read_image(tmp_path / "large.jpg", 256, needs_contrast=False), 256)
        theirs = tvf.resize(torch.zeros(1, 4 * height - 3, 4 * width - 1, dtype=torch.uint8), [256])
        assert large.shape == tuple(theirs.shape[1:]), (height, width)
        whole, kept = (CenterCrop(256, 224).box(w, h) for h, w in ((height, width), stored.shape))
        assert (whole.left, whole.top) == (kept.left, kept.top)


@pytest.mark.parametrize("compression", ["fast", "none"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 40), (300, 257)])
def test_png_bytes_carry_pixels_and_nothing_else(compression: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels, compression))) as image:
        assert (image.mode, image.info) == ("L", {})
        assert np.array_equal(np.asarray(image), pixels)


def test_fast_compression_pays_on_smooth_pictures() -> None:
    smooth = np.asarray(Image.fromarray(RAMP).resize((256, 256), Image.Resampling.BICUBIC))
    assert len(encode_png(smooth, "fast")) < smooth.size / 2
    assert smooth.size < len(encode_png(smooth, "none")) < smooth.size * 1.02


DEEP = np.tile(np.linspace(1000, 5000, 96 * 80).reshape(96, 80), (1, 1)).astype(np.uint16)
ALPHA = np.full((96, 80, 1), 65535, np.uint16)
SHOWN = (DEEP - 1000.0) / 4000 * 255


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "LA"])
def test_16_bit_color_is_windowed_not_cut_to_its_first_byte(tmp_path: Path, kind: str) -> None:
    layers = {
        "RGB": [DEEP[..., None]] * 3,
        "RGBA": [DEEP[..., None]] * 3 + [ALPHA],
        "LA": [DEEP[..., None], ALPHA],
    }
    pixels = np.concatenate(layers[kind], -1)
    assert np.abs(read_image(written(tmp_path, "a.png", png_16bit(pixels))) - SHOWN).max() < 2
    if kind == "RGB":
        for order in "<>":
            path = written(tmp_path, "a.tif", tiff(pixels, 2, order))
            assert np.abs(read_image(path) - SHOWN).max() < 2
            with Image.open(path) as image:
                image.save(tmp_path / "packed.tif", compression="tiff_lzw")


def test_16_bit_color_is_luminance(tmp_path: Path) -> None:
    color = np.random.default_rng(0).integers(0, 65536, (96, 80, 3), np.uint16)
    luminance = color @ np.array([0.299, 0.587, 0.114])
    low, high = np.percentile(luminance, (0.1, 99.9))
    shown = read_image(written(tmp_path, "a.png", png_16bit(color)))
    assert np.abs(shown - np.clip((luminance - low) / (high - low), 0, 1) * 255).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_of_every_depth_and_both_polarities(tmp_path: Path, dtype: type, photometric: int) -> None:
    pixels = (DEEP // 20 if dtype == np.uint8 else DEEP).astype(dtype)
    path = written(tmp_path, "a.tif", tiff(pixels, photometric))
    if photometric == 0 and dtype in (np.int16, np.uint32, np.int32):  # Pillow has no such mode
        with pytest.raises(
            BadImageError, match="unsupported_depth: a TIFF of .* save it as 8- or 16-bit PNG"
        ):
            read_image(path)
        return
    image = read_image(path)
    shown = DEEP // 20 if dtype == np.uint8 else SHOWN
    assert np.abs(image - (255.0 - shown if photometric == 0 else shown)).max() < 2


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e26])
def test_float_tiff_of_any_scale_and_with_nan(tmp_path: Path, scale: float) -> None:
    pixels = (DEEP * scale).astype(np.float32)
    pixels[0, :5] = np.nan, np.inf, -np.inf, -3.4e38, 3.4e38
    image = read_image(written(tmp_path, "a.tif", tiff(pixels)))
    assert np.abs(image - SHOWN)[1:].max() < 2
    assert not image[0, :5].any()


def test_float_tiff_of_negative_values(tmp_path: Path) -> None:
    image = read_image(written(tmp_path, "a.tif", tiff(-DEEP.astype(np.float32))))
    assert np.abs(image - (255 - SHOWN)).max() < 2


def test_a_file_of_several_pictures_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(RAMP, shift, 1)) for shift in (0, 9, 20)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    written(tmp_path, "a.tif", tiff(DEEP, pages=3))
    for name in ("a.gif", "a.webp", "a.tif"):
        with pytest.raises(BadImageError, match="several_frames: 3 pictures in one"):
            read_image(tmp_path / name)


def test_a_tiff_with_a_preview_is_read(tmp_path: Path) -> None:
    preview = Image.fromarray(RAMP).resize((20, 16))
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(RAMP).save(tmp_path / "a.tif", save_all=True, append_images=[preview])
    assert np.array_equal(read_image(tmp_path / "a.tif"), RAMP)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_every_orientation_as_pillow_turns_it(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.minimum(RAMP, np.arange(0, 240, 5, np.uint8)[:, None]))
    picture.save(tmp_path / f"a.{suffix}", exif=exif)
    # Opened by its name, Pillow 12.3 maps an uncompressed TIFF into memory and garbles what it turns.
    with (tmp_path / f"a.{suffix}").open("rb") as file, Image.open(file) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), upright)


@pytest.mark.parametrize(
    "field",
    [
        (0x9204, 10, struct.pack("<I", 38), struct.pack("<ii", -1, 0)),  # a signed rational of -1/0
        (0x011A, 11, struct.pack("<f", float("nan")), b""),
        (0x8769, 4, struct.pack("<I", 2**31), b""),  # a directory beyond the file's end
    ],
)
def test_exif_that_cannot_be_written_back_is_turned_all_the_same(tmp_path: Path, field: tuple) -> None:
    film = np.asarray(Image.fromarray(RAMP).resize((80, 96)))
    path = written(tmp_path, "a.jpg", jpeg(film, exif_directory(6, *field)))
    assert np.abs(read_image(path).astype(int) - np.rot90(film, -1)).max() <= 8


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((64, 64), 0, np.uint8),
        np.full((64, 64), 255, np.uint8),
        np.full((64, 64), 1234, np.uint16),
        (1234 + np.arange(4096).reshape(64, 64) % 3).astype(np.uint16),
        (120 + np.arange(4096).reshape(64, 64) % 3).astype(np.uint8),
        np.where(np.arange(4096).reshape(64, 64) < 20, 255, 3).astype(np.uint8),
        (30_000 + np.random.default_rng(0).integers(-20, 21, (64, 64))).astype(np.uint16),
        np.where(np.arange(4096).reshape(64, 64) < 2048, 0, 128).astype(np.uint8),
        np.pad(np.full((48, 48), 90, np.uint8), 8),
        (np.arange(4096).reshape(64, 64) % 4 + np.pad(np.full((48, 48), 90), 8)).astype(np.uint8),
    ],
)
def test_a_picture_that_shows_nothing_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_dicom(tmp_path / "a.dcm", pixels)
    written(tmp_path, "a.tif", tiff(pixels.astype(np.float32) if pixels[0, 0] == pixels[1, 1] else pixels))
    for name in ("a.png", "a.dcm", "a.tif"):
        with pytest.raises(BadImageError, match="shows_nothing"):
            read_image(tmp_path / name)


def test_a_strip_is_refused_by_its_header(tmp_path: Path) -> None:
    Image.fromarray(np.tile(RAMP[0, :16], (200_000, 1))).save(tmp_path / "strip.png")
    write_dicom(tmp_path / "strip.dcm", np.tile(RAMP[0, :16], (20_000, 1)))
    for name in ("strip.png", "strip.dcm"):
        with pytest.raises(BadImageError, match="too_long: 16x"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_a_jpeg_that_ends_early_behind_an_end_marker(tmp_path: Path, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    content = jpeg(noise)
    cut = content[: int(keep * len(content))].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(BadImageError, match="truncated"):
        read_image(written(tmp_path, "a.jpg", cut))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif", "jp2", "ppm", "webp"])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    for keep in (0.02, 0.4, 0.8):
        with pytest.raises(BadImageError):
            read_image(written(tmp_path, f"b.{suffix}", content[: int(keep * len(content))]))


def test_a_postscript_program_under_an_image_name_is_not_run(tmp_path: Path) -> None:
    program = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n("
        + b"%s/ran" % bytes(tmp_path)
        + b") (w) file\n"
    )
    with pytest.raises(BadImageError, match="not_an_image"):
        read_image(written(tmp_path, "x.png", program))
    assert not (tmp_path / "ran").exists()


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(BadImageError, match="not_an_image: a folder"):
        read_image(tmp_path / "a.png")


class Panic(BaseException):
    """What a decoder written in Rust raises."""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (PermissionError(13, "no"), "no_permission: the file may not be read"),
        (FileNotFoundError(2, "no"), "absent: no such file"),
        (MemoryError(), "undecodable: MemoryError: no reason given"),
        (
            OverflowError("int too large\n  to convert"),
            "undecodable: OverflowError: int too large to convert",
        ),
        (struct.error("in /data/a.png"), "undecodable: error: in a.png"),
        (RecursionError("deep"), "undecodable: RecursionError: deep"),
        (EOFError("short"), "truncated: EOFError: short"),
        (UserWarning("an error by a filter"), "undecodable: UserWarning: an error by a filter"),
        (Panic("index out of bounds"), "undecodable: Panic: index out of bounds"),
    ],
)
def test_whatever_a_decoder_raises_becomes_one_line(raised: BaseException, said: str) -> None:
    with pytest.raises(BadImageError) as caught, decoding(Path("/data/a.png")):
        raise raised
    assert str(caught.value) == said


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_program_is_let_through(raised: BaseException) -> None:
    with pytest.raises(type(raised)), decoding(Path("a.png")):
        raise raised


def test_a_file_larger_than_any_radiograph_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    os.truncate(tmp_path / "a.png", 150_000_001)  # sparse: it takes no room
    with pytest.raises(BadImageError, match="too_many_bytes"):
        read_image(tmp_path / "a.png")
