"""A record is of the files beside it: what was exchanged is known, what was only written anew is not."""

import json

import pytest
from page_fixtures import PREPROCESSING, write_stage1, write_stage2
from stage_records import SOME_REPORT, classification_record, pretraining_record

from medhiera.errors import UserError
from medhiera.hub.contents import content_of, contents_of, refuse_changed
from medhiera.hub.finished_stage import write_stage
from medhiera.hub.imagenet_stage import complete
from medhiera.hub.lineage import lineage_of, published_name
from medhiera.hub.operation import Operation, choice_of
from medhiera.hub.published_files import AUTO_MAP
from medhiera.hub.record import read_record
from medhiera.stages import CLASSIFICATION, PRETRAINING
from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.convert import main as convert


@pytest.fixture
def stage2(tmp_path):
    """As a run leaves it; the figures are drawn before."""
    folder = write_stage2(tmp_path / "stage2")
    model = HieraMAEForImageClassification.from_pretrained(folder)
    model.config.use_cache = False  # by transformers' Trainer, and by no one who writes the folder anew
    record = classification_record(SOME_REPORT)
    write_stage(folder, CLASSIFICATION, record, model, PREPROCESSING)
    return folder


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def other_weights(folder):
    model = HieraMAEForImageClassification.from_pretrained(folder)
    model.classifier.bias.data += 1e-3
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_weights, "model.safetensors"),
        (lambda at: edit(at / "preprocessor_config.json", image_mean=[0.2] * 3), "preprocessor_config.json"),
        (lambda at: edit(at / "config.json", id2label=dict(enumerate("dcba"))), "config.json"),
        (lambda at: edit(at / "config.json", problem_type="single_label_classification"), "config.json"),
        (lambda at: (at / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
    ],
)  # fmt: skip
def test_what_was_exchanged_is_named(stage2, change, named):
    refuse_changed(stage2, read_record(stage2))
    change(stage2)
    with pytest.raises(UserError, match=rf"stage2: {named} changed after the stage was finished .*Put back"):
        refuse_changed(stage2, read_record(stage2))


def test_what_was_only_written_anew_is_the_same(stage2, tmp_path):
    """By convert, and by publish.py on its way to the Hub and back."""
    record = read_record(stage2)
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} == record.contents.keys()
    convert([str(stage2), str(tmp_path / "again")])
    edit(stage2 / "config.json", auto_map=AUTO_MAP, transformers_version="0")
    model = HieraMAEForImageClassification.from_pretrained(stage2)
    model.save_pretrained(stage2)
    for folder in (stage2, tmp_path / "again"):
        assert contents_of(folder) == record.contents
        refuse_changed(folder, record)


def test_thresholds_are_of_the_weights_that_were_scored(stage2, caplog):
    """Of others neither predict.py, the page and an export have them, nor an evaluation elsewhere."""
    record = read_record(stage2)
    names = {name: name for name in record.evaluation.operating_points.findings}
    assert Operation.find(stage2).thresholds and Operation.read(stage2).thresholds
    assert choice_of(stage2, record, names) is not None and not caplog.messages
    other_weights(stage2)
    assert not Operation.find(stage2).thresholds and not Operation.read(stage2).thresholds
    assert choice_of(stage2, record, names) is None
    assert caplog.messages == [
        f"{stage2}: model.safetensors changed after training, so thresholds and calibration of its "
        "metrics.json are not used"
    ] * 3  # fmt: skip


def test_stages_0_and_1_have_them_too(tmp_path):
    folder = write_stage1(tmp_path / "stage1")
    model = HieraMAEForPreTraining.from_pretrained(folder)
    write_stage(folder, PRETRAINING, pretraining_record(), model, PREPROCESSING)
    assert read_record(folder).contents == contents_of(folder)
    stage0 = tmp_path / "stage0"
    model.save_pretrained(stage0)
    (stage0 / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Hiera\n")
    assert complete(stage0, "facebook/hiera_tiny_224").contents == contents_of(stage0)


def test_a_record_of_an_earlier_version_names_no_files(tmp_path):
    folder = write_stage2(tmp_path / "stage2")
    edit(folder / "config.json", id2label=dict(enumerate("dcba")))
    refuse_changed(folder, read_record(folder))


def test_weights_that_are_no_longer_those_published_have_no_base_model(stage2):
    note = stage2 / "published.json"
    note.write_text('{"repo_id": "me/stage2"}')
    assert published_name(stage2) == "me/stage2"  # by an earlier version
    edit(note, weights=content_of(stage2 / "model.safetensors"))
    assert lineage_of(str(stage2), []).base_model == published_name(stage2) == "me/stage2"
    other_weights(stage2)
    assert lineage_of(str(stage2), []).base_model is None and published_name(stage2) is None


def test_a_damaged_file_is_named(stage2):
    (stage2 / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"stage2/config\.json cannot be read: "):
        refuse_changed(stage2, read_record(stage2))
