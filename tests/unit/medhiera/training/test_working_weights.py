"""`precision: bf16_weights`: bf16 runs, float32 learns, is averaged, saved and published."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import PREPROCESSING, make_rows, make_trainer, tiny_classifier, weights

from medhiera.config.arguments import OptimizationArguments
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import MAEArguments
from medhiera.data.dataset import RadiographDataset
from medhiera.errors import UserError
from medhiera.training.ema import EMA_FILE
from medhiera.training.working_weights import WorkingWeights

HALF = OptimizationArguments(optimizer="adamw", precision="bf16_weights", ema_decay=0.5)
STEPS = {"max_steps": 6, "save_strategy": "steps", "eval_strategy": "steps"}
SAVING = STEPS | {"save_steps": 2, "eval_steps": 3}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_too_small_for_bf16_is_kept_until_it_counts():
    """1e-4 a step is below half a digit of bf16 at 1, so that bf16 alone would stay at 1 for ever."""
    master = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(master.weight)
    working = WorkingWeights(master)
    optimizer = torch.optim.SGD(master.parameters(), lr=1e-4)
    working.follow(optimizer)
    for step in range(1, 41):
        working.model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()
        working.model.zero_grad()
        assert master.weight.item() == pytest.approx(1 - 1e-4 * step, abs=1e-6)
        assert torch.equal(working.model.weight, master.weight.bfloat16())
    assert working.model.weight.item() < 1 and master.weight.grad is None


def test_it_runs_in_bf16_and_saves_float32_everywhere(tmp_path):
    trainer = make_trainer(tmp_path, HALF, **SAVING)
    seen = []
    trainer.model.hiera.pooler.layernorm.register_forward_hook(
        lambda layer, given, out: seen.append((layer.weight.dtype, out.dtype))
    )
    trainer.train()
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}  # evaluation too
    saved = ("checkpoint-4/model.safetensors", f"checkpoint-4/{EMA_FILE}", "raw/model.safetensors")
    for found in (load_file(tmp_path / file) for file in saved):
        assert {tensor.dtype for tensor in found.values()} == {torch.float32}
        assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in found.values())
    state = torch.load(tmp_path / "checkpoint-4" / "optimizer.pt", weights_only=True)["state"]
    assert {moment.dtype for one in state.values() for moment in one.values()} == {torch.float32}
    assert {tensor.dtype for tensor in trainer.model.state_dict().values()} == {torch.float32}
    seen.clear()
    trainer.disable_autocast()
    rows = make_rows()
    scored = trainer.predict(RadiographDataset(rows, PREPROCESSING, with_labels=True)).predictions
    with torch.no_grad():
        wanted = trainer.model(PREPROCESSING.pixel_values(rows["image"])).logits
    assert set(seen) == {(torch.float32, torch.float32)}
    torch.testing.assert_close(torch.from_numpy(scored), wanted)


def test_a_resumed_run_ends_with_the_same_weights_and_average(tmp_path):
    whole = make_trainer(tmp_path / "whole", HALF, **SAVING)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", HALF, **SAVING)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert same(weights(whole.model), weights(resumed.model))
    raw = [load_file(tmp_path / run / "raw" / "model.safetensors") for run in ("whole", "resumed")]
    assert same(*raw) and not same(raw[0], weights(whole.model))
    logs = [
        [(entry["step"], entry["eval_loss"]) for entry in trainer.state.log_history if "eval_loss" in entry]
        for trainer in (whole, resumed)
    ]
    assert logs[0] == logs[1]


def test_it_learns_as_single_precision_does(tmp_path):
    losses = []
    for precision in ("fp32", "bf16_weights"):
        trainer = make_trainer(
            tmp_path / precision, OptimizationArguments(optimizer="adamw", precision=precision), max_steps=12,
            per_device_train_batch_size=16, learning_rate=1e-3,
        )  # fmt: skip
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], abs=0.01)  # five seeds, two threads: at most .0025
    assert losses[1][-1] < losses[1][0] - 0.05


@pytest.mark.parametrize("steps", [1, 2])
def test_gradients_are_clipped_and_accumulated(steps, tmp_path):
    trainer = make_trainer(tmp_path, HALF, max_grad_norm=1e-3, gradient_accumulation_steps=steps, max_steps=2)
    trainer.train()
    assert all(entry["grad_norm"] > 1e-3 for entry in trainer.state.log_history if "loss" in entry)
    assert not same(weights(trainer.model), weights(tiny_classifier()))


def test_a_config_asks_for_it_without_autocast_and_shows_it(tmp_path, monkeypatch):
    words = ["--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    words += ["--precision", "bf16_weights"]
    config = parse_config(MAEArguments, words)
    assert (config.training.bf16, config.training.mixed_precision) == (False, "no")
    assert config.as_json()["precision"] == "bf16_weights"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="precision: bf16_weights keeps whole float32 weights"):
        parse_config(MAEArguments, words)
