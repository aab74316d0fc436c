"""The CPU's linear layers: torch's numbers, whatever follows and whoever wrapped the layer."""

import pytest
import torch
from model_configs import tiny_classifier
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from modeling_hiera_mae import fused_linear
from modeling_hiera_mae.fused_linear import gelu_mlp, linear, project


def operands(dtype=torch.float32, rows=512):
    torch.manual_seed(0)
    shapes = ((2, rows, 96), (64, 96), (64,), (2, rows, 64))
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_inference_equals_torch_with_everything_fused(dtype, tolerance):
    tokens, weight, bias, added = operands(dtype)
    plain = functional.linear(tokens, weight, bias)
    with torch.inference_mode():
        torch.testing.assert_close(linear(tokens, weight, bias), plain, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            linear(tokens, weight, bias, gelu=True), functional.gelu(plain), rtol=tolerance, atol=tolerance
        )
        torch.testing.assert_close(
            linear(tokens, weight, bias, added=added), added + plain, rtol=tolerance, atol=3 * tolerance
        )


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_gradients_equal_torchs(autocast, has_bias):
    results = []
    for function in (linear, functional.linear):
        tokens, weight, bias, _ = (each.requires_grad_() for each in operands())
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = function(tokens, weight, bias if has_bias else None)
        out.float().square().mean().backward()
        results.append([out, tokens.grad, weight.grad] + ([bias.grad] if has_bias else []))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=scale * (2e-2 if autocast else 1e-5))


@pytest.mark.parametrize(("dtype", "rows"), [(torch.float32, 4), (torch.float64, 512)])
def test_small_inputs_and_double_precision_have_torchs_numbers(dtype, rows):
    tokens, weight, bias, added = operands(dtype, rows)
    plain = functional.linear(tokens, weight, bias)
    assert torch.equal(linear(tokens, weight, bias), plain)
    assert torch.equal(linear(tokens, weight, bias, gelu=True), functional.gelu(plain))
    assert torch.equal(linear(tokens, weight, bias, added=added), added + plain)


def test_an_exported_layer_has_plain_operators():
    tokens, weight, bias, _ = operands()
    exported = torch.export.export(Linear(), (tokens, weight, bias))
    assert "mkldnn" not in str(exported.graph)


class Linear(nn.Module):
    """`linear` as a module, which is what can be exported."""

    def forward(self, tokens, weight, bias):
        return linear(tokens, weight, bias)


def test_a_wrapped_or_hooked_layer_is_called():
    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.weight, self.bias = base.weight, base.bias  # as adapters do

        def forward(self, tokens):
            return self.base(tokens) + 1

    tokens = operands()[0]
    layer = nn.Linear(96, 64)
    torch.testing.assert_close(project(tokens, Adapter(layer)), layer(tokens) + 1)
    layer.register_forward_hook(lambda module, inputs, out: out + 2)
    torch.testing.assert_close(project(tokens, layer, gelu=True), functional.gelu(layer(tokens)))


def test_an_adapter_on_every_linear_layer_changes_training():
    model = tiny_classifier().train()
    images = torch.randn(2, 3, 64, 64)
    before = model(images).logits
    for layer in model.modules():
        if type(layer) is nn.Linear and layer is not model.classifier:
            layer.register_forward_hook(lambda module, inputs, out: out * 0)
    assert not torch.allclose(model(images).logits, before)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_mlp_that_forgets_its_gelu_has_torchs_gradients(autocast):
    torch.manual_seed(0)
    first, second = nn.Linear(96, 384), nn.Linear(384, 96)
    parameters = [*first.parameters(), *second.parameters()]
    results = []
    for function in (
        lambda tokens: gelu_mlp(tokens, first, second, added=tokens),
        lambda tokens: tokens + second(functional.gelu(first(tokens))),
    ):
        tokens = operands()[0].requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = function(tokens)
        gradients = torch.autograd.grad(out.float().square().mean(), [tokens, *parameters])
        results.append([out, *gradients])
    for ours, theirs in zip(*results, strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=scale * (3e-2 if autocast else 1e-5))


def test_the_mlp_keeps_one_wide_tensor():
    kept = []
    first, second = nn.Linear(96, 384), nn.Linear(384, 96)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        gelu_mlp(operands()[0].requires_grad_(), first, second)
    assert kept.count((2, 512, 384)) == 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_mlp_as_compiled_for_a_gpu_has_torchs_numbers(monkeypatch, dtype, tolerance):
    torch.manual_seed(0)
    first, second = nn.Linear(96, 384).to(dtype), nn.Linear(384, 96).to(dtype)
    parameters = [*first.parameters(), *second.parameters()]
    given = torch.randn(4, 3, 16, 96, dtype=dtype)
    results = []
    for is_compiled in (False, True):
        monkeypatch.setattr(fused_linear, "_is_compiled_training", lambda _, told=is_compiled: told)
        monkeypatch.setattr(fused_linear, "_takes_onednn", lambda *_: False)
        tokens = given.clone().requires_grad_()
        out = gelu_mlp(tokens, first, second, added=tokens)
        gradients = torch.autograd.grad(out.float().square().mean(), [tokens, *parameters])
        results.append([out, *gradients])
    for plain, compiled in zip(*results, strict=True):
        assert plain.dtype == compiled.dtype == dtype
        torch.testing.assert_close(
            compiled, plain, rtol=0, atol=tolerance * float(plain.detach().abs().max())
        )
    sums = make_fx(lambda tokens: torch.autograd.grad(gelu_mlp(tokens, first, second).sum(), first.bias))(
        given
    ).graph.find_nodes(op="call_function", target=torch.ops.aten.sum.dim_IntList)
    assert (4, 1, 1, 384) in [tuple(node.meta["val"].shape) for node in sums]  # one row per image


class Told(nn.Module):
    """1 where the code is compiled training on a GPU, by a tracer's own answer."""

    def forward(self, tokens):
        return (
            tokens.new_ones(()) if fused_linear._is_compiled_training(torch.device("cuda")) else tokens[0] * 0
        )


def test_only_training_compiled_for_a_gpu_sums_by_image():
    told, tokens = Told(), torch.zeros(2)
    compiled = torch.compile(told, fullgraph=True, backend="eager")
    assert compiled(tokens) == 1 and told(tokens) == 0
    assert torch.export.export(told, (tokens,)).module()(tokens) == 0
    with torch.no_grad():
        assert compiled(tokens) == 0
    assert not fused_linear._is_compiled_training(torch.device("cpu"))


def mlp(tokens, first, first_bias, second, second_bias, fused):
    """As `gelu_mlp`, by it or by torch."""
    layers = [
        nn.Linear(96, 128, bias=first_bias is not None),
        nn.Linear(128, 64, bias=second_bias is not None),
    ]
    for layer, weight, bias in zip(layers, (first, second), (first_bias, second_bias), strict=True):
        layer.weight = weight
        layer.bias = bias
    if fused:
        return gelu_mlp(tokens, *layers)
    return layers[1](functional.gelu(layers[0](tokens)))


def mlp_operands(has_bias=True):
    torch.manual_seed(1)
    shapes = ((128, 96), (128,), (64, 128), (64,))
    weights = [nn.Parameter(torch.randn(shape) / 8) for shape in shapes]
    return [each if each.dim() == 2 or has_bias else None for each in weights]


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_mlp", [False, True])
def test_second_derivatives_equal_torchs(is_mlp, has_bias):
    """Of a gradient by the input alone, whose graph would otherwise end in these layers without a word."""
    results = []
    for fused in (True, False):
        tokens, weight, bias, _ = (each.requires_grad_() for each in operands())
        given = [weight, bias if has_bias else None]
        if is_mlp:
            given = mlp_operands(has_bias)
            out = mlp(tokens, *given, fused=fused)
        else:
            out = (linear if fused else functional.linear)(tokens, *given)
        (first,) = torch.autograd.grad(out.square().sum(), tokens, create_graph=True)
        by = [tokens, *(each for each in given if each is not None)]
        results.append([first, *torch.autograd.grad(first.square().sum(), by, allow_unused=True)])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            scale = float(theirs.detach().abs().max())
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("learns", ["bias", "added"])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_gradient_reaches_what_alone_learns(learns, gelu):
    """As where all weights are frozen but the biases, or an adapter on the shortcut."""
    tokens, weight, bias, added = operands()
    trained = {"bias": bias, "added": added}[learns].requires_grad_()
    plain = functional.linear(tokens, weight, bias)
    plain = added + (functional.gelu(plain) if gelu else plain)
    fused = linear(tokens, weight, bias, gelu=gelu, added=added)
    found = [torch.autograd.grad(out.square().sum(), trained)[0] for out in (fused, plain)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own decompositions
@pytest.mark.parametrize("grad", [False, True])
def test_forward_derivatives_equal_torchs(grad):
    tokens, weight, bias, _ = operands()
    direction = torch.randn_like(tokens)
    given = mlp_operands()
    with torch.set_grad_enabled(grad):
        for ours, theirs in (
            (lambda x: linear(x, weight, bias), lambda x: functional.linear(x, weight, bias)),
            (lambda x: mlp(x, *given, fused=True), lambda x: mlp(x, *given, fused=False)),
        ):
            found = [torch.func.jvp(each, (tokens,), (direction,))[1] for each in (ours, theirs)]
            torch.testing.assert_close(*found)
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(tokens, direction)
                found = [forward_ad.unpack_dual(each(dual)).tangent for each in (ours, theirs)]
            torch.testing.assert_close(*found)


def test_a_mode_that_counts_operators_sees_torchs():
    tokens, weight, bias, _ = operands()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        linear(tokens, weight, bias)
    assert counter.get_total_flops() == 2 * tokens.numel() * len(weight)


def test_a_hook_on_all_modules_sees_every_linear_layer():
    model, seen = tiny_classifier().eval(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, 64, 64))
    finally:
        handle.remove()
    assert {id(each) for each in model.modules() if type(each) is nn.Linear} <= {id(each) for each in seen}
