"""What our Trainer does not take of transformers' options is refused before data is read."""

import re
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments

from medhiera.config.parser import parse_config
from medhiera.config.refused_options import NOT_TAKEN
from medhiera.config.report_arguments import ReportArguments
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.config.training_options import _launch_faults, use_tf32
from medhiera.errors import UserError


def read(tmp_path, *words, stage=ClassificationArguments):
    own = ["--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    return parse_config(stage, [*own, *words])


REFUSED = {
    # a run with it ended in a trace, after hours of training where it is so marked
    "--batch_eval_metrics true": "AUROC is of a whole split",
    "--prediction_loss_only true": "prediction_loss_only is not taken",  # after training
    "--label_names pixel_values": "label_names is not taken",  # at the first evaluation
    "--eval_do_concat_batches false": "the scores of a split are one table",
    "--bf16_full_eval true": "single precision",  # after training
    "--fp16_full_eval true": "single precision",
    "--train_sampling_strategy group_by_length": "seed and epoch alone",
    "--dataloader_persistent_workers true": "set dataloader_num_workers above 0",
    "--use_liger_kernel true": "for models of text",
    "--metric_for_best_model nothing": "wanted one of selection_auroc, mean_auroc, auroc_",
    "--report_to nothing": "report_to is nothing; wanted some of",
    "--torch_compile_backend nothing": "torch_compile_backend is nothing; wanted one of .*inductor",
    "--torch_compile_mode nothing": "torch_compile_mode is nothing; wanted one of default",
    "--torch_compile_mode reduce-overhead --gradient_accumulation_steps 2": "replays a step in the memory",
    "--torch_compile_mode max-autotune --gradient_accumulation_steps 2": "set it to 1 and a larger batch",
    "--ddp_static_graph true --gradient_accumulation_steps 2": "fails inside torch where gradients are acc",
    "--lr_scheduler_type cosine_with_min_lr": "lr_scheduler_type cosine_with_min_lr with .* cannot be used",
    '--lr_scheduler_type cosine --lr_scheduler_kwargs {"speed":1}': "cannot be used: .*speed",
    "--optim adamw_8bit": "optim adamw_8bit cannot be used: .*bitsandbytes",
    # a run with it gave a wrong number, or another run than the record says, without a word
    "--dataloader_in_order false": "scores of others",
    "--greater_is_better false": "would keep the checkpoint of the worst selection_auroc",
    "--metric_for_best_model loss --greater_is_better true": "of the worst loss",
    "--neftune_noise_alpha 5": "for models of text",
    "--train_sampling_strategy sequential": "seed and epoch alone",
    "--data_seed 5": "follows from `seed`",
    "--ignore_data_skip true": "images twice and others never",
    "--save_only_model true": "could not be resumed",
    "--auto_find_batch_size true": "change the batch without a word",
    "--average_tokens_across_devices false": "all ranks together",
    '--accelerator_config {"split_batches":true}': "which images a rank reads",
    "--do_train false": "evaluate_cls.py only evaluates",
    "--hub_private_repo true": "hub_private_repo is set without push_to_hub",
    "--label_smoothing_factor 0.1": "use stage 2's label_smoothing",
    "--include_for_metrics inputs": "include_for_metrics is not taken",
    "--enable_jit_checkpoint true": "SIGTERM writes a checkpoint already",
}


@pytest.mark.parametrize("words", REFUSED)
def test_an_option_that_reaches_where_it_should_not_is_refused(words, tmp_path):
    with pytest.raises(UserError, match=REFUSED[words]):
        read(tmp_path, *words.split(" "))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--save_strategy best", "save_strategy best needs metric_for_best_model, one of loss"),
        ("--metric_for_best_model selection_auroc", "is selection_auroc; wanted one of loss"),
        ("--prediction_loss_only true", "each stage knows this by itself"),
    ],
)
def test_stage_1_has_a_loss_alone(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(tmp_path, *words.split(" "), stage=MAEArguments)


def test_what_is_refused_is_a_field_and_its_default_is_taken(tmp_path):
    defaults = {field.name: field.default for field in fields(TrainingArguments)}
    assert NOT_TAKEN.keys() <= defaults.keys()
    for name in ("dataloader_in_order", "ignore_data_skip", "eval_do_concat_batches", "save_only_model"):
        read(tmp_path, f"--{name}", str(defaults[name]))


def test_bf16_is_the_users_where_it_is_given(tmp_path):
    """`precision: auto` decides where nobody did."""
    assert read(tmp_path, "--bf16", "true").training.bf16 is True
    assert read(tmp_path, "--bf16", "false").training.bf16 is False


@pytest.mark.parametrize(
    ("words", "searches", "is_static"),
    [
        ("", False, True),
        (
            "--gradient_accumulation_steps 2",
            False,
            False,
        ),  # static, DDP fails where it is told not to reduce yet
        ("--torch_compile true", False, False),
        ("--ddp_find_unused_parameters true --ddp_static_graph false", True, False),
    ],
)
def test_ranks_do_not_search_for_parameters_without_a_gradient(words, searches, is_static, tmp_path):
    training = read(tmp_path, *words.split()).training
    assert (training.ddp_find_unused_parameters, training.ddp_static_graph) == (searches, is_static)


@pytest.mark.parametrize("mode", ["default", "max-autotune-no-cudagraphs"])
def test_a_compiled_step_without_cuda_graphs_takes_accumulation(mode, tmp_path):
    read(tmp_path, "--torch_compile_mode", mode, "--gradient_accumulation_steps", "2")


@pytest.fixture
def cudnn_attention():
    """Allowed, as torch starts; afterwards as it was."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("stage", [MAEArguments, ClassificationArguments, ReportArguments])
@pytest.mark.parametrize(
    ("mode", "is_allowed"),
    [
        ("reduce-overhead", False),
        ("max-autotune", False),
        ("max-autotune-no-cudagraphs", True),
        ("default", True),
    ],
)
def test_a_recorded_step_does_not_take_cudnns_attention(stage, mode, is_allowed, cudnn_attention, tmp_path):
    assert read(tmp_path, "--torch_compile_mode", mode, stage=stage).training.torch_compile
    assert torch.backends.cuda.cudnn_sdp_enabled() is is_allowed


def rounding(device):
    """Largest error of a product in float32, to that in float64, where single precision has some 1e-5."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(512, 512, generator=generator).to(device) for _ in range(2))
    return (one @ other - (one.double() @ other.double())).abs().max().item()


def test_single_precision_stays_so_on_a_cpu(tmp_path):
    assert read(tmp_path, "--precision", "fp32").training.tf32 is None
    assert rounding("cpu") < 1e-3


def test_torch_can_be_asked_about_tf32_in_its_old_words_and_its_new_ones(tmp_path):
    """It raises where they differ, as after transformers' own switch; torch.export and others ask."""
    read(tmp_path, "--tf32", "false")
    for is_on in (False, True, False):
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is is_on
        assert torch.get_float32_matmul_precision() == ("high" if is_on else "highest")
        use_tf32(not is_on)
    use_tf32(False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("words", [(), ("--tf32", "false")])
def test_what_stays_float32_is_multiplied_as_tf32_on_a_gpu(words, tmp_path):
    own = ["--data_dir", "d", "--output_dir", str(tmp_path), *words]
    training = parse_config(ClassificationArguments, own).training
    try:
        assert training.tf32 is (not words)
        assert (rounding("cuda") > 5e-3) == (not words)
    finally:
        use_tf32(False)


EPOCHS_IN_FILE, STEPS_IN_FILE = "num_train_epochs: 3\n", "max_steps: 9\n"


@pytest.mark.parametrize(
    ("text", "words", "steps", "epochs"),
    [
        (STEPS_IN_FILE, ["--num_train_epochs", "2"], -1, 2.0),
        (STEPS_IN_FILE, ["--num-train-epochs=2"], -1, 2.0),
        (EPOCHS_IN_FILE, ["--max_steps", "7"], 7, 3.0),
        (EPOCHS_IN_FILE + STEPS_IN_FILE, ["--num_train_epochs", "2"], -1, 2.0),
        (EPOCHS_IN_FILE, ["--max_steps", "-1", "--num_train_epochs", "5"], -1, 5.0),
    ],
)
def test_the_command_line_says_how_long_a_run_is(text, words, steps, epochs, tmp_path, caplog):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    own = ["--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    config = parse_config(MAEArguments, [str(recipe), *own, *words])
    assert (config.training.max_steps, config.training.num_train_epochs) == (steps, epochs)
    assert ("takes the place of the recipe's" in caplog.text) == ("-1" not in words)
    assert ("max_steps" in config.as_json()) == (steps > 0)


@pytest.mark.parametrize("text", ["", EPOCHS_IN_FILE + STEPS_IN_FILE])
def test_two_lengths_in_one_place_are_refused(text, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text + "seed: 1\n")
    words = [] if text else ["--max_steps", "4", "--num_train_epochs", "2"]
    with pytest.raises(UserError, match="max_steps and num_train_epochs are both set"):
        parse_config(MAEArguments, [str(recipe), "--data_dir", "d", "--output_dir", str(tmp_path), *words])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; wanted `field: value` lines"),
        (b"# nothing yet\n", "is empty"),
        (b"- seed\n- 1\n", "holds list; wanted one mapping"),
        (b"seed: 1\nimage_size: 64\nseed: 2\n", "'seed' is set twice, in lines 1 and 3"),
        (b"model_overrides:\n  depths: [1]\n  depths: [2]\n", "'depths' is set twice, in lines 2 and 3"),
        ("seed: 1 # größer".encode("latin-1"), "is not UTF-8 text .byte 0xf6 at position"),
        ("seed: 1".encode("utf-16"), "is not UTF-8 text .byte 0xff at position 0"),
        (b"model_overrides:\n\tdepths: [1]\n", r"(?s)is not YAML: .*\\t"),
        (b"seed: 1\x00", "is not YAML"),
        (b"model_overrides: &a {b: *a}\n", "is not YAML|is no plain YAML value"),
        (b"seed: [1, 2]\n", r"seed is the list \[1, 2\]; wanted one value"),
        (b"seed: {a: 1}\n", 'seed is {"a": 1}; wanted a whole number'),
        (b"run_name: 2020-13-45\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_words(content, message, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    with pytest.raises(UserError, match=message):
        parse_config(MAEArguments, [str(recipe), "--data_dir", "d", "--output_dir", str(tmp_path)])


def test_a_recipe_of_a_windows_editor_is_read(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(b"\xef\xbb\xbfseed: 3\r\n")
    words = [str(recipe), "--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    assert parse_config(MAEArguments, words).training.seed == 3


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="is a folder; wanted a recipe"):
        parse_config(MAEArguments, [str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "said", "typed"),
    [
        (
            "--save_strategy steps --save_steps 50",
            "saved every 50 steps and validated each epoch",
            "--eval_strategy steps --eval_steps 50",
        ),
        (
            "--eval_strategy steps --eval_steps 100 --save_strategy steps --save_steps 50",
            "saved every 50 steps and validated every 100 steps",
            "--eval_strategy steps --eval_steps 50",
        ),
        (
            "--eval_strategy steps --eval_steps 30 --save_strategy steps --save_steps 100",
            "saved every 100 steps and validated every 30 steps",
            "--save_steps 90",
        ),
        (
            "--eval_strategy steps --eval_steps 30",
            "saved each epoch and validated every 30 steps",
            "--save_strategy steps --save_steps 30",
        ),
        (
            "--eval_strategy steps --eval_steps 0.25 --save_strategy steps --save_steps 0.1",
            "saved every 0.1 of all steps and validated every 0.25 of all steps",
            "--eval_strategy steps --eval_steps 0.1",
        ),
        (
            "--eval_strategy steps --eval_steps 0.25 --save_strategy steps --save_steps 50",
            "saved every 50 steps and validated every 0.25 of all steps",
            "--eval_strategy steps --eval_steps 50",
        ),
        ("--eval_strategy no", "saved each epoch and validated never", "--eval_strategy epoch"),
    ],
)
def test_a_checkpoint_that_is_not_validated_is_refused_with_what_to_type(tmp_path, words, said, typed):
    with pytest.raises(UserError, match=said) as refusal:
        read(tmp_path, *words.split())
    assert f"; add {typed}, or" in str(refusal.value) and "load_best_model_at_end requires" not in str(
        refusal.value
    )
    read(tmp_path, *words.split(), *typed.split())
    read(tmp_path, *words.split(), "--load_best_model_at_end", "false")


def test_steps_without_their_strategy_are_said_to_have_no_effect(tmp_path, caplog):
    read(tmp_path, "--save_steps", "50")
    assert "save_steps has no effect with save_strategy: epoch; add --save_strategy steps" in caplog.text


FACTOR = "--size_defaults true --optimizer adamw --size_rate_factor 0.1"


@pytest.mark.parametrize(
    ("stage", "words", "said"),
    [
        (
            ClassificationArguments,
            f"{FACTOR} --learning_rate 1e-3",
            "size_rate_factor 0.1 .* with learning_rate",
        ),
        (ClassificationArguments, f"{FACTOR} --base_learning_rate 1e-3", "effect with base_learning_rate"),
        (ClassificationArguments, "--rotation_interpolation nearest", "no effect without rotation_degrees"),
        (ClassificationArguments, "--reset_head true", "reset_head has no effect without model_name_or_path"),
        (MAEArguments, "--reset_decoder true", "reset_decoder has no effect without model_name_or_path"),
        (MAEArguments, "--mask_odds 5", "mask_odds has no effect with mask_region: none"),
    ],
)
def test_what_has_no_effect_is_said(stage, words, said, tmp_path, caplog):
    read(tmp_path, *words.split(), stage=stage)
    assert re.search(said, caplog.text)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (ClassificationArguments, FACTOR),
        (ClassificationArguments, "--rotation_interpolation nearest --rotation_degrees 30"),
        (ClassificationArguments, "--reset_head true --model_name_or_path me/mine"),
        (MAEArguments, "--mask_odds 5 --mask_region rectangle"),
    ],
)
def test_what_has_an_effect_is_not(stage, words, tmp_path, caplog):
    read(tmp_path, *words.split(), stage=stage)
    assert "no effect" not in caplog.text


@pytest.mark.parametrize(("found", "is_refused"), [(1, True), (2, False)])
def test_ranks_that_would_each_train_alone_are_refused(found, is_refused, monkeypatch):
    """What transformers finds on a machine without GPUs where accelerate started two, and of two that met."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    faults = list(_launch_faults(SimpleNamespace(world_size=found)))
    assert ["2 processes were started and this one would train alone" in fault for fault in faults] == (
        [True] if is_refused else []
    )
