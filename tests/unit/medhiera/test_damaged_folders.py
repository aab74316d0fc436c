"""Random damage to the files of a folder: refused in words, or read as it was; never a trace.

A flipped bit inside a number is another number, which no reader can tell: damage to the header of weights is
refused or changes nothing, and whatever opens computes finite probabilities in single precision.
"""

import json
import shutil
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_fixtures import write_stage2
from PIL import Image

from medhiera.errors import UserError
from medhiera.inference.classifier import Classifier
from medhiera.space.reader import open_folder

FILES = ("model.safetensors", "config.json", "preprocessor_config.json", "metrics.json")
JUNK = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        3,
        10**9,
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "224",
        [],
        [1],
        [[1]],
        {},
        {"a": 1},
    ]
)
SETTINGS = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def folder(whole, tmp_path_factory):
    return shutil.copytree(whole, tmp_path_factory.mktemp("damaged") / "folder")


def opened(folder, whole, file, content):
    """Open for prediction and for the page; None where both refuse in words."""
    for name in FILES:
        shutil.copy(whole / name, folder / name)
    (folder / file).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' advice on odd settings
        try:
            open_folder(folder)
        except UserError as error:
            assert "\n" not in str(error)
        try:
            found = Classifier.from_pretrained(folder)
            scores = found.probabilities([Image.new("L", (70, 60), 90)])
        except UserError as error:
            assert "\n" not in str(error)
            return None
    assert scores.isfinite().all()
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    return found


@st.composite
def damages(draw, data, end):
    """Flip bits, cut, insert, delete or repeat bytes before `end`."""
    content, at = bytearray(data), draw(st.integers(0, end - 1))
    kind = draw(st.sampled_from(["flip", "cut", "insert", "delete", "repeat"]))
    if kind == "flip":
        for place in draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=8)):
            content[place] ^= 1 << draw(st.integers(0, 7))
    elif kind == "cut":
        del content[at:]
    elif kind == "insert":
        content[at:at] = draw(st.binary(min_size=1, max_size=40))
    elif kind == "delete":
        del content[at : at + draw(st.integers(1, 40))]
    else:
        content[at:at] = content[at : at + 40]
    return bytes(content)


@SETTINGS
@given(st.data())
def test_damaged_weights(whole, folder, data):
    intact = (whole / FILES[0]).read_bytes()
    header = 8 + int.from_bytes(intact[:8], "little")
    content = data.draw(damages(intact, header))
    found = opened(folder, whole, FILES[0], content)
    if found is not None:  # a flip in the header's own notes, or one that undoes another
        assert found.fingerprint() == Classifier.from_pretrained(whole).fingerprint()


@SETTINGS
@given(st.sampled_from(FILES[1:]), st.data())
def test_damaged_json(whole, folder, file, data):
    intact = (whole / file).read_bytes()
    opened(folder, whole, file, data.draw(damages(intact, len(intact))))


def places(value, path=()):
    yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield from places(entry, (*path, key))


@SETTINGS
@given(st.sampled_from(FILES[1:]), st.data())
def test_json_of_other_types(whole, folder, file, data):
    content = json.loads((whole / file).read_text())
    *path, last = data.draw(st.sampled_from([place for place in places(content) if place]))
    inner = content
    for key in path:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[last] = data.draw(JUNK)
    else:
        del inner[last]
    opened(folder, whole, file, json.dumps(content).encode())
