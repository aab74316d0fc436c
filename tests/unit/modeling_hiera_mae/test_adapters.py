"""peft's LoRA on classifier and masked autoencoder: trained, saved, loaded, merged, and stock again."""

import os

import pytest
import torch
from model_configs import tiny_classifier, tiny_mae
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import HieraForImageClassification, HieraForPreTraining, Trainer, TrainingArguments

from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining

# peft reads the name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WIDE = {"embed_dim": 16, "num_heads": [1, 2, 2, 4]}  # the fused path takes such inputs
LINEAR_LAYERS = ["qkv", "proj", "fc1", "fc2"]


def lora(kind):
    """On the blocks; the new head is trained whole."""
    head = ["classifier"] if kind == "classifier" else None
    return LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR_LAYERS, modules_to_save=head)


@pytest.fixture(params=["classifier", "mae"])
def task(request, tmp_path):
    """A saved model, its classes, and inputs with what is learned."""
    kind = request.param
    torch.manual_seed(0)
    model = (tiny_classifier if kind == "classifier" else tiny_mae)(**WIDE)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "base")
    inputs = {"pixel_values": torch.randn(2, 3, 64, 64)}
    if kind == "classifier":
        inputs["labels"] = torch.tensor([[1.0, 0.0, float("nan")], [0.0, 1.0, 1.0]])
        return kind, HieraMAEForImageClassification, HieraForImageClassification, inputs
    return kind, HieraMAEForPreTraining, HieraForPreTraining, {**inputs, "noise": torch.rand(2, 4)}


def without_labels(inputs):
    return {name: value for name, value in inputs.items() if name != "labels"}


def test_lora_learns_and_its_round_trips_give_the_same_numbers(task, tmp_path):
    kind, ours, stock, inputs = task
    base = ours.from_pretrained(tmp_path / "base")
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    adapted = get_peft_model(base, lora(kind)).train()
    learned = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    total = sum(parameter.numel() for parameter in adapted.parameters())
    assert sum(parameter.numel() for parameter in learned) < 0.35 * total
    optimizer = torch.optim.AdamW(learned, lr=0.02)
    losses = []
    for _ in range(4):
        loss = adapted(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in learned)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, weight in adapted.get_base_model().state_dict().items():
        if name in before:  # those that peft has not wrapped
            assert torch.equal(weight, before[name]), name

    inputs = without_labels(inputs)
    with torch.no_grad():
        wanted = adapted.eval()(**inputs).logits
        assert (ours.from_pretrained(tmp_path / "base")(**inputs).logits - wanted).abs().max() > 1e-3
        # The adapter is a small folder, which our class and stock's open on the same base.
        adapted.save_pretrained(tmp_path / "adapter")
        for family in (ours, stock):
            again = PeftModel.from_pretrained(
                family.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
            ).eval()
            torch.testing.assert_close(again(**inputs).logits, wanted, rtol=1e-4, atol=1e-5)
        # Merged, it is a folder like any other.
        merged = adapted.merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        for family in (ours, stock):
            again = family.from_pretrained(tmp_path / "merged").eval()
            torch.testing.assert_close(again(**inputs).logits, wanted, rtol=1e-4, atol=1e-5)


def test_an_adapters_folder_is_told_how_it_is_opened(task, tmp_path):
    kind, ours, _, _ = task
    get_peft_model(ours.from_pretrained(tmp_path / "base"), lora(kind)).save_pretrained(tmp_path / "adapter")
    with pytest.raises(OSError, match="peft.PeftModel.from_pretrained"):
        ours.from_pretrained(tmp_path / "adapter")


def test_every_linear_layer_can_be_adapted(task, tmp_path):
    _, ours, _, inputs = task
    inputs = without_labels(inputs)
    base = ours.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        before = base(**inputs).logits
        settings = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        adapted = get_peft_model(base, settings).eval()
        found = adapted(**inputs).logits
        assert (found - before).abs().max() > 1e-3
        with adapted.disable_adapter():
            torch.testing.assert_close(adapted(**inputs).logits, before)
        torch.testing.assert_close(adapted.merge_and_unload()(**inputs).logits, found, rtol=1e-4, atol=1e-4)


def test_transformers_trainer_trains_an_adapter(tmp_path):
    model = get_peft_model(tiny_classifier(), lora("classifier"))
    torch.manual_seed(0)
    images = [{"pixel_values": torch.randn(3, 64, 64), "labels": torch.ones(3)} for _ in range(4)]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to="none",
        label_names=["labels"], save_strategy="no", disable_tqdm=True, learning_rate=0.1,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=images, eval_dataset=images)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    trainer.save_model(tmp_path / "adapter")
    assert "adapter_model.safetensors" in os.listdir(tmp_path / "adapter")
