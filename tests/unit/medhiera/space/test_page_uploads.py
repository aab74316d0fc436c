"""What people drop on the page: read rightly, or refused in one sentence."""

import struct

import numpy as np
import pytest
from page_fixtures import phantom, photograph, write_dicom
from PIL import Image
from transformers import BitImageProcessor

from medhiera.inference.classifier import StockPreprocessing
from medhiera.space.pictures import WHAT_IS_CHECKED, RefusedError, read_upload, what_the_model_sees

GRAY = phantom()


def check_sentence(error):
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "/" not in sentence


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_gray_picture_in_any_mode(tmp_path, mode):
    Image.fromarray(GRAY).convert(mode).save(tmp_path / "chest.png")
    assert np.abs(read_upload(tmp_path / "chest.png").gray.astype(int) - GRAY).max() <= 1


def test_a_jpeg(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "chest.jpg", quality=95)
    assert np.abs(read_upload(tmp_path / "chest.jpg").gray.astype(int) - GRAY).mean() < 3


def test_sixteen_bits_look_like_eight(tmp_path):
    Image.fromarray(GRAY.astype(np.uint16) * 16 + 700).save(tmp_path / "deep.png")
    found = read_upload(tmp_path / "deep.png").gray
    assert np.corrcoef(found.ravel(), GRAY.ravel())[0, 1] > 0.999
    assert np.ptp(found) == 255


@pytest.mark.parametrize("name", ["chest.dcm", "IM0001"])
def test_monochrome1_is_the_same_chest(tmp_path, name):
    deep = GRAY.astype(np.uint16) * 16
    write_dicom(tmp_path / name, deep, WindowCenter=2040, WindowWidth=4080)
    plain = read_upload(tmp_path / name).gray
    assert np.abs(plain.astype(int) - GRAY).max() <= 2
    (tmp_path / "other").mkdir()
    inverted = (4080 - deep).astype(np.uint16)
    write_dicom(tmp_path / "other" / name, inverted, WindowCenter=2040, WindowWidth=4080,
                PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    assert np.abs(read_upload(tmp_path / "other" / name).gray.astype(int) - plain).max() <= 2


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (photograph(), "color picture"),
        (Image.fromarray(np.hstack([GRAY] * 3)), "more than twice the other"),
        (Image.fromarray(np.full((90, 90), 128, np.uint8)), "one brightness"),
        (Image.fromarray(GRAY[:9, :9]), "too small"),
    ],
)
def test_what_cannot_be_a_chest(tmp_path, picture, wanted):
    picture.save(tmp_path / "a.png")
    with pytest.raises(RefusedError, match=wanted) as error:
        read_upload(tmp_path / "a.png")
    check_sentence(error)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "empty"),
        (b"a letter, not a picture", "no image"),
        (b"\0" * 128 + b"DICM" + b"\1" * 40, "DICOM|damaged"),
    ],
)
def test_what_is_no_image(tmp_path, content, wanted):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(RefusedError, match=wanted) as error:
        read_upload(tmp_path / "a.png")
    check_sentence(error)


def test_several_pictures_in_a_file_that_is_no_dicom(tmp_path):
    pages = [Image.fromarray(np.roll(GRAY, shift, 1)) for shift in (0, 9)]
    for name, format_name in [("a.tif", "TIFF"), ("a.gif", "GIF")]:
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(RefusedError) as error:
            read_upload(tmp_path / name)
        assert str(error.value) == (
            f"This file holds several pictures (2 pictures in one {format_name} file, wanted one); "
            "save one of them alone."
        )


def double_tiff():
    """A TIFF of 64-bit floats, by hand: one strip behind its tags."""
    height, width = GRAY.shape
    tags = [(256, width), (257, height), (258, 64), (259, 1), (262, 1), (273, 122), (277, 1), (278, height),
            (339, 3)]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + struct.pack("<I", 0)
    return header + GRAY.astype(np.float64).tobytes()


def test_a_file_that_is_whole_is_not_called_damaged(tmp_path):
    (tmp_path / "a.tif").write_bytes(double_tiff())
    with pytest.raises(RefusedError, match=r"of 64 bits.* save it as 8- or 16-bit PNG\)\.$") as error:
        read_upload(tmp_path / "a.tif")
    check_sentence(error)


def test_a_file_whose_end_was_never_written(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:-300] + bytes(300))
    with pytest.raises(RefusedError, match="A part of the picture is missing|damaged") as error:
        read_upload(tmp_path / "a.png")
    check_sentence(error)


def test_dicom_that_is_no_radiograph(tmp_path):
    write_dicom(tmp_path / "a.dcm", GRAY, Modality="MR")
    with pytest.raises(RefusedError, match="modality is MR") as error:
        read_upload(tmp_path / "a.dcm")
    check_sentence(error)
    write_dicom(tmp_path / "b.dcm", GRAY, BodyPartExamined="HAND")
    assert read_upload(tmp_path / "b.dcm").notes == ("The DICOM file says it shows: hand, not the chest.",)
    write_dicom(tmp_path / "c.dcm", GRAY, BodyPartExamined="CHEST_ABDOMEN")
    assert read_upload(tmp_path / "c.dcm").notes == ()


def test_dicom_in_color_is_refused_like_any_picture_in_color(tmp_path):
    color = np.asarray(photograph())
    write_dicom(
        tmp_path / "a.dcm", color[..., 0], Modality="OT", SamplesPerPixel=3, PlanarConfiguration=0,
        PhotometricInterpretation="RGB", PixelData=color.tobytes(),
    )  # fmt: skip
    with pytest.raises(RefusedError, match="color picture") as error:
        read_upload(tmp_path / "a.dcm")
    check_sentence(error)


def test_a_header_that_cannot_be_understood_is_quoted(tmp_path):
    write_dicom(tmp_path / "a.dcm", GRAY, RescaleSlope="7.55", RescaleIntercept="0")
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.dcm").read_bytes().replace(b"7.55", b"0,50"))
    with pytest.raises(RefusedError, match="RescaleSlope is '0,50'; wanted numbers") as error:
        read_upload(tmp_path / "a.dcm")
    check_sentence(error)


@pytest.mark.parametrize("modality", ["OT", "SC", ""])
def test_dicom_that_names_no_radiograph_is_read_with_a_remark(tmp_path, modality):
    write_dicom(tmp_path / "a.dcm", GRAY, Modality=modality, BodyPartExamined="HAND")
    assert read_upload(tmp_path / "a.dcm").notes == (
        "The file does not say that it is a radiograph.",
        "The DICOM file says it shows: hand, not the chest.",
    )
    assert "names no modality other than a radiograph's" in WHAT_IS_CHECKED


@pytest.mark.parametrize("suffix", ["png", "jpg", "dcm"])
def test_damage_never_gives_a_trace(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "dcm":
        write_dicom(path, GRAY)
    else:
        Image.fromarray(GRAY).save(path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        content = bytearray(whole[: int(random.integers(1, len(whole)))] if number % 3 == 0 else whole)
        for _ in range(number % 7):
            content[int(random.integers(min(len(content), 900)))] = int(random.integers(256))
        path.write_bytes(content)
        try:
            read_upload(path)
        except RefusedError:
            refused += 1
    assert refused > 20


def test_what_was_odd_about_a_header_is_said_beside_the_result(tmp_path):
    write_dicom(tmp_path / "a.dcm", GRAY, WindowCenter=9000, WindowWidth=2)
    assert read_upload(tmp_path / "a.dcm").notes == (
        "The DICOM header was not followed in one point: the window 9000 ± 1 shows nothing of these pixels.",
    )
    write_dicom(tmp_path / "b.dcm", GRAY, PhotometricInterpretation="MONOCHROME1")
    (sentence,) = read_upload(tmp_path / "b.dcm").notes
    assert "its lungs are bright" in sentence


@pytest.mark.parametrize("shape", [(300, 200), (200, 390), (390, 200), (200, 200), (64, 90)])
@pytest.mark.parametrize("crop", [96, 72, 64])
def test_a_place_lies_in_the_view_where_it_lies_in_the_models_input(shape, crop):
    """Heat is drawn over the view: of a crop that is larger than the resized picture the edge is padding."""
    gray = np.full(shape, 40, np.uint8)
    row, column = shape[0] // 2 + 10, shape[1] // 2 - 15
    gray[row : row + 9, column : column + 9] = 250
    processor = BitImageProcessor(
        size={"shortest_edge": 72}, crop_size={"height": crop, "width": crop},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    preprocessing = StockPreprocessing(processor)
    pixels = preprocessing.pixels(Image.fromarray(gray))[0].numpy()
    seen = what_the_model_sees(gray, preprocessing.crop)

    def place(picture):
        bright = picture > picture.min() + 0.6 * (float(picture.max()) - picture.min())
        return [(where.mean() + 0.5) / len(picture) for where in np.nonzero(bright)]

    assert place(seen) == pytest.approx(place(pixels), abs=1.5 / crop)
