"""The moving average: what it averages, when it is evaluated, what is saved, and that resuming keeps it."""

import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from tiny_training import make_trainer, tiny_classifier, tiny_mae, weights
from transformers import TrainerCallback, TrainerControl, TrainerState

from medhiera.config.arguments import OptimizationArguments
from medhiera.training.ema import EMA, EMA_FILE, EMACallback

AVERAGED = OptimizationArguments(optimizer="adam", schedule="one_cycle", ema_decay=0.9)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_average_is_lent_bit_for_bit():
    model = tiny_classifier()
    average = EMA(model, 0.5)
    raw = {name: tensor.add(1) for name, tensor in model.state_dict().items()}
    model.load_state_dict(raw)
    before = weights(average.average.module)
    with average.lent():
        assert same(model.state_dict(), before) and same(average.average.module.state_dict(), raw)
    assert same(model.state_dict(), raw) and same(average.average.module.state_dict(), before)


def test_it_is_timms_average_bit_for_bit():
    model = tiny_mae()
    average = EMA(model, 0.9)
    timms = ModelEmaV3(model, decay=0.9, use_warmup=True)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        average.update(step)
        timms.update(model, step=step)
        assert same(timms.module.state_dict(), average.average.module.state_dict())
    assert not same(weights(model), weights(timms.module))


def test_a_batch_norm_is_averaged_as_timm_does_and_its_counter_copied():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    ours, timms = EMA(model, 0.9), ModelEmaV3(model, decay=0.9, use_warmup=True)
    for step in (1, 2, 3):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        model(torch.randn(5, 3))  # moves the running statistics
        ours.update(step)
        timms.update(model, step)
    found, wanted = (one.state_dict() for one in (ours.average.module, timms.module))
    assert found["1.num_batches_tracked"] == 3
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


def test_it_follows_each_step_with_timms_warm_up(tmp_path):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = EMA(model, 0.9)
    expected = 0.0
    for step in range(1, 40):
        with torch.no_grad():
            model.weight += 1
        average.update(step)
        decay = 0.0 if step == 1 else min(0.9, 1 - (step) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * step
        assert average.average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    average.save(tmp_path)
    restored = EMA(model, 0.9)
    restored.load(tmp_path)
    assert same(restored.average.module.state_dict(), average.average.module.state_dict())


def test_a_finished_run_holds_the_average_and_raw_the_rest(tmp_path):
    plain = make_trainer(tmp_path / "plain")
    plain.train()
    trainer = make_trainer(tmp_path / "averaged", AVERAGED)
    seen = []

    class Watch(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            seen.append(weights(trainer.average.average.module))

    trainer.add_callback(Watch())
    trainer.train()
    assert same(load_file(tmp_path / "averaged" / "raw" / "model.safetensors"), weights(plain.model))
    assert (tmp_path / "averaged" / "raw" / "config.json").is_file()
    assert same(weights(trainer.model), seen[-1])
    assert not same(weights(trainer.model), weights(plain.model))


def test_evaluation_is_the_averages(tmp_path):
    trainer = make_trainer(tmp_path, AVERAGED, eval_strategy="steps", eval_steps=4)
    trainer.train()
    during = next(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(during, abs=1e-7)


def test_a_resumed_run_ends_with_the_same_average(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    whole = make_trainer(tmp_path / "whole", AVERAGED, **saving)
    whole.train()
    assert (tmp_path / "whole" / "checkpoint-4" / EMA_FILE).is_file()
    resumed = make_trainer(tmp_path / "resumed", AVERAGED, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert same(weights(whole.model), weights(resumed.model))
    raw = [load_file(tmp_path / run / "raw" / "model.safetensors") for run in ("whole", "resumed")]
    assert same(*raw) and not same(raw[0], weights(whole.model))


def test_the_best_checkpoints_average_is_loaded(tmp_path):
    """The highest loss counts as best here, so that it is not the last one."""
    trainer = make_trainer(
        tmp_path, OptimizationArguments(ema_decay=0.9, schedule="trainer"), learning_rate=0.5,
        eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2, max_steps=6,
        load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    best = tmp_path / f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_global_step < 6
    assert same(weights(trainer.model), load_file(best / EMA_FILE))
    assert same(load_file(tmp_path / "raw" / "model.safetensors"), load_file(best / "model.safetensors"))


class Tied(torch.nn.Module):
    """Two names for one weight, as a language model's embedding and head."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
        self.head.weight = self.embedding.weight


def test_a_weight_of_two_names_is_averaged_lent_and_saved_once(tmp_path):
    model = Tied()
    average = EMA(model, 0.9)
    before = model.embedding.weight.detach().clone()
    with torch.no_grad():
        model.embedding.weight += 1
    average.update(1000)  # after the warm-up
    assert torch.allclose(average.average.module.head.weight, before + 0.1)
    with average.lent():
        assert torch.allclose(model.head.weight, before + 0.1)
    assert torch.equal(model.head.weight, before + 1)
    average.save(tmp_path)
    restored = EMA(Tied(), 0.9)
    restored.load(tmp_path)
    assert torch.equal(restored.average.module.head.weight, average.average.module.head.weight)
    assert len(load_file(tmp_path / EMA_FILE)) == 1


def test_a_short_run_says_which_decay_it_reaches(caplog):
    model = torch.nn.Linear(2, 2)
    callback, state = EMACallback(EMA(model, 0.9998)), TrainerState(max_steps=22_800)
    with caplog.at_level("INFO"):
        callback.on_train_begin(None, state, TrainerControl())
        assert "is 0.9988 at the last, 22800; ema_decay 0.9998 is not reached" in caplog.text
        caplog.clear()
        EMACallback(EMA(model, 0.9)).on_train_begin(None, state, TrainerControl())
    assert caplog.text == ""
