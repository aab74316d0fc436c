"""The kernels of packed_attention.py as Triton's interpreter runs them on a CPU, beside PyTorch; prints JSON.

A process of its own, for Triton reads TRITON_INTERPRET when the kernels are defined. Its interpreter reads no
bf16, so single and half precision stand in.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
from model_configs import tiny_classifier, tiny_mae
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.short_attention import attend_in_parts
from modeling_hiera_mae import attention
from modeling_hiera_mae.packed_attention import attend, attend_operator

# windows, queries, keys, heads, width, whether queries lie apart
SHAPES = [
    (3, 16, 16, 2, 24, False),
    (2, 64, 64, 1, 96, False),
    (2, 4, 16, 2, 24, True),
    (2, 76, 76, 3, 12, False),
    (2, 19, 76, 3, 12, True),
    (1, 196, 196, 2, 32, False),
    (1, 150, 196, 2, 32, True),
]


def error(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def errors_of_a_shape(windows, queries, keys, heads, width, is_apart, dtype):
    """Of the result and each gradient, called directly and as an operator; keys and values may be a view."""
    torch.manual_seed(0)
    size = heads * width
    packed = torch.randn(windows, keys, 3 * size, dtype=dtype)[..., size if is_apart else 0 :]
    given = [packed, torch.randn(windows, queries, size, dtype=dtype)] if is_apart else [packed]
    gradient = torch.randn(windows, queries, size, dtype=dtype)

    def run(function, dtype):
        own = [each.detach().to(dtype).requires_grad_() for each in given]
        out = function(own[0], own[1] if is_apart else None, heads)
        return [out.detach(), *torch.autograd.grad(out, own, gradient.to(dtype))]

    exact = run(attend_in_parts, torch.float64)
    return [
        error(*pair)
        for function in (attend, lambda *inputs: attend_operator(*inputs)[0])
        for pair in zip(run(function, dtype), exact, strict=True)
    ]


def errors_of_second_derivatives():
    """Of the gradient of a gradient's norm, called directly and as an operator."""
    results = []
    for function in (attend_in_parts, attend, lambda *inputs: attend_operator(*inputs)[0]):
        torch.manual_seed(0)
        own = [torch.randn(2, 16, 96).requires_grad_(), torch.randn(2, 4, 48).requires_grad_()]
        with sdpa_kernel(SDPBackend.MATH):
            first = torch.autograd.grad(function(*own, 2).square().sum(), own, create_graph=True)
            norm = sum(each.square().sum() for each in first)
            results.append([norm.detach(), *torch.autograd.grad(norm, own)])
    return [error(*pair) for found in results[1:] for pair in zip(found, results[0], strict=True)]


def errors_of_unlikely_keys():
    """Scores so far below 0 that those of places past the last key, which are 0, are infinite beside them."""
    torch.manual_seed(0)
    direction = torch.randn(96)
    packed = torch.randn(1, 76, 288) * 0.1
    packed[..., :96] += direction
    packed[..., 96:192] -= direction
    results = []
    for function in (attend, attend_in_parts):
        own = (packed * 4).requires_grad_()
        out = function(own, None, 1)
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), own)])
    return [error(*pair) for pair in zip(*results, strict=True)]


def errors_of_one_key():
    """A window of one token, whose dimension may have any stride and the tensor still be contiguous."""
    packed = torch.randn(3, 1, 144).as_strided((3, 1, 144), (144, 1, 1))
    assert packed.is_contiguous()
    return [error(attend(packed, None, 2), attend_in_parts(packed, None, 2))]


def errors_of_a_model(build, compiles):
    """Of the loss and each weight's gradient, compiled or not, beside what the eager model takes on a CPU."""
    torch.manual_seed(1)
    images = torch.randn(2, 3, 64, 64)
    extra = {"noise": torch.rand(2, 4)} if build is tiny_mae else {"labels": torch.ones(2, 3)}
    results = []
    for path in ("eager", "packed"):
        attention.resolve_attention = lambda *_, path=path, **__: path
        model = build().train()
        is_compiled = compiles and path == "packed"
        step = torch.compile(model, fullgraph=True, backend="aot_eager") if is_compiled else model
        loss = step(images, **extra).loss
        loss.backward()
        results.append([loss.detach(), *(weight.grad for weight in model.parameters())])
    return [error(*pair) for pair in zip(*results, strict=True)]


def errors_without_gradients():
    """Of logits where pooled queries are projected alone, as in inference."""
    torch.manual_seed(1)
    images, results = torch.randn(2, 3, 64, 64), []
    for path in ("eager", "packed"):
        attention.resolve_attention = lambda *_, path=path, **__: path
        with torch.inference_mode():
            results.append(tiny_classifier().eval()(images).logits)
    return [error(results[1], results[0])]


if __name__ == "__main__":
    json.dump(
        {
            "single": [errors_of_a_shape(*shape, torch.float32) for shape in SHAPES],
            "second": errors_of_second_derivatives(),
            "unlikely": errors_of_unlikely_keys(),
            "one key": errors_of_one_key(),
            "half": [errors_of_a_shape(*shape, torch.float16) for shape in SHAPES[:3]],
            "mae": errors_of_a_model(tiny_mae, compiles=False),
            "classifier": errors_of_a_model(tiny_classifier, compiles=False),
            "compiled": errors_of_a_model(tiny_mae, compiles=True),
            "inference": errors_without_gradients(),
        },
        sys.stdout,
    )
