"""The recipe parser: file and command line, and what it refuses."""

from pathlib import Path

import pytest

from medhiera.config.arguments import AugmentationArguments, OptimizationArguments
from medhiera.config.parser import parse_config
from medhiera.config.report_arguments import ReportArguments
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.errors import UserError
from medhiera.run import parse_run_config
from medhiera.stages import PRETRAINING

CONFIGS = Path(__file__).parents[4] / "configs"


@pytest.fixture
def write(tmp_path):
    def write_yaml(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return [str(path), "--data_dir", "data", "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]

    return write_yaml


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_read(path, tmp_path):
    stages = {"mae": MAEArguments, "cls": ClassificationArguments, "report": ReportArguments}
    stage = stages[path.stem.split("_")[0]]
    words = ["--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    words += ["--teacher", "t"] if "features" in path.stem else []
    recipe = parse_config(stage, [str(path), *words])
    assert recipe.data.image_size % 32 == 0
    assert recipe.training.learning_rate > 0


def test_command_line_overrides_file(write):
    recipe = parse_config(
        MAEArguments, [*write("mask_ratio: 0.7\nlearning_rate: 3.0e-4"), "--mask_ratio", "0.8"]
    )
    assert recipe.stage.mask_ratio == 0.8
    assert recipe.training.learning_rate == 3e-4


def test_exponent_without_dot_is_a_number(write):
    assert parse_config(MAEArguments, write("learning_rate: 1e-4")).training.learning_rate == 1e-4


def test_mapping_and_list_reach_their_fields(write):
    recipe = parse_config(MAEArguments, write("model_overrides: {depths: [1, 1, 1, 1]}\nsources: [a b, c]"))
    assert recipe.model.model_overrides == {"depths": [1, 1, 1, 1]}
    assert recipe.data.sources == ["a b", "c"]


def test_weights_come_from_the_file_or_the_command_line(write):
    from_file = parse_config(MAEArguments, write("source_weights: {ChestX-ray14: 0.5, BraTS 2020: 1}"))
    assert from_file.data.source_weights == {"ChestX-ray14": 0.5, "BraTS 2020": 1}
    typed = parse_config(MAEArguments, [*write("seed: 1"), "--source_weights", '{"ChestX-ray14": 2}'])
    assert typed.data.source_weights == {"ChestX-ray14": 2}
    assert parse_config(MAEArguments, write("seed: 1")).data.source_weights == {}


def test_weights_are_for_stage_1(write):
    with pytest.raises(UserError, match="source_weights is for stage 1"):
        parse_config(ClassificationArguments, write("source_weights: {ChestX-ray14: 1}"))


def test_resize_follows_image_size_as_in_the_paper(write):
    assert parse_config(MAEArguments, write("image_size: 224")).data.resize_size == 256


@pytest.mark.parametrize(
    ("text", "extra", "message"),
    [
        ("mask_ration: 0.6", [], "unknown key 'mask_ration'; did you mean 'mask_ratio'"),
        ("mask_ratio: 0.6", ["--mask_rat", "0.7"], "unknown key 'mask_rat'; did you mean 'mask_ratio'"),
        ("mask_ratio: 0.6", ["--zzzz", "1"], "unknown key 'zzzz'; see --help"),
        ("mask_ratio: many", [], "mask_ratio is many; wanted a share between 0 and 1 .such as 0.6"),
        ("[1, 2]", [], "holds list; wanted one mapping"),
        ("a: [", [], "is not YAML"),
        ("model_size: giant", [], "cannot be read"),
        ("model_overrides: tiny", [], "argument --model_overrides.*: 'tiny' is not a mapping"),
        ("source_weights: much", [], "is not a mapping"),
        (
            "source_weights: [ChestX-ray14, 1]",
            [],
            r"source_weights is the list \['ChestX-ray14', 1\]; wanted one value",
        ),
        (
            "source_weights: {a: 0, b: 1}",
            [],
            "source_weights gives 'a' the weight 0; wanted a positive number",
        ),
        ("source_weights: {a: -1}", [], "source_weights gives 'a' the weight -1"),
        ("source_weights: {a: lots}", [], "source_weights gives 'a' the weight 'lots'"),
        ("source_weights: {a: .inf}", [], "source_weights gives 'a' the weight inf"),
        (
            "source_weights: {a: 1, b: 1}\nsources: [a]",
            [],
            r"source_weights names \['b'\], which `sources` leaves out",
        ),
        ("resize_size: 100", [], "below image_size"),
        ("image_size: 64\nmask_ratio: 0.8", [], "mask_ratio: mask_ratio 0.8 keeps 0 of 4 mask units"),
        ("image_size: 32", [], "eval_mask_ratio: mask_ratio 0.6 keeps 0 of 1 mask units"),
        (
            "image_size: 128\nmask_block: 4",
            [],
            "mask_block is 4, and an image has 4 × 4 mask units, one block",
        ),
        (
            "image_size: 64\nmask_region: rectangle",
            [],
            "mask_region: rectangle makes mask_block 2, and .*one block",
        ),
        ("precision: bf16\nbf16: true", [], "bf16 and precision are both set"),
        ("hub_model_id: me/mine", [], "hub_model_id is set without push_to_hub"),
        (
            "push_to_hub: true\nhub_strategy: checkpoint",
            [],
            "hub_strategy is not taken: only the finished stage",
        ),
        ("reset_head: true", [], "reset_head is for stage 2"),
        ("target: features", [], "target: features needs a teacher"),
        ("teacher: x\nfeature_loss: cosine", [], "teacher, feature_loss: of no use to `target: pixels`"),
        ("target: features\nteacher: x\nfeature_weight: 2", [], "feature_weight 2 weighs features against"),
        ("target: both\nteacher: x\nfeature_weight: 0", [], "feature_weight is 0; wanted"),
        ("model_size: base", ["--model_name_or_path", "x"], "model_size is for random weights, and a"),
    ],
)
def test_faults_are_named(write, text, extra, message):
    with pytest.raises(UserError, match=message):
        parse_config(MAEArguments, [*write(text), *extra])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotation_degrees: 30\nrand_augment: true", "RandAugment rotates by itself"),
        ("random_crop_scale: 1.5", "random_crop_scale is 1.5; wanted a share"),
        ("ema_decay: 1.0", "ema_decay is 1.0; wanted a share from 0 to below 1"),
        ("mixup_alpha: -1", "mixup_alpha is -1; wanted a finite number from 0 up"),
        ("mixup_alpha: 0.8\nper_device_train_batch_size: 1", "has none to mix"),
        ("label_smoothing: 1", "label_smoothing is 1; wanted a share from 0 to below 1"),
        ("label_smoothing_factor: 0.1", "use stage 2's label_smoothing"),
        ("classifier_dropout: 1", "classifier_dropout is 1;"),
        ("drop_path_rate: 1", "drop_path_rate is 1;"),
        ("layer_decay: 0", "layer_decay is 0; wanted a share above 0 and at most 1 .1: none"),
        ("layer_decay: 1.2\noptimizer: adamw", "layer_decay is 1.2"),
        ("layer_decay: 0.5\noptimizer: adam", "layer_decay needs `optimizer: adamw`, not adam"),
        ("early_stopping_patience: 3\nload_best_model_at_end: false", "needs load_best_model_at_end"),
        (
            "early_stopping_patience: 3\neval_strategy: no\nload_best_model_at_end: false",
            "needs eval_strategy",
        ),
        ("early_stopping_patience: -3", "early_stopping_patience is -3"),
        ("early_stopping_patience: 3\nkeep_checkpoint: last", "`keep_checkpoint: last` would drop it"),
        (
            "base_learning_rate: 1e-4\nlearning_rate: 1e-4",
            "learning_rate and base_learning_rate are both set",
        ),
        ("base_learning_rate: -1", "base_learning_rate is -1; wanted a finite"),
        ("loss: focal", "cannot be read"),
        ("halt_on_explosion: true", "halt_on_explosion is for stage 1"),
    ],
)
def test_contradictions_of_stage_2_are_named(write, text, message):
    with pytest.raises(UserError, match=message):
        parse_config(ClassificationArguments, write(text))


def test_averaged_weights_are_refused_where_they_are_sharded(write, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="cannot average sharded weights"):
        parse_config(MAEArguments, write("ema_decay: 0.99"))


def test_a_tracker_that_is_not_installed_is_named(write, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="report_to trackio needs the package trackio"):
        parse_config(MAEArguments, write("report_to: trackio"))


def test_several_trackers_from_file_or_command_line(write, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    recipe = parse_config(MAEArguments, write("report_to: [tensorboard, wandb]"))
    assert recipe.training.report_to == ["tensorboard", "wandb"]
    words = [*write("seed: 1"), "--report_to", "trackio", "tensorboard", "--seed", "2"]
    assert parse_config(MAEArguments, words).training.report_to == ["trackio", "tensorboard"]
    assert parse_config(MAEArguments, write("report_to: wandb")).training.report_to == ["wandb"]


def test_the_learning_rate_follows_the_global_batch(write):
    text = "base_learning_rate: 1e-3\nper_device_train_batch_size: 32\ngradient_accumulation_steps: 4"
    assert parse_config(MAEArguments, write(text)).training.learning_rate == pytest.approx(5e-4)
    unset = [*write(text), "--base_learning_rate", "0", "--learning_rate", "2e-3"]
    assert parse_config(MAEArguments, unset).training.learning_rate == 2e-3


@pytest.mark.parametrize("asked", ["auto", "bf16", "fp32"])
@pytest.mark.parametrize("computes_bf16", [True, False])
def test_precision_reaches_accelerate(write, monkeypatch, asked, computes_bf16):
    """`mixed_precision` is what the Trainer hands on; transformers sets it before our option is read."""
    monkeypatch.setattr("medhiera.config.parser.machine_computes_bf16", lambda use_cpu: computes_bf16)
    training = parse_config(MAEArguments, write(f"precision: {asked}")).training
    wanted = {"auto": computes_bf16, "bf16": True, "fp32": False}[asked]
    assert (training.bf16, training.mixed_precision) == (wanted, "bf16" if wanted else "no")


def test_keep_last_does_not_load_the_best(write):
    kept = parse_config(ClassificationArguments, write("image_size: 64")).training
    assert kept.load_best_model_at_end and kept.metric_for_best_model == "selection_auroc"
    assert kept.greater_is_better
    by_loss = parse_config(ClassificationArguments, write("metric_for_best_model: eval_loss")).training
    assert by_loss.load_best_model_at_end and not by_loss.greater_is_better
    last = parse_config(ClassificationArguments, write("keep_checkpoint: last")).training
    assert not last.load_best_model_at_end


def test_what_repeats_in_every_recipe_is_a_default_that_a_recipe_can_change(write):
    training = parse_config(MAEArguments, write("image_size: 64")).training
    assert (training.seed, training.max_grad_norm, training.save_total_limit) == (0, 0.0, 2)
    assert (training.eval_strategy, training.save_strategy) == ("epoch", "epoch")
    assert not training.load_best_model_at_end
    changed = parse_config(MAEArguments, write("seed: 7\nmax_grad_norm: 1\nsave_total_limit: 5")).training
    assert (changed.seed, changed.max_grad_norm, changed.save_total_limit) == (7, 1.0, 5)


def test_nothing_is_pinned_for_a_cpu(write):
    training = parse_config(MAEArguments, write("image_size: 64")).training
    assert not training.dataloader_pin_memory and not training.accelerator_config.non_blocking


@pytest.mark.gpu
def test_batches_are_pinned_and_copied_to_a_gpu_without_waiting(write):
    training = parse_config(MAEArguments, write("image_size: 64")[:-2]).training
    assert training.dataloader_pin_memory and training.accelerator_config.non_blocking
    plain = parse_config(MAEArguments, write("dataloader_pin_memory: false")[:-2]).training
    assert not plain.dataloader_pin_memory and not plain.accelerator_config.non_blocking


def test_the_paper_recipes_have_none_of_the_modern_options(tmp_path):
    for stage, name in ((MAEArguments, "mae_paper"), (ClassificationArguments, "cls_paper")):
        words = [str(CONFIGS / f"{name}.yaml"), "--data_dir", "d", "--output_dir", str(tmp_path)]
        recipe = parse_config(stage, [*words, "--use_cpu", "true"])
        plain = OptimizationArguments(optimizer="adam", schedule="one_cycle", precision="fp32")
        assert recipe.optimization == plain
        assert recipe.augmentation == AugmentationArguments()
        assert recipe.stage == (
            MAEArguments()
            if stage is MAEArguments
            else ClassificationArguments(rotation_degrees=30, rotation_interpolation="nearest")
        )


def test_an_image_size_alone_does_not_cut_the_picture(write):
    words = write("image_size: 1024\nresize_size: 1024")
    with pytest.raises(
        UserError, match="evaluation sees 25% of a square picture; add --resize_size 512 to see"
    ):
        parse_config(MAEArguments, [*words, "--image_size", "512"])
    for resize_size in ("512", "1024"):
        data = parse_config(MAEArguments, [*words, "--image_size", "512", "--resize_size", resize_size]).data
        assert data.resize_size == int(resize_size)
    words = write("resize_size: 256")
    with pytest.raises(UserError, match="image_size 128 .*sees 25%.*add --resize_size 146 to see as much"):
        parse_config(MAEArguments, [*words, "--image_size", "128"])
    assert parse_config(MAEArguments, [*words, "--image_size", "256"]).data.resize_size == 256


def test_all_faults_at_once(write):
    with pytest.raises(UserError) as caught:
        parse_config(MAEArguments, write("image_size: 100\nmask_ratio: 1.5\neval_mask_ratio: 0"))
    message = str(caught.value)
    assert "image_size is 100; wanted a multiple of 32, such as 96 or 128" in message
    assert "mask_ratio is 1.5" in message
    assert "eval_mask_ratio is 0" in message


def test_what_another_option_replaces_is_said(write, caplog):
    with caplog.at_level("WARNING", logger="medhiera"):
        parse_config(
            ClassificationArguments,
            write("optimizer: adam\nschedule: one_cycle\nwarmup_steps: 10\noptim: sgd"),
        )
    assert "warmup_steps has no effect with schedule: one_cycle" in caplog.text
    assert "optim has no effect with optimizer: adam" in caplog.text
    caplog.clear()
    parse_config(ClassificationArguments, write("warmup_steps: 10\noptimizer: adamw"))
    assert "no effect" not in caplog.text


def test_a_finished_stage_is_not_trained_over(write, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("metrics.json", "README.md"):
        (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(UserError, match="already holds a finished stage; choose another --output_dir"):
        parse_run_config(PRETRAINING, write("image_size: 64"))


def test_the_trainer_never_pushes_by_itself(write):
    recipe = parse_config(MAEArguments, [*write("image_size: 64"), "--push_to_hub", "true"])
    assert recipe.hub_id == "out" and recipe.training.push_to_hub is False
    named = ["--push_to_hub", "true", "--hub_model_id", "me/mine"]
    assert parse_config(MAEArguments, [*write("image_size: 64"), *named]).hub_id == "me/mine"
    assert parse_config(MAEArguments, write("image_size: 64")).hub_id is None


def test_data_without_validation_images_is_refused_with_the_rest(write, tmp_path):
    for name in ("COVIDx_CXR", "MICCAI_BraTS2020_TrainingData"):
        (tmp_path / "data" / name).mkdir(parents=True)
    words = [*write("image_size: 100"), "--data_dir", str(tmp_path / "data")]
    with pytest.raises(
        UserError, match="no validation images; add ChestXray-NIHCC or rsna.* or own_images"
    ) as caught:
        parse_run_config(PRETRAINING, words)
    assert "COVIDx_CXR, MICCAI_BraTS2020" in str(caught.value) and "multiple of 32" in str(caught.value)
    (tmp_path / "data" / "ChestXray-NIHCC").mkdir()
    with pytest.raises(UserError) as caught:
        parse_run_config(PRETRAINING, words)
    assert "validation images" not in str(caught.value)


def test_a_recipe_that_is_nowhere_is_answered_with_ours():
    with pytest.raises(
        UserError, match="no recipe at nowhere.yaml; .* or one of ours: cls_512, .*, mae_paper,"
    ):
        parse_config(MAEArguments, ["nowhere.yaml"])
    with pytest.raises(UserError, match="no recipe at mine/mae_paper.yaml"):
        parse_config(MAEArguments, ["mine/mae_paper.yaml"])


@pytest.mark.parametrize(
    "name", ["mae_smoke", "mae_smoke.yaml", "configs/mae_smoke.yaml", "configs/mae_smoke"]
)
def test_our_recipes_are_known_by_name_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--data_dir", "d", "--output_dir", "o", "--use_cpu", "true"]
    assert parse_config(MAEArguments, [name, *words]).training.max_steps == 400
    own = tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("max_steps: 7")
    assert parse_config(MAEArguments, [name, *words]).training.max_steps == 7  # a file of yours goes first


def test_a_stage_1_key_is_unknown_in_stage_2(write):
    with pytest.raises(UserError, match="unknown key 'mask_ratio'"):
        parse_config(ClassificationArguments, write("mask_ratio: 0.6"))


def test_what_is_off_is_not_recorded_and_what_is_on_is(write):
    plain = parse_config(ClassificationArguments, write("seed: 3")).as_json()
    assert not {"mixup_alpha", "rand_augment", "legacy_head", "ema_decay", "loss"} & plain.keys()
    text = "mixup_alpha: 0.4\nrand_augment: true\nkeep_checkpoint: last\nwarmup_steps: 5"
    record = parse_config(ClassificationArguments, write(text)).as_json()
    expected = {"mixup_alpha": 0.4, "rand_augment": True, "keep_checkpoint": "last", "warmup_steps": 5}
    assert expected.items() <= record.items()


def test_no_path_of_the_user_is_recorded(write, tmp_path):
    recipe = parse_config(MAEArguments, [*write("seed: 3"), "--model_name_or_path", str(tmp_path)])
    assert str(tmp_path) not in str(recipe.as_json())


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("gradient_checkpointing: true", []),
        ("seed: 1", ["--gradient_checkpointing=true"]),
        ("seed: 1", ["--gradient-checkpointing", "true"]),
    ],
)
def test_recomputing_activations_goes_by_either_name(write, text, typed):
    """transformers 5.24 renamed it; recipes keep the name that all supported versions know."""
    training = parse_config(MAEArguments, [*write(text), *typed]).training
    assert training.gradient_checkpointing or training.activation_checkpointing


def test_a_label_fraction_is_a_share_and_shown_where_set(write):
    recipe = parse_config(ClassificationArguments, [*write("seed: 1"), "--label_fraction", "0.01"])
    assert recipe.as_json()["label_fraction"] == recipe.shaping_a_step()["label_fraction"] == 0.01
    assert "label_fraction" not in parse_config(ClassificationArguments, write("seed: 1")).as_json()
    for wrong in ("0", "1.5", "-0.1", ".nan"):
        with pytest.raises(UserError, match="label_fraction.*above 0 and at most 1"):
            parse_config(ClassificationArguments, write(f"label_fraction: {wrong}"))
    with pytest.raises(UserError, match="label_fraction and max_train_images"):
        parse_config(ClassificationArguments, write("label_fraction: 0.1\nmax_train_images: 5"))


@pytest.mark.parametrize(("schedule", "is_said"), [("cosine", True), ("constant", False)])
def test_patience_inside_a_falling_rate_is_pointed_out(schedule, is_said, tmp_path, caplog):
    words = ["--data_dir", "d", "--output_dir", str(tmp_path), "--early_stopping_patience", "3"]
    with caplog.at_level("WARNING", logger="medhiera"):
        parse_config(ClassificationArguments, [*words, "--lr_scheduler_type", schedule, "--use_cpu", "true"])
    said = "early_stopping_patience can end this run before its learning rate has fallen"
    assert (said in caplog.text) == is_said
