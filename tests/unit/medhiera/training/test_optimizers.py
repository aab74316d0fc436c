"""The recipes' optimizers: one group for each pair of learning rate and decay, fused, and resumed so."""

import shutil

import pytest
import torch
from timm.optim import param_groups_layer_decay
from tiny_training import make_trainer, tiny_classifier, tiny_mae, weights

from medhiera.config.arguments import OptimizationArguments
from medhiera.errors import UserError
from medhiera.training.optimizers import layer_decay_groups

ADAMW = OptimizationArguments(optimizer="adamw")
SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


@pytest.mark.parametrize(
    ("layer_decay", "weight_decay", "count"), [(1.0, 0.05, 2), (1.0, 0.0, 1), (0.5, 0.05, 14), (0.5, 0.0, 7)]
)
@pytest.mark.parametrize("model", [tiny_classifier, tiny_mae])
def test_parameters_that_learn_alike_are_one_group(model, layer_decay, weight_decay, count):
    """Five blocks, what is below them and what is above: seven rates at most, with and without decay."""
    groups = layer_decay_groups(model(), 1e-3, weight_decay, layer_decay)
    assert len(groups) == len({(group["lr"], group["weight_decay"]) for group in groups}) == count


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_step_is_fused_and_agrees_with_the_plain_one(name, tmp_path):
    trainer = make_trainer(tmp_path, OptimizationArguments(optimizer=name), weight_decay=0.1)
    fused = trainer.create_optimizer()
    assert all(group["fused"] for group in fused.param_groups)
    copies = [
        group | {"params": [parameter.detach().clone() for parameter in group["params"]], "fused": None}
        for group in fused.param_groups
    ]
    plain = type(fused)(copies)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for ours, theirs in zip(fused.param_groups, copies, strict=True):
            for one, other in zip(ours["params"], theirs["params"], strict=True):
                one.grad = torch.randn(one.shape, generator=generator)
                other.grad = one.grad.clone()
        fused.step()
        plain.step()
    for ours, theirs in zip(fused.param_groups, copies, strict=True):
        for one, other in zip(ours["params"], theirs["params"], strict=True):
            torch.testing.assert_close(one.detach(), other, atol=1e-6, rtol=1e-5)


def test_a_resumed_run_has_the_same_weights_and_a_fused_step_whoever_wrote_its_state(tmp_path):
    """A state that was written by a step that is not fused says so."""
    whole = make_trainer(tmp_path, ADAMW, **SAVING)
    whole.train()
    path = tmp_path / "checkpoint-2" / "optimizer.pt"
    state = torch.load(path, weights_only=True)
    for group in state["param_groups"]:
        group["fused"] = None
    torch.save(state, path)
    resumed = make_trainer(tmp_path, ADAMW, **SAVING)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(group["fused"] for group in resumed.optimizer.param_groups)
    expected = weights(whole.model)
    assert all(torch.equal(expected[name], tensor) for name, tensor in resumed.model.state_dict().items())


def test_a_state_of_other_groups_is_refused_in_words(tmp_path):
    """timm's own groups, two a block, which an earlier version took as they are."""
    trainer = make_trainer(tmp_path, ADAMW, **SAVING)
    trainer.train()
    earlier = param_groups_layer_decay(trainer.model, weight_decay=0.05, layer_decay=1.0)
    optimizer = torch.optim.AdamW([{"params": group["params"]} for group in earlier])
    torch.save(optimizer.state_dict(), tmp_path / "checkpoint-2" / "optimizer.pt")
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = make_trainer(tmp_path, ADAMW, **SAVING)
    with pytest.raises(UserError, match=rf"has {len(earlier)} groups .* this run has 1, .* in all"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
