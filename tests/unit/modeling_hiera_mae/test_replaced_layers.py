"""Layers that other libraries replace, wrap or hook are called, not read: quantization, offloading, LoRA."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from model_configs import tiny_classifier, tiny_mae
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook
from transformers import BitsAndBytesConfig

from modeling_hiera_mae.layers import HieraMAELayer

WIDE = {"embed_dim": 32, "num_heads": [1, 2, 4, 8], "decoder_hidden_size": 32}  # oneDNN takes such inputs
MODELS = pytest.mark.parametrize("make", [tiny_classifier, tiny_mae])


class Int8Linear(nn.Linear):
    """Holds int8 rows and a scale each, and takes at most three dimensions, as bitsandbytes' Linear8bitLt."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        weight = layer.weight.detach()
        self.scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        self.weight = nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = layer.bias

    def forward(self, tokens):
        assert tokens.dim() <= 3
        return functional.linear(tokens, self.weight * self.scale, self.bias)


def replace_linear_layers(model, replacement):
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                setattr(module, name, replacement(layer))


def inputs_of(model, side=64):
    torch.manual_seed(1)
    noise = {} if model.can_classify else {"noise": torch.rand(2, (side // 32) ** 2)}
    return {"pixel_values": torch.rand(2, 3, side, side), **noise}


def randomized(make):
    """A model whose outputs are far from zero, so that errors are seen."""
    model = make(**WIDE)
    model.can_classify = make is tiny_classifier
    torch.manual_seed(2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def branches_of(model):
    return [branch for name, branch in model.named_modules() if name.endswith((".attn", ".mlp"))]


def logits_of(model, inputs):
    return model(**inputs).logits


@MODELS
@pytest.mark.parametrize("with_gradients", [False, True])
def test_layers_of_int8_weights_are_called(make, with_gradients):
    model = randomized(make)
    quantized = copy.deepcopy(model)
    replace_linear_layers(quantized, Int8Linear)
    inputs = inputs_of(model)
    with torch.set_grad_enabled(with_gradients):
        found, wanted = logits_of(quantized, inputs), logits_of(model, inputs)
    assert 0 < (found - wanted).abs().max() < 0.05 * wanted.abs().max()


@MODELS
@pytest.mark.filterwarnings("default")  # bitsandbytes' own, of whatever version it is
def test_bitsandbytes_8_bit_layers_evaluate_on_a_cpu(make, tmp_path):
    """Always skipped in CI, where bitsandbytes is not installed; the test above stands in for it there.

    Run it with `pip install --target FOLDER bitsandbytes --no-deps` and PYTHONPATH=FOLDER.
    """
    layers = pytest.importorskip("bitsandbytes").nn
    model = randomized(make)
    model.save_pretrained(tmp_path)
    quantized = type(model).from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(load_in_8bit=True)
    )
    replaced = [type(module) for module in quantized.hiera.encoder.modules() if isinstance(module, nn.Linear)]
    assert set(replaced) == {layers.Linear8bitLt}
    inputs = inputs_of(model)
    with torch.no_grad():
        found, wanted = logits_of(quantized.eval(), inputs), logits_of(model, inputs)
    assert 0 < (found - wanted).abs().max() < 0.05 * wanted.abs().max()


@MODELS
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_torchs_dynamic_quantization_works(make):
    model = randomized(make)
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, torch.qint8)
    inputs = inputs_of(model)
    with torch.no_grad():
        found, wanted = logits_of(quantized, inputs), logits_of(model, inputs)
    assert 0 < (found - wanted).abs().max() < 0.1 * wanted.abs().max()


@MODELS
def test_weights_that_accelerate_has_offloaded_are_brought(make):
    model = randomized(make)
    offloaded = cpu_offload(copy.deepcopy(model), torch.device("cpu"))
    assert all(parameter.is_meta for parameter in offloaded.parameters())
    inputs = inputs_of(model)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(offloaded, inputs), logits_of(model, inputs))


@MODELS
def test_a_backward_pre_hook_is_called(make):
    model = randomized(make)
    called = []
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_full_backward_pre_hook(lambda module, gradients: called.append(module))
    logits_of(model, inputs_of(model)).sum().backward()
    assert len(set(called)) == sum(isinstance(layer, nn.Linear) for layer in model.modules())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
@pytest.mark.parametrize("target", ["projection", r".*multi_scale_fusion_heads\.[01]"])
def test_lora_on_a_convolution_takes_effect_in_the_mae(target):
    model = randomized(tiny_mae)
    inputs = inputs_of(model)
    before = logits_of(model, inputs)
    targets = [target] if target == "projection" else target
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)).eval()
    found = logits_of(adapted, inputs)
    assert (found - before).abs().max() > 1e-3
    merged = adapted.merge_and_unload()  # plain convolutions again, by the path that reads their weights
    torch.testing.assert_close(logits_of(merged, inputs), found, rtol=1e-4, atol=1e-5)


class AddsItself(nn.Module):
    """A branch replaced by one that knows nothing of `added`, and gives zeros."""

    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, *inputs):
        return zeros_of(self.branch(*inputs))


def zeros_of(outputs):
    return (torch.zeros_like(outputs[0]), *outputs[1:]) if isinstance(outputs, tuple) else outputs * 0


@pytest.mark.parametrize("how", ["hook", "global hook", "forward", "module"])
@MODELS
def test_a_branch_is_seen_without_its_shortcut(make, how):
    """Zeroing each branch by a hook, or in its place, leaves what zeroed weights leave."""
    model = randomized(make)
    zeroed, inputs = copy.deepcopy(model), inputs_of(model)
    for branch in branches_of(zeroed):
        last = branch.proj if hasattr(branch, "proj") else branch.fc2
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    wanted = logits_of(zeroed, inputs)
    branches, handles = branches_of(model), []
    for branch in branches:
        if how == "hook":
            branch.register_forward_hook(lambda _, inputs, outputs: zeros_of(outputs))
        elif how == "forward":
            branch.forward = lambda *inputs, own=branch.forward: zeros_of(own(*inputs))
    if how == "module":
        for layer in [each for each in model.modules() if isinstance(each, HieraMAELayer)]:
            layer.attn, layer.mlp = AddsItself(layer.attn), AddsItself(layer.mlp)
    if how == "global hook":
        handles.append(
            register_module_forward_hook(
                lambda module, inputs, outputs: zeros_of(outputs) if module in branches else None
            )
        )
    found = logits_of(model, inputs)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("build", [tiny_classifier, tiny_mae])
def test_a_hooked_branch_computes_the_same(build):
    model = randomized(build)
    inputs = inputs_of(model)
    wanted = logits_of(model, inputs)
    seen = []
    for branch in branches_of(model):
        branch.register_forward_hook(lambda _, inputs, outputs: seen.append(outputs))
    torch.testing.assert_close(logits_of(model, inputs), wanted)
    assert len(seen) == len(branches_of(model))
