"""A converted checkpoint becomes a stage that publishes, says what it is, and starts stage 1."""

import json

import jsonschema
import pytest
import yaml

from medhiera.config.arguments import ModelArguments
from medhiera.errors import UserError
from medhiera.hub.imagenet_stage import complete
from medhiera.hub.lineage import lineage_of
from medhiera.hub.model_card import TEMPLATES
from medhiera.hub.publish import _check_folder
from medhiera.hub.record import read_record
from medhiera.layout import STAGE_FILES
from medhiera.run import choose_preprocessing
from medhiera.training.model import start_model
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining


@pytest.fixture
def converted(tmp_path):
    geometry = {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1, 1], "decoder_depth": 1}
    config = HieraMAEConfig.from_size("tiny", decoder_hidden_size=16, decoder_num_heads=2, **geometry)
    HieraMAEForPreTraining(config).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Hiera\n")
    return tmp_path


def test_it_is_a_whole_stage(converted):
    record = complete(converted, "facebook/hiera_tiny_224")
    assert all((converted / name).is_file() for name in STAGE_FILES)
    assert _check_folder(converted, 0) == 0
    card = (converted / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    jsonschema.validate(metadata, json.loads((TEMPLATES / "metadata.schema.json").read_text()))
    assert metadata["base_model"] == "facebook/hiera_tiny_224"
    assert metadata["license"] == "cc-by-nc-4.0" and "non-commercial use" in card
    assert "It has seen no medical image" in card
    assert read_record(converted) == record


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


def test_what_is_no_converted_checkpoint_is_refused(converted, tmp_path_factory):
    with pytest.raises(UserError, match="is no converted checkpoint"):
        complete(tmp_path_factory.mktemp("empty"), "x")
    (converted / "README.md").write_text("# no licence\n")
    with pytest.raises(UserError, match="names no licence"):
        complete(converted, "x")
