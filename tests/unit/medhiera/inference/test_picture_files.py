"""A picture that was opened and the file it was opened from are the same to a model, or it is refused."""

import numpy as np
import pytest
import torch
from page_fixtures import phantom, write_stage2
from PIL import Image

from medhiera.errors import UserError
from medhiera.inference.classifier import Classifier
from medhiera.inference.encoder import Encoder
from medhiera.inference.picture_files import as_list, open_picture

ORIENTATION = 0x0112


def tilted():
    return Image.fromarray(np.ascontiguousarray(phantom(200)[:, :130]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("stage2"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_file_is(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    tilted().save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        found = np.asarray(open_picture(image).convert("L"))
    assert np.array_equal(found, np.asarray(open_picture(tmp_path / "a.png")))


def test_a_picture_is_turned_once(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    tilted().save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        once = open_picture(image)
    assert open_picture(once).tobytes() == once.tobytes() and open_picture(once).size == once.size


def test_models_answer_the_same_for_a_file_and_its_picture(folder, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    tilted().save(tmp_path / "a.png", exif=exif)
    classifier, encoder = Classifier.from_pretrained(folder), Encoder.from_pretrained(folder)
    with Image.open(tmp_path / "a.png") as image:
        assert classifier.predict(image) == classifier.predict(tmp_path / "a.png")
        assert classifier.probabilities([image]).tolist() == [
            list(classifier.predict(tmp_path / "a.png")[0].values())
        ]
        assert torch.equal(encoder.features(image), encoder.features(tmp_path / "a.png"))


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*rubbish", b"Exif\0\0", b"\xff" * 40])
def test_exif_that_cannot_be_read_turns_nothing(exif):
    image = tilted()
    image.info["exif"] = exif
    assert open_picture(image) is image


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused_in_words(folder, tmp_path, mode):
    deep = Image.fromarray(phantom().astype(np.uint16) * 16)
    deep.save(tmp_path / "deep.png")
    classifier, encoder = Classifier.from_pretrained(folder), Encoder.from_pretrained(folder)
    picture = deep if mode == "I;16" else Image.fromarray(phantom().astype(np.int32)).convert(mode)
    assert picture.mode == mode
    for ask in (classifier.predict, encoder.features, lambda one: classifier.probabilities([one])):
        with pytest.raises(UserError, match=rf"a picture of mode {mode} .* give its file's path"):
            ask(picture)
    assert len(classifier.predict(tmp_path / "deep.png")) == 1


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8), np.uint8), torch.zeros(1, 8, 8)], ids=["array", "tensor"]
)
def test_an_array_is_no_picture(pixels):
    for image in as_list([pixels]):
        with pytest.raises(UserError, match="is no picture; give files or pictures of Pillow .*AutoModel"):
            open_picture(image)
