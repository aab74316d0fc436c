"""What `model_overrides` do where a stage starts from a checkpoint, and where its weights are random."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import reproduce
from medhiera.config.arguments import ModelArguments
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.demo_stages import Demo
from medhiera.errors import UserError
from medhiera.experiments.arms import HOW_MUCH_MASKED, ablation_arms, explode_arms, mask_arms
from medhiera.experiments.runner import ExperimentRunner
from medhiera.shipped_files import script
from medhiera.training.model import check_source, start_model
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining

GEOMETRY = {
    "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "decoder_hidden_size": 16,
    "decoder_depth": 1, "decoder_num_heads": 2,
}  # fmt: skip
STAGES = {MAEArguments: HieraMAEForPreTraining, ClassificationArguments: HieraMAEForImageClassification}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    config = HieraMAEConfig.from_size("tiny", image_size=[64, 64], **GEOMETRY)
    HieraMAEForPreTraining(config).save_pretrained(folder)
    return str(folder)


def started(source, model_class=HieraMAEForPreTraining, side=64, **overrides):
    options = ModelArguments(model_name_or_path=source, model_overrides=overrides)
    check_source(options, is_mae=model_class is HieraMAEForPreTraining)
    model, _ = start_model(model_class, options, image_size=[side] * 2, drop_path_rate=0.0)
    return model


def masked_loss(model):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 128, 128, generator=generator)
    noise = torch.rand(1, 16, generator=generator)
    with torch.no_grad():
        return model.eval()(pixels, noise=noise, mask_ratio=0.5).loss


@pytest.mark.parametrize("model_class", STAGES.values())
def test_an_override_acts_on_a_checkpoint(checkpoint, model_class):
    model = started(checkpoint, model_class, layer_norm_eps=1e-3)
    assert model.hiera.encoder.stages[0].layers[0].layernorm_before.eps == 1e-3


def test_the_recipes_drop_path_acts_on_a_checkpoint(checkpoint):
    options = ModelArguments(model_name_or_path=checkpoint)
    for model_class in STAGES.values():
        model, _ = start_model(model_class, options, image_size=[64, 64], drop_path_rate=0.3)
        assert model.config.drop_path_rate == 0.3
        assert model.hiera.encoder.stages[3].layers[0].drop_path == pytest.approx(0.3)


def test_position_interpolation_acts_at_another_size_and_survives_saving(checkpoint, tmp_path):
    plain = started(checkpoint, side=128)
    bicubic = started(checkpoint, side=128, position_interpolation="bicubic")
    windowed = started(checkpoint, side=128, position_interpolation="windowed")
    assert torch.equal(masked_loss(bicubic), masked_loss(plain))
    assert not torch.equal(masked_loss(bicubic), masked_loss(windowed))
    windowed.save_pretrained(tmp_path)
    later = started(str(tmp_path), side=128)
    assert later.config.position_interpolation == "windowed"
    assert torch.equal(masked_loss(later), masked_loss(windowed))
    # Read again at a third size, the saved setting stretches the embeddings once more.
    kept = started(str(tmp_path), side=256)
    other = started(str(tmp_path), side=256, position_interpolation="bicubic")
    assert not torch.equal(masked_loss(kept), masked_loss(other))


def test_what_equals_the_checkpoint_is_no_contradiction(checkpoint):
    model = started(checkpoint, HieraMAEForImageClassification, **GEOMETRY, num_channels=3)
    assert model.config.embed_dim == 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"embed_dim": 16}, r"embed_dim 16 \(the checkpoint has 8\)"),
        ({"depths": [1, 1, 2, 1]}, r"depths \[1, 1, 2, 1\] \(the checkpoint has \[1, 1, 1, 1\]\)"),
        ({"num_heads": [1, 2, 2, 2]}, r"num_heads \[1, 2, 2, 2\] \(the checkpoint has \[1, 1, 1, 1\]\)"),
        ({"decoder_depth": 2, "num_channels": 2}, r"num_channels 2 \(.*has 3\), decoder_depth 2 \(.*has 1\)"),
        ({"patch_stride": [8, 8]}, r"patch_stride \[8, 8\] \(the checkpoint has \[4, 4\]\)"),
        ({"num_query_pool": 3}, r"num_query_pool 3 \(the checkpoint has 2\)"),
        ({"embed_dimm": 8}, "Unknown field 'embed_dimm' for HieraMAEConfig; did you mean 'embed_dim'"),
        ({"position_interpolation": "nearest"}, "position_interpolation is 'nearest'"),
        ({"layer_norm_eps": "much"}, "model_overrides cannot be used: .*layer_norm_eps"),
        ({"drop_path_rate": 0.3}, "cannot set drop_path_rate: set the recipe's own drop_path_rate"),
        ({"mask_ratio": 0.9}, "cannot set mask_ratio: set stage 1's own mask_ratio"),
        ({"classifier_dropout": 0.5}, "cannot set classifier_dropout: set stage 2's own"),
        ({"image_size": [64, 64]}, "cannot set image_size: set the recipe's own image_size"),
        ({"num_labels": 3}, "cannot set num_labels: the labels are the dataset's"),
    ],
)
def test_what_a_checkpoint_rules_out_is_refused_before_data_is_read(checkpoint, overrides, message):
    """By the recipe's reader where the checkpoint is a folder here, with everything else that is wrong."""
    with pytest.raises(UserError, match=rf"(?s){message}"):
        started(checkpoint, **overrides)
    words = ["--data_dir", "d", "--output_dir", "o", "--mask_ratio", "2", "--model_name_or_path", checkpoint]
    with pytest.raises(UserError, match=rf"(?s)mask_ratio is 2.*{message}"):
        parse_config(MAEArguments, [*words, "--model_overrides", json.dumps(overrides)])


def test_the_refusal_says_how_to_drop_the_recipes_own_geometry(checkpoint, tmp_path):
    recipe = tmp_path / "smoke.yaml"
    recipe.write_text("image_size: 64\nmodel_overrides: {embed_dim: 32}\n")
    words = [str(recipe), "--data_dir", "d", "--output_dir", "o", "--model_name_or_path", checkpoint]
    with pytest.raises(UserError, match=r"contradicts the checkpoint .*--model_overrides \{\}"):
        parse_config(MAEArguments, words)
    model = parse_config(MAEArguments, [*words, "--model_overrides", "{}"]).model
    check_source(model, is_mae=True)
    assert start_model(HieraMAEForPreTraining, model, image_size=[64, 64])[1] == []


def test_a_new_decoder_on_the_checkpoints_encoder(checkpoint):
    with pytest.raises(UserError, match=r"num_query_pool 3 .*reset_decoder: true"):
        started(checkpoint, num_query_pool=3)
    overrides = {"num_query_pool": 3, "decoder_depth": 2, "num_channels": 1}
    options = ModelArguments(model_name_or_path=checkpoint, model_overrides=overrides, reset_decoder=True)
    check_source(options, is_mae=True)
    model, new = start_model(HieraMAEForPreTraining, options, image_size=[128, 128], drop_path_rate=0.0)
    assert model.config.num_query_pool == 3 and model.decoder.decoder_pred.out_features == 32 * 32
    assert len(model.decoder.decoder_block.layers) == 2 and model.config.image_size == [128, 128]
    assert new and not any(name.startswith("hiera.") for name in new)
    trained = HieraMAEForPreTraining.from_pretrained(checkpoint, num_channels=1, image_size=[128, 128])
    weights = trained.hiera.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.hiera.state_dict().items())
    assert model(torch.randn(2, 1, 128, 128)).loss.isfinite()


@pytest.mark.parametrize("reset_decoder", [False, True])
def test_the_attention_asked_for_survives_a_new_decoder(reset_decoder, checkpoint):
    overrides = {"attn_implementation": "eager"}
    options = ModelArguments(
        model_name_or_path=checkpoint, model_overrides=overrides, reset_decoder=reset_decoder
    )
    model, _ = start_model(HieraMAEForPreTraining, options, image_size=[64, 64])
    assert model.config._attn_implementation == "eager"


def test_gray_pretraining_from_rgb_weights_and_an_rgb_classifier_from_it(checkpoint, tmp_path):
    gray = started(checkpoint, num_channels=1)
    assert gray.config.num_channels == 1
    gray.save_pretrained(tmp_path)
    classifier = started(str(tmp_path), HieraMAEForImageClassification)
    assert classifier.config.num_channels == 3, "stock pipelines give every model RGB"
    with pytest.raises(UserError, match=r"num_channels 3 \(the checkpoint has 1\)"):
        started(str(tmp_path), num_channels=3)


def test_a_classifier_may_pool_as_it_likes(checkpoint):
    model = started(checkpoint, HieraMAEForImageClassification, num_query_pool=2)
    assert model.config.num_query_pool == 2


def test_a_decoder_that_the_checkpoint_lacks_takes_any_size(tmp_path):
    config = HieraMAEConfig.from_size("tiny", image_size=[64, 64], **GEOMETRY)
    HieraMAEForImageClassification(config).save_pretrained(tmp_path)
    model = started(str(tmp_path), decoder_hidden_size=24, decoder_depth=2, decoder_num_heads=3)
    assert model.decoder.mask_token.shape[-1] == 24 and len(model.decoder.decoder_block.layers) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"embed_dimm": 8}, "Unknown field 'embed_dimm' for HieraMAEConfig; did you mean 'embed_dim'"),
        ({"depths": [1, 1]}, "model_overrides cannot be used: .*one entry per stage"),
        ({"image_size": [64, 64]}, "cannot set image_size"),
    ],
)
def test_random_weights_refuse_what_no_model_has(overrides, message):
    with pytest.raises(UserError, match=message):
        started(None, **overrides)
    words = ["--data_dir", "d", "--output_dir", "o", "--model_overrides", json.dumps(overrides)]
    with pytest.raises(UserError, match=message):
        parse_config(ClassificationArguments, words)


def test_overrides_of_a_checkpoint_stand_in_the_record(checkpoint):
    words = ["--data_dir", "d", "--output_dir", "o", "--model_name_or_path", checkpoint, "--model_overrides"]
    record = parse_config(MAEArguments, [*words, '{"position_interpolation": "windowed"}']).as_json()
    assert record["model_overrides"] == {"position_interpolation": "windowed"}
    assert "model_overrides" not in parse_config(MAEArguments, [*words, "{}"]).as_json()


SMALL_UNITS = {"patch_size": [3, 3], "patch_stride": [2, 2], "patch_padding": [1, 1]}
LARGE_UNITS = {"patch_size": [15, 15], "patch_stride": [8, 8], "patch_padding": [7, 7]}


@pytest.mark.parametrize("source", ["random", "folder"])
def test_the_mask_unit_is_the_models_own(source, tmp_path):
    """16 and 64 pixels in place of the usual 32."""

    def words(units, image_size):
        given = ["--data_dir", "d", "--output_dir", "o", "--image_size", str(image_size)]
        if source == "random":
            return [*given, "--model_overrides", json.dumps(units)]
        folder = tmp_path / f"unit{units['patch_stride'][0]}"
        HieraMAEConfig.from_size("tiny", image_size=[128, 128], **units).save_pretrained(folder)
        return [*given, "--model_name_or_path", str(folder)]

    assert parse_config(MAEArguments, words(SMALL_UNITS, 48)).data.image_size == 48
    with pytest.raises(UserError, match="image_size is 96; wanted a multiple of 64, such as 64 or 128"):
        parse_config(MAEArguments, words(LARGE_UNITS, 96))
    with pytest.raises(UserError, match="mask_ratio 0.8 keeps 0 of 4 mask units"):
        parse_config(MAEArguments, [*words(LARGE_UNITS, 128), "--mask_ratio", "0.8"])


@pytest.mark.parametrize(
    ("stage", "config"), [(MAEArguments, "mae_smoke.yaml"), (ClassificationArguments, "cls_smoke.yaml")]
)
def test_the_demo_starts_from_weights_of_any_geometry(checkpoint, tmp_path, stage, config):
    (tmp_path / "raw").mkdir()
    arguments = Demo(tmp_path, tmp_path / "raw").arguments(config, tmp_path / "out", checkpoint)
    recipe = parse_config(stage, arguments)
    check_source(recipe.model, is_mae=STAGES[stage] is HieraMAEForPreTraining)


@pytest.mark.parametrize("budget", ["smoke", "paper"])
@pytest.mark.parametrize(
    ("arms", "budgets", "geometry"),
    [
        (ablation_arms(True), reproduce.BUDGETS, reproduce.FROM_STAGE0),
        (explode_arms(True, 1e-4), reproduce.BUDGETS, reproduce.FROM_STAGE0),
        (mask_arms(True), reproduce.MASK_BUDGETS, reproduce.MASKS_FROM_STAGE0),
        (mask_arms(True, HOW_MUCH_MASKED), reproduce.RATIO_BUDGETS, reproduce.FROM_STAGE0),
    ],
)
def test_the_experiments_start_from_weights_of_any_geometry(
    checkpoint, tmp_path, arms, budgets, geometry, budget
):
    words = reproduce.script_arguments(budgets[budget], geometry, ["--use_cpu", "true"])
    (tmp_path / "raw").mkdir()
    runner = ExperimentRunner(tmp_path, str(tmp_path / "raw"), checkpoint, words)
    stages = {"train_mae.py": MAEArguments, "train_cls.py": ClassificationArguments}
    for arm in arms:
        if arm.start not in (None, "stage 0") or arm.as_long_as is not None:
            continue  # starts from an arm that has not run
        stage = stages[arm.script]
        command = runner.command(arm, 0)
        recipe = parse_config(stage, command[command.index(script(arm.script)) + 1 :])
        check_source(recipe.model, is_mae=STAGES[stage] is HieraMAEForPreTraining)


def test_how_many_encoder_weights_matched_is_logged_and_none_is_refused(checkpoint, tmp_path, caplog):
    with caplog.at_level("INFO", logger="medhiera"):
        model = started(checkpoint, HieraMAEForImageClassification)
    count = sum(name.startswith("hiera.") for name in model.state_dict())
    pooled = sum(name.startswith("hiera.pooler.") for name in model.state_dict())
    assert (
        pooled == 2 and f": {count - pooled} of the encoder's {count} tensors; hiera.pooler." in caplog.text
    )
    assert "of the norm behind the encoder, which a masked autoencoder lacks, and begin anew" in caplog.text
    weights = load_file(Path(checkpoint) / "model.safetensors")
    renamed = {f"visual.{name}" if name.startswith("hiera.") else name: w for name, w in weights.items()}
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(Path(checkpoint) / "config.json", tmp_path)
    with pytest.raises(UserError, match="have no place|lacks"):
        started(str(tmp_path), HieraMAEForImageClassification)
    decoder = {name: w for name, w in weights.items() if not name.startswith("hiera.")}
    save_file(decoder, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks \d+ weights of HieraMAEForImageClassification, first hiera"):
        started(str(tmp_path), HieraMAEForImageClassification)
