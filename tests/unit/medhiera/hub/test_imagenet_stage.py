"""A converted checkpoint becomes a stage that publishes, says what it is, and starts stage 1."""

import json

import jsonschema
import pytest
import yaml
from datasets import Dataset
from page_fixtures import PREPROCESSING, write_stage1, write_stage2

from medhiera.config.arguments import ModelArguments
from medhiera.data.training_images import list_images, read_training_images, write_training_images
from medhiera.errors import UserError
from medhiera.hub.beginning import write_beginning
from medhiera.hub.imagenet_stage import complete, main
from medhiera.hub.lineage import lineage_of
from medhiera.hub.model_card import TEMPLATES
from medhiera.hub.normalization import choose_preprocessing
from medhiera.hub.publish import _check_folder
from medhiera.hub.published_files import AUTO_MAP
from medhiera.hub.record import BegunRecord, read_record
from medhiera.layout import STAGE_FILES, TRAINING_IMAGES_FILE
from medhiera.training.model import start_model
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.convert import convert, save
from modeling_hiera_mae.convert import main as convert_command


@pytest.fixture
def converted(tmp_path):
    geometry = {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1, 1], "decoder_depth": 1}
    config = HieraMAEConfig.from_size("tiny", decoder_hidden_size=16, decoder_num_heads=2, **geometry)
    HieraMAEForPreTraining(config).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Hiera\n")
    return tmp_path


def test_it_is_a_whole_stage(converted):
    completed = complete(converted, "facebook/hiera_tiny_224")
    assert all((converted / name).is_file() for name in STAGE_FILES)
    stage, record = _check_folder(converted, 0)
    assert stage.number == record.stage == 0
    card = (converted / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    jsonschema.validate(metadata, json.loads((TEMPLATES / "metadata.schema.json").read_text()))
    assert metadata["base_model"] == "facebook/hiera_tiny_224"
    assert metadata["license"] == "cc-by-nc-4.0" and "non-commercial use" in card
    assert "It has seen no medical image" in card
    assert read_record(converted) == record == completed


def test_training_goes_on_from_it_with_the_datas_own_normalization(converted):
    complete(converted, "a file of mine")
    (converted / "published.json").write_text('{"repo_id": "me/stage0"}')
    source = str(converted)
    chosen = choose_preprocessing(source, 64, 73, 0.5, 0.2)
    assert (chosen.mean, chosen.std) == (0.5, 0.2)
    _, new_weights = start_model(
        HieraMAEForImageClassification, ModelArguments(model_name_or_path=source), num_labels=2
    )
    lineage = lineage_of(source, new_weights)
    assert lineage.started_from == "stage 0 (from a file of mine)"
    assert lineage.base_model == "me/stage0"  # the repository it was published to
    assert lineage.license == "cc-by-nc-4.0"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", [write_stage1, write_stage2])
def test_a_finished_stage_is_not_made_a_stage_0(tmp_path, write):
    """Its card would say that it has seen no medical image."""
    folder = write(tmp_path / "stage")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [medical]\n---\n# Hiera\n")
    before = contents(folder)
    with pytest.raises(UserError, match=r"holds stage [12], which was trained on medical images"):
        complete(folder, "facebook/hiera_tiny_224")
    with pytest.raises(SystemExit) as end:
        main([str(folder), "--started_from", "facebook/hiera_tiny_224"])
    assert end.value.code == 1 and contents(folder) == before


def test_nor_is_one_that_was_converted(tmp_path):
    """It keeps its record, card and processor."""
    stage = write_stage1(tmp_path / "stage")
    (stage / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Stage 1 of someone\n")
    (stage / "figures").mkdir()
    (stage / "figures" / "loss.png").write_bytes(b"picture")
    (stage / "training_log.csv").write_text("step\n")
    (stage / TRAINING_IMAGES_FILE).write_text("0123456789abcdef\n")
    save(convert(str(stage)), tmp_path / "converted")
    kept = ("metrics.json", "README.md", "preprocessor_config.json", "figures/loss.png", TRAINING_IMAGES_FILE)
    for name in kept:
        assert (tmp_path / "converted" / name).read_bytes() == (stage / name).read_bytes()
    assert lineage_of(str(tmp_path / "converted"), []).started_from.startswith("stage 1 (")
    with pytest.raises(UserError, match="holds stage 1, which was trained on medical images"):
        complete(tmp_path / "converted", "facebook/hiera_tiny_224")


@pytest.mark.parametrize("part", ["checkpoint-8", "raw"])
@pytest.mark.parametrize("is_finished", [False, True])
def test_nor_is_a_part_of_a_run(tmp_path, part, is_finished):
    """Its record lies in the run's folder."""
    stage = write_stage1(tmp_path / "stage")
    record = read_record(stage)
    (stage / part).mkdir()
    for name in ("config.json", "model.safetensors"):
        (stage / part / name).write_bytes((stage / name).read_bytes())
    if part != "raw":
        (stage / part / "complete.json").write_text("{}")
    if not is_finished:
        (stage / "metrics.json").unlink()
        facts = ("stage", "kind", "lineage", "data", "preprocessing", "recipe")
        write_beginning(BegunRecord(**{name: getattr(record, name) for name in facts}), stage)
    for weights in (stage / part, stage / part / "model.safetensors"):
        with pytest.raises(ValueError, match=r"is a part of a training run, .* finished stage, .*/stage\."):
            convert(str(weights))
    with pytest.raises(UserError, match=f"{part} holds stage 1, which was trained on medical images"):
        complete(stage / part, "facebook/hiera_tiny_224")


def test_a_stage_that_comes_back_from_timm_is_still_one(tmp_path):
    stage = write_stage1(tmp_path / "stage")
    images = list_images(Dataset.from_dict({"source": ["ChestX-ray14"], "image_id": ["a.png"]}), "train")
    write_training_images(stage, images)
    for source, folder, *words in (("stage", "timm", "--to", "timm"), ("timm", "back")):
        convert_command([str(tmp_path / source), str(tmp_path / folder), *words])
    back = tmp_path / "back"
    assert read_record(back) == read_record(stage) and len(read_training_images(back)) == len(images)
    assert lineage_of(str(back), []).started_from.startswith("stage 1 (")
    kept, wanted = (choose_preprocessing(str(one), 64, 72, 0.5, 0.2) for one in (back, stage))
    assert kept == wanted
    with pytest.raises(UserError, match="holds stage 1, which was trained on medical images"):
        complete(back, "facebook/hiera_tiny_224")
    with pytest.raises(ValueError, match="is a stage, whose record says its licence; leave --license out"):
        convert(str(tmp_path / "timm"), license_name="mit")


def test_weights_of_ours_without_their_record_are_not_converted(tmp_path):
    """Of a run that was ended while it wrote its stage; of the Hub, from a cache that holds a part."""
    stage = write_stage1(tmp_path / "stage")
    (stage / "metrics.json").unlink()
    assert convert(str(stage)).stage is None  # nothing says that it is ours
    (stage / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is of a run that has not ended, so no metrics\.json says"):
        convert(str(stage))
    (stage / "run.json").unlink()
    config = json.loads((stage / "config.json").read_text())
    (stage / "config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP}))
    with pytest.raises(ValueError, match=r"was published by this project, and its metrics\.json"):
        convert(str(stage))


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (lambda f: (f / "training_log.csv").write_text("step\n"), r"it holds training_log\.csv"),
        (lambda f: (f / "checkpoint-8").mkdir(), "it holds checkpoint-8"),
        (lambda f: (f / "published.json").write_text('{"repo_id": "a/b"}'), r"it holds published\.json"),
        (lambda f: PREPROCESSING.to_processor().save_pretrained(f), r"it has a preprocessor_config\.json"),
        (
            lambda f: (f / "README.md").write_text("---\nlicense: mit\ntags:\n- radiology\n---\n"),
            "its card has the tag 'radiology'",
        ),
        (lambda f: (f / "metrics.json").write_text("{"), r"metrics\.json is not valid JSON"),
        (lambda f: (f / "README.md").write_text("---\nlicense: [\n---\n"), "the card of .* cannot be read"),
        (lambda f: (f / "README.md").unlink(), "the card of .* cannot be read"),
    ],
)
def test_what_bears_marks_of_training_is_refused(converted, mark, message):
    """A stage whose metrics.json was removed."""
    mark(converted)
    before = contents(converted)
    with pytest.raises(UserError, match=message):
        complete(converted, "facebook/hiera_tiny_224")
    assert contents(converted) == before


def test_what_started_from_a_stage_is_refused(converted, tmp_path_factory):
    stage = write_stage1(tmp_path_factory.mktemp("other"))
    with pytest.raises(UserError, match=r"other\d* holds stage 1, which was trained on medical images"):
        complete(converted, str(stage))


def test_a_stage_0_can_be_completed_again(converted):
    first = complete(converted, "facebook/hiera_tiny_224")
    (converted / "published.json").write_text('{"repo_id": "me/stage0"}')
    assert complete(converted, "facebook/hiera_tiny_224") == first


def test_what_is_no_converted_checkpoint_is_refused(converted, tmp_path_factory):
    with pytest.raises(UserError, match="is no converted checkpoint"):
        complete(tmp_path_factory.mktemp("empty"), "x")
    (converted / "README.md").write_text("# no licence\n")
    with pytest.raises(UserError, match="names no licence"):
        complete(converted, "x")
