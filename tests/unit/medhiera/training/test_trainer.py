"""The Trainer: parameter groups, losses, schedules, and what batches and accumulation must not change."""

import pytest
import torch
from tiny_training import PREPROCESSING, make_rows, make_trainer, tiny_classifier, tiny_mae, weights

from medhiera.config.arguments import OptimizationArguments
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import ClassificationArguments
from medhiera.data.dataset import RadiographCollator, RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.training.losses import TrainingLoss, choose_loss
from medhiera.training.optimizers import layer_decay_groups
from medhiera.training.trainer import MedHieraTrainer
from modeling_hiera_mae.modeling_hiera import masked_binary_cross_entropy

LABELS = torch.tensor([[1.0, float("nan"), 0.0], [0.0, 1.0, float("nan")]])
MODERN = OptimizationArguments(optimizer="adamw", schedule="trainer", layer_decay=0.5)


def rates_by_name(model, **options):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = layer_decay_groups(
        model, **{"learning_rate": 1.0, "weight_decay": 0.1, "layer_decay": 0.5} | options
    )
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    return found


def test_learning_rate_falls_with_depth():
    rates = rates_by_name(tiny_classifier())
    blocks = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
    expected = {f"hiera.encoder.stages.{s}.layers.{b}.": 0.5 ** (5 - n) for n, (s, b) in enumerate(blocks)}
    for name, (rate, _) in rates.items():
        block = next((rate for prefix, rate in expected.items() if name.startswith(prefix)), None)
        if block is None:
            block = 0.5**6 if "embeddings" in name else 1.0
        assert rate == pytest.approx(block), name


@pytest.mark.parametrize("model", [tiny_classifier, tiny_mae])
def test_norms_biases_positions_and_mask_token_do_not_decay(model):
    for name, (_, weight_decay) in rates_by_name(model(), layer_decay=1.0).items():
        spared = name.endswith((".bias", "position_embeddings", "mask_token")) or "norm" in name
        assert (weight_decay == 0) == spared, name


def test_the_decoder_learns_at_the_full_rate():
    rates = rates_by_name(tiny_mae())
    assert all(rate == 1 for name, (rate, _) in rates.items() if not name.startswith("hiera."))


@pytest.mark.parametrize("schedule", ["one_cycle", "trainer"])
def test_every_schedule_keeps_the_ratio_of_the_groups(schedule, tmp_path):
    options = OptimizationArguments(optimizer="adamw", schedule=schedule, layer_decay=0.5)
    trainer = make_trainer(tmp_path, options, lr_scheduler_type="cosine", warmup_steps=2, max_steps=10)
    optimizer = trainer.create_optimizer()
    scheduler = trainer.create_scheduler(10, optimizer)
    seen = set()
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        rates = [group["lr"] for group in optimizer.param_groups]
        assert max(rates) / min(rates) == pytest.approx(2**6)
        assert trainer._get_learning_rate() == max(rates)
        seen.add(round(max(rates), 6))
    assert len(seen) > 5


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_training_computes_in_the_precision_asked_for_and_the_report_in_single(tmp_path, precision):
    words = ["--data_dir", "data", "--output_dir", str(tmp_path), "--use_cpu", "true", "--max_steps", "2"]
    recipe = parse_config(
        ClassificationArguments,
        [*words, "--precision", precision, "--eval_strategy", "no", "--load_best_model_at_end", "false"],
    )
    recipe.training.report_to = []
    rows, model, seen = make_rows(), tiny_classifier(), []
    model.hiera.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    trainer = MedHieraTrainer(
        optimization=recipe.optimization,
        preprocessing=PREPROCESSING,
        model=model,
        args=recipe.training,
        train_dataset=RadiographDataset(rows, PREPROCESSING, with_labels=True),
        data_collator=RadiographCollator(with_ids=True),
    )
    trainer.train()
    assert seen == [precision == "bf16"] * 2
    seen.clear()
    trainer.disable_autocast()
    table = RadiographDataset(rows, PREPROCESSING, with_labels=True)
    given = trainer.predict(table).predictions
    assert seen == [False] * len(seen) and seen
    pixels = PREPROCESSING.pixel_values(rows["image"])
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(given), trainer.model(pixels).logits, atol=1e-6)


@pytest.mark.parametrize("options", [None, MODERN], ids=["paper", "modern"])
def test_a_batch_of_8_equals_8_accumulated_batches_of_1_with_nan_labels(options, tmp_path):
    """fp32, dropout and Mixup off; 2e-5: Adam divides rounding by the size of small gradients."""
    results = []
    for batch, steps in ((8, 1), (1, 8)):
        trainer = make_trainer(
            tmp_path / str(batch), options, learning_rate=1e-3, max_grad_norm=1.0,
            per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
        )  # fmt: skip
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        results.append((weights(trainer.model), losses))
    (whole, whole_losses), (split, split_losses) = results
    assert whole_losses == pytest.approx(split_losses, rel=1e-5)
    largest = max((whole[name] - split[name]).abs().max().item() for name in whole)
    assert largest < 2e-5, f"largest difference of a weight: {largest}"
    start = weights(tiny_classifier())
    assert max((whole[name] - start[name]).abs().max().item() for name in whole) > 1e-4  # it did learn


def test_smoothing_moves_annotated_labels_only_and_divides_by_all():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = TrainingLoss(label_smoothing=0.2)({"logits": logits}, LABELS, 10)
    smooth = LABELS * 0.8 + 0.1
    assert loss.item() == pytest.approx(masked_binary_cross_entropy(logits, smooth, 10).item())
    loss.backward()
    assert (logits.grad == 0).tolist() == LABELS.isnan().tolist()


def test_the_asymmetric_loss_is_the_papers_over_annotated_labels():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = TrainingLoss(is_asymmetric=True)({"logits": logits}, LABELS, 10)
    share = logits.detach().sigmoid()
    shifted = (share - 0.05).clamp(min=0)
    positive = -(1 - share) * share.log()  # γ+ 1
    negative = -(shifted**4) * (1 - shifted).log()  # γ- 4, margin 0.05
    expected = torch.where(LABELS == 1, positive, negative)[~LABELS.isnan()].sum() / 10
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert (logits.grad == 0).tolist() == LABELS.isnan().tolist()
    assert logits.grad.isfinite().all()


def test_evaluation_reports_plain_cross_entropy_for_every_loss():
    logits = torch.randn(2, 3)
    plain = masked_binary_cross_entropy(logits, LABELS)
    assert TrainingLoss(0.3, is_asymmetric=True)({"logits": logits}, LABELS) == plain


def test_the_papers_loss_is_the_models_own():
    assert choose_loss(ClassificationArguments()) is None
    assert choose_loss(ClassificationArguments(loss="asymmetric")) == TrainingLoss(0.0, True)


@pytest.mark.parametrize("loss", [TrainingLoss(0.1), TrainingLoss(0.0, True)], ids=["smooth", "asymmetric"])
def test_a_loss_of_ours_is_accumulated_as_the_models_own(loss, tmp_path):
    results = []
    for batch, steps in ((8, 1), (2, 4)):
        trainer = make_trainer(
            tmp_path / str(batch), per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
            compute_loss_func=loss, max_steps=1,
        )  # fmt: skip
        trainer.train()
        results.append(trainer.state.log_history[0]["loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize("images", [14, 16])
def test_accumulated_batches_of_a_masked_autoencoder_weigh_images_alike(images, tmp_path):
    """Of 14 images the last step of an epoch has 6: one batch, or accumulated ones of 4 and 2."""
    preprocessing = Preprocessing(image_size=64, resize_size=72, mean=0.5, std=0.25)
    found = []
    for batch, accumulation in ((8, 1), (4, 2)):
        model, rows = tiny_mae(), make_rows(images)
        table = RadiographDataset(
            rows, preprocessing, seed=42, masks=MaskDrawing(model.config.unit_grid, 0.5)
        )
        trainer = make_trainer(
            tmp_path, OptimizationArguments(schedule="trainer"), rows, model, table, optim="sgd",
            preprocessing=preprocessing, per_device_train_batch_size=batch, learning_rate=0.1,
            gradient_accumulation_steps=accumulation, lr_scheduler_type="constant",
        )  # fmt: skip
        trainer.train()
        found.append((weights(model), [entry["loss"] for entry in trainer.state.log_history[:4]]))
    (expected, losses), (accumulated, other_losses) = found
    assert other_losses == pytest.approx(losses, rel=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(accumulated[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [3, 4], ids=["mid epoch", "epoch's end"])
def test_resuming_from_the_last_step_trains_no_more(steps, tmp_path):
    """A run may be ended between its last checkpoint and its card."""
    saving = {"max_steps": steps, "save_strategy": "steps", "save_steps": 1}
    whole = make_trainer(tmp_path, **saving)
    whole.train()
    resumed = make_trainer(tmp_path, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps}"))
    assert resumed.state.global_step == steps
    expected = weights(whole.model)
    assert all(torch.equal(expected[name], tensor) for name, tensor in resumed.model.state_dict().items())


@pytest.mark.parametrize(
    ("schedule", "arguments", "goes_on"),
    [
        ("one_cycle", {}, False),
        ("trainer", {"lr_scheduler_type": "cosine"}, False),
        ("trainer", {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.5}, False),
        ("trainer", {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}, True),
        ("trainer", {"lr_scheduler_type": "constant"}, True),
    ],
)
def test_a_run_is_resumed_longer_only_where_its_schedule_has_no_end(schedule, arguments, goes_on, tmp_path):
    """Else its learning rate would jump: 2.5e-4, and 9.7e-4 after a cosine of 4 steps became one of 30."""
    saving = {"save_strategy": "steps", "save_steps": 2} | arguments
    optimization = OptimizationArguments(optimizer="adam", schedule=schedule)
    make_trainer(tmp_path, optimization, max_steps=4, **saving).train()
    longer = make_trainer(tmp_path, optimization, max_steps=6, **saving)
    checkpoint = str(tmp_path / "checkpoint-4")
    if goes_on:
        longer.train(resume_from_checkpoint=checkpoint)
        assert longer.state.global_step == 6
        return
    with pytest.raises(UserError, match="steps of the whole run was 4, now 6"):
        longer.train(resume_from_checkpoint=checkpoint)


def test_mixup_in_training_reaches_the_model(tmp_path):
    rows = make_rows()
    trainer = make_trainer(
        tmp_path, rows=rows, collator=RadiographCollator(with_ids=True, mixup_alpha=0.8),
        table=RadiographDataset(rows, PREPROCESSING, with_labels=True), max_steps=2,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0


def test_a_step_in_which_nothing_is_annotated_has_a_loss_of_zero(tmp_path):
    rows = make_rows(8).remove_columns("labels").add_column("labels", [[float("nan")] * 3] * 8)
    for loss in (None, TrainingLoss(0.1, is_asymmetric=True)):
        trainer = make_trainer(tmp_path, rows=rows, compute_loss_func=loss, max_steps=2)
        before = weights(trainer.model)
        trainer.train()
        assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] == [0.0, 0.0]
        assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer.model).items())


def test_a_resumed_run_logs_the_same_means(tmp_path):
    """Three steps a logged mean, a checkpoint every two: each saving ends a mean."""
    options = {"max_steps": 7, "logging_steps": 3, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(tmp_path, **options)
    whole.train()
    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    losses = [
        [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
        for trainer in (whole, resumed)
    ]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == [2, 3, 4, 6, 7]


@pytest.mark.parametrize("limit", [0, 1.0])
def test_gradients_are_measured_only_where_they_are_clipped(limit, tmp_path):
    """The gradients' norm is a pass over all of them, and another that multiplies each by 1."""
    trainer = make_trainer(tmp_path, max_grad_norm=limit, max_steps=2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        trainer.train()
    called = {event.key for event in profile.key_averages()}
    assert ("aten::_foreach_norm" in called) == (limit > 0)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert ["grad_norm" in entry for entry in logged] == [limit > 0] * 2
