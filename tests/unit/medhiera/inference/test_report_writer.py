"""A folder of a model that writes reports: saved, opened, used, and refused where it is damaged."""

import json
import shutil

import pytest
import torch
from PIL import Image
from report_rows import write_report_folder
from transformers import pipeline

from medhiera.errors import UserError
from medhiera.inference.report_writer import ReportWriter
from medhiera.layout import WRITER_FILES, writes_reports

TEXT = "The heart is normal."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    write_report_folder(folder, TEXT)
    return folder


@pytest.fixture
def damaged(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "damaged")
    return tmp_path / "damaged"


def test_it_writes_what_stock_writes(folder):
    assert writes_reports(folder) and {path.name for path in folder.iterdir()} >= set(WRITER_FILES)
    writer = ReportWriter.open(folder)
    picture = Image.effect_noise((90, 80), 60)
    pixels = writer.preprocessing.pixels(picture)
    [written] = writer.write([[pixels]])
    assert written == TEXT
    stock = pipeline("image-text-to-text", model=str(folder))
    assert stock(picture, text="")[0]["generated_text"] == written
    assert writer.write([[pixels, pixels], [pixels], [pixels] * 5]) == [TEXT] * 3


def test_a_study_without_a_picture_has_no_report(folder):
    writer = ReportWriter.open(folder)
    pixels = writer.preprocessing.pixels(Image.effect_noise((90, 80), 60))
    assert writer.write([]) == []
    for studies, number in (([[pixels], []], 1), ([[]], 0)):
        with pytest.raises(ValueError, match=f"study {number} has no picture"):
            writer.write(studies)
    has_view = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match="study 1 has no picture"):
        writer.write_batch(torch.zeros(2, 2, 1, 64, 64, dtype=torch.uint8), has_view)


def test_its_fingerprint_is_of_weights_and_of_how_it_writes(folder):
    writer = ReportWriter.open(folder)
    same = writer.fingerprint()
    assert ReportWriter.open(folder).fingerprint() == same
    writer.model.generation_config.num_beams = 1
    assert writer.fingerprint() != same
    writer.model.generation_config.num_beams = 2
    with torch.no_grad():
        next(writer.model.parameters()).add_(1)
    assert writer.fingerprint() != same


def test_features_are_of_the_encoder(folder):
    writer = ReportWriter.open(folder)
    pixels = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    features = writer.features(pixels)
    assert features.shape == (3, 64) and features.isfinite().all()
    torch.testing.assert_close(features.std(1), torch.ones(3), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", "has no usable tokenizer"),
        ("model.safetensors", "torn", "cannot be loaded"),
        ("view_embeddings.safetensors", None, "view_embeddings"),
        ("preprocessor_config.json", None, "has no preprocessor_config.json"),
        ("config.json", '{"model_type": "hiera"}', "wanted a Hiera that writes reports"),
    ],
)
def test_what_is_damaged_is_refused_in_words(damaged, name, content, said):
    if content is None:
        (damaged / name).unlink()
    else:
        (damaged / name).write_text(content)
    with pytest.raises(UserError, match=said):
        ReportWriter.open(damaged)


def test_a_tokenizer_of_more_tokens_is_refused(damaged):
    content = json.loads((damaged / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"more{n}": len(content["model"]["vocab"]) + n for n in range(3)}
    (damaged / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"its tokenizer has \d+ tokens and its decoder \d+"):
        ReportWriter.open(damaged)


def test_other_folders_write_no_reports(tmp_path):
    assert not writes_reports(tmp_path) and not writes_reports("no/such-model")
