"""The heat-map methods that heat_map_methods compares, each as one function of model, pixels and finding.

Stands below heat_map_methods.py; nothing else imports it. Every method returns (batch, height, width),
float32, on the scale of the logit or of no scale at all, and signed where the method is: what is positive
speaks for the finding. The method that was kept is medhiera.inference.heat_maps' own.
"""

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Occlusion
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.transforms.v2.functional import gaussian_blur

from medhiera.inference.heat_maps import unit_effects
from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.windowing import reroll, undo_windowing

Model = HieraMAEForImageClassification
Method = Callable[[Model, Tensor, int], Tensor]


def blurred(pixel_values: Tensor) -> Tensor:
    """What a hidden place shows instead: the image without what is smaller than a mask unit."""
    kernel = min(63, *(side // 2 * 2 - 1 for side in pixel_values.shape[2:]))
    return gaussian_blur(pixel_values, [kernel, kernel], [12.0, 12.0])


def logit(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """(batch,) logits of a finding."""
    return model(pixel_values).logits[:, finding]


# On tokens of a stage.


def grad_cam_third(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Grad-CAM on the last but one stage, tokens relative to their mean: what was there before."""
    return _grad_cam(model, pixel_values, finding, -2)


def grad_cam_last(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """The same on the last stage."""
    return _grad_cam(model, pixel_values, finding, -1)


def layer_cam(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """LayerCAM (Jiang et al. 2021) on the last but one stage: each token weighted by its own gradient."""
    tokens, gradient = tokens_and_gradient(model, pixel_values, finding, -2)
    apart = tokens - tokens.mean(dim=(1, 2), keepdim=True)
    return to_image(model, (gradient.relu() * apart).sum(dim=-1, keepdim=True), -2, pixel_values)


def gradient_times_tokens(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Each token's own gradient times its difference from the mean token, at the embeddings."""
    tokens, gradient = tokens_and_gradient(model, pixel_values, finding, -len(model.config.depths) - 1)
    apart = tokens - tokens.mean(dim=(1, 2), keepdim=True)
    return to_image(model, (gradient * apart).sum(dim=-1, keepdim=True), 0, pixel_values)


def token_contributions(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Each last token's exact share of the logit: mean, norm and head are linear once the norm is known."""
    tokens, _ = tokens_and_gradient(model, pixel_values, finding, -1)
    pooler = model.hiera.pooler
    assert pooler is not None
    norm = pooler.layernorm
    deviation = (tokens.mean(dim=(1, 2)).var(dim=-1, unbiased=False) + norm.eps).sqrt()
    weights = model.classifier.weight[finding] * norm.weight
    centered = tokens - tokens.mean(dim=-1, keepdim=True)
    shares = (centered * weights).sum(dim=-1) / deviation[:, None, None] / tokens[0, :, :, 0].numel()
    shares = shares - shares.mean(dim=(1, 2), keepdim=True)
    return to_image(model, shares[..., None].detach(), -1, pixel_values)


# On attention.


class _KeepWeights(TorchFunctionMode):
    """Keeps every attention weight that a forward forms, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.softmax:
            self.weights.append(result)
        return result


def _weighted_attention(model: Model, pixel_values: Tensor, finding: int) -> tuple[list[Tensor], list[bool]]:
    """Mean over heads of relu(gradient × weights) of each block that sees the whole image, and who pools."""
    implementation = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    blocks = [layer.attn for stage in model.hiera.encoder.stages for layer in stage.layers]
    with torch.enable_grad(), _KeepWeights() as kept:
        value = logit(model, pixel_values, finding).sum()
    model.config._attn_implementation = implementation
    chosen = [(w, b) for w, b in zip(kept.weights, blocks, strict=True) if not b.within_units]
    gradients = torch.autograd.grad(value, [weights for weights, _ in chosen])
    weighted = [(g * w).relu().mean(dim=1).detach() for g, (w, _) in zip(gradients, chosen, strict=True)]
    return weighted, [block.pools_queries for _, block in chosen]


def weighted_attention(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Gradient-weighted attention of the last block, received by each of its tokens."""
    weighted, _ = _weighted_attention(model, pixel_values, finding)
    return _received(model, weighted[-1].sum(dim=1), pixel_values)


def attention_rollout(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Chefer et al. 2021: R ← (I + relu(gradient × weights)) R, through the blocks that see all units."""
    weighted, pools = _weighted_attention(model, pixel_values, finding)
    rollout = torch.eye(weighted[0].shape[2])
    units = pixel_values.shape[2] * pixel_values.shape[3]
    units //= model.config.unit_pixels[0] * model.config.unit_pixels[1]
    for attention, is_pooling in zip(weighted, pools, strict=True):
        passed_on = torch.eye(attention.shape[2])
        if is_pooling:  # a pooled query stands for the tokens of its group
            passed_on = passed_on.unflatten(0, (units, -1, attention.shape[1] // units)).mean(dim=1)
            passed_on = passed_on.flatten(0, 1)
        rollout = (passed_on + attention) @ rollout
    return _received(model, rollout.mean(dim=-2), pixel_values)


def _received(model: Model, values: Tensor, pixel_values: Tensor) -> Tensor:
    """(batch, tokens of the stage that they have, units outside) → image."""
    unit_height, unit_width = model.config.unit_pixels
    units = pixel_values.shape[2] // unit_height * (pixel_values.shape[3] // unit_width)
    tokens = values.unflatten(1, (units, -1))[..., None]
    tokens = tokens - tokens.amin(dim=(1, 2), keepdim=True)
    levels = {1: 0, 4: 1, 16: 2, 64: 3}[tokens.shape[2]]
    return to_image(model, tokens, len(model.config.depths) - 1 - levels, pixel_values)


# On pixels.


def integrated_gradients(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Sundararajan et al. 2017 from the blurred image, 20 steps, smoothed to the scale of a token."""
    method = IntegratedGradients(lambda x: logit(model, x, finding))
    found = method.attribute(
        pixel_values, baselines=blurred(pixel_values), n_steps=20, internal_batch_size=64
    )
    return _smooth(found)


def integrated_gradients_gray(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """The same from the mean gray."""
    method = IntegratedGradients(lambda x: logit(model, x, finding))
    return _smooth(method.attribute(pixel_values, n_steps=20, internal_batch_size=64))


def input_times_gradient(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Gradient times input, smoothed."""
    return _smooth(InputXGradient(lambda x: logit(model, x, finding)).attribute(pixel_values))


def smooth_grad(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """SmoothGrad (Smilkov et al. 2017) of gradient times input: 20 noisy copies, deviation .2."""
    method = NoiseTunnel(InputXGradient(lambda x: logit(model, x, finding)))
    torch.manual_seed(0)
    return _smooth(method.attribute(pixel_values, nt_samples=20, nt_samples_batch_size=4, stdevs=0.2))


def _smooth(attribution: Tensor) -> Tensor:
    total = attribution.detach().sum(dim=1, keepdim=True).float()
    return gaussian_blur(total, [33, 33], [8.0, 8.0])[:, 0]


# By hiding.


def random_halves(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """What was kept (medhiera.inference.heat_maps): random halves of the units and their complements."""
    return _units_to_image(model, unit_effects(model, pixel_values)[:, finding].flatten(1), pixel_values)


@torch.inference_mode()
def units_alone(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """The logit of each mask unit by itself, as if it were the whole image."""
    tokens = model.hiera.embeddings(pixel_values, None)
    logits = logit_of_units(model, tokens, torch.arange(tokens.shape[1])[:, None], finding)
    return _units_to_image(model, logits - logits.mean(dim=1, keepdim=True), pixel_values)


@torch.inference_mode()
def drop_units(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """How much the logit falls without each mask unit: the encoder gets all the others."""
    tokens = model.hiera.embeddings(pixel_values, None)
    units = tokens.shape[1]
    others = (
        torch.arange(units).expand(units, -1)[~torch.eye(units, dtype=torch.bool)].unflatten(0, (units, -1))
    )
    falls = logit(model, pixel_values, finding)[:, None] - logit_of_units(model, tokens, others, finding)
    return _units_to_image(model, falls, pixel_values)


@torch.inference_mode()
def shapley_values(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Shapley values of mask units, from two random orders and their reverses."""
    tokens = model.hiera.embeddings(pixel_values, None)
    units = tokens.shape[1]
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(units, generator=generator) for _ in range(2)]
    orders += [order.flip(0) for order in orders]
    # The empty image has no logit; the mean unit's by itself stands for it.
    before_all = logit_of_units(model, tokens, torch.arange(units)[:, None], finding).mean(dim=1)
    values = torch.zeros(tokens.shape[:2])
    for order in orders:
        before = before_all
        for size in range(1, units + 1):
            after = logit_of_units(model, tokens, order[None, :size].sort(dim=1).values, finding)[:, 0]
            values[:, order[size - 1]] += (after - before) / len(orders)
            before = after
    return _units_to_image(model, values, pixel_values)


def logit_of_units(model: Model, tokens: Tensor, kept: Tensor, finding: int) -> Tensor:
    """Logits where the encoder gets some units only.

    Args:
        model: in evaluation mode.
        tokens: (images, units, tokens, channels), the embeddings.
        kept: (sets, kept units), indices.
        finding: index of the output.

    Returns:
        (images, sets).
    """
    pooler = model.hiera.pooler
    assert pooler is not None
    logits = []
    for part in kept.split(max(1, 64 // len(tokens))):
        chosen = tokens[:, part].flatten(0, 1)  # (images × sets, kept, tokens, channels)
        value = model.classifier(pooler(model.hiera.encoder(chosen).last))[:, finding]
        logits.append(value.unflatten(0, (len(tokens), len(part))))
    return torch.cat(logits, dim=1)


def _units_to_image(model: Model, values: Tensor, pixel_values: Tensor) -> Tensor:
    return to_image(model, values[..., None, None], -1, pixel_values)


def blur_units(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """How much the logit falls where each mask unit is blurred."""
    return _occlude(model, pixel_values, finding, blurred(pixel_values), 32, 32)


def blur_windows(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Zeiler and Fergus 2014: windows of 32 pixels at steps of 16 are blurred; the reference."""
    return _occlude(model, pixel_values, finding, blurred(pixel_values), 32, 16)


def gray_windows(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """The same, but filled with the mean gray."""
    return _occlude(model, pixel_values, finding, torch.zeros_like(pixel_values), 32, 16)


def small_windows(model: Model, pixel_values: Tensor, finding: int) -> Tensor:
    """Blurred windows of 16 pixels at steps of 16."""
    return _occlude(model, pixel_values, finding, blurred(pixel_values), 16, 16)


@torch.inference_mode()
def _occlude(
    model: Model, pixel_values: Tensor, finding: int, baseline: Tensor, window: int, step: int
) -> Tensor:
    channels = pixel_values.shape[1]
    found = Occlusion(lambda x: logit(model, x, finding)).attribute(
        pixel_values,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, step, step),
        baselines=baseline,
        perturbations_per_eval=max(1, 64 // len(pixel_values)),
    )
    return found[:, 0].float()


METHODS: dict[str, Method] = {
    "Grad-CAM, third stage (before)": grad_cam_third,
    "Grad-CAM, last stage": grad_cam_last,
    "LayerCAM, third stage": layer_cam,
    "token contributions": token_contributions,
    "gradient × tokens, embeddings": gradient_times_tokens,
    "gradient-weighted attention": weighted_attention,
    "attention rollout × gradient": attention_rollout,
    "input × gradient": input_times_gradient,
    "SmoothGrad of it": smooth_grad,
    "integrated gradients, blurred": integrated_gradients,
    "integrated gradients, gray": integrated_gradients_gray,
    "each unit left out": drop_units,
    "Shapley values of units": shapley_values,
    "each unit alone": units_alone,
    "halves of the units and complements (kept)": random_halves,
    "units blurred": blur_units,
    "windows grayed": gray_windows,
    "windows of 16 blurred": small_windows,
    "windows blurred (reference)": blur_windows,
}


# Tokens and their place.


def _grad_cam(model: Model, pixel_values: Tensor, finding: int, stage: int) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the tokens of a stage, relative to the image's mean token."""
    tokens, gradient = tokens_and_gradient(model, pixel_values, finding, stage)
    apart = tokens - tokens.mean(dim=(1, 2), keepdim=True)
    evidence = (gradient.mean(dim=(1, 2), keepdim=True) * apart).sum(dim=-1, keepdim=True)
    return to_image(model, evidence, stage, pixel_values)


def tokens_and_gradient(
    model: Model, pixel_values: Tensor, finding: int, stage: int
) -> tuple[Tensor, Tensor]:
    """Tokens after a stage, and the gradient of the logit by them.

    Args:
        model: in evaluation mode.
        pixel_values: (batch, channels, height, width), normalized.
        finding: index of the output.
        stage: from the end, as a list counts; one before the first is the embeddings.

    Returns:
        Two tensors (batch, units, tokens, channels), unrolled.
    """
    pooler, stages = model.hiera.pooler, model.hiera.encoder.stages
    assert pooler is not None
    first = len(stages) + stage + 1
    with torch.no_grad():
        tokens = model.hiera.embeddings(pixel_values, None)
        for block in stages[:first]:
            tokens, _ = block(tokens, False)
    with torch.enable_grad():
        leaf = tokens.detach().requires_grad_()
        later = leaf
        for block in stages[first:]:
            later, _ = block(later, False)
        value = model.classifier(pooler(later))[:, finding].sum()
        (gradient,) = torch.autograd.grad(value, leaf)
    return leaf.detach(), gradient


def to_image(model: Model, values: Tensor, stage: int, pixel_values: Tensor) -> Tensor:
    """One value a token → one a pixel.

    Args:
        model: whose layout the tokens have.
        values: (batch, units, tokens, 1), unrolled.
        stage: whose tokens.
        pixel_values: for the image's size.

    Returns:
        (batch, height, width).
    """
    config = model.config
    assert config.num_query_pool is not None
    levels_left = len(config.depths) - 1 - min(stage % len(config.depths), config.num_query_pool)
    size = pixel_values.shape[2:]
    grid = [side // unit for side, unit in zip(size, config.unit_pixels, strict=True)]
    coarse = undo_windowing(reroll(values, config.query_stride, levels_left), grid).permute(0, 3, 1, 2)
    # A rim of zeros: without it the outermost tokens reach the image's edge at full height, and the peak of
    # such a plateau is anywhere on it.
    edge = [side // tokens for side, tokens in zip(size, coarse.shape[2:], strict=True)]
    around = [side + 2 * width for side, width in zip(size, edge, strict=True)]
    fine = functional.interpolate(
        functional.pad(coarse.float(), (1, 1, 1, 1)), around, mode="bilinear", align_corners=False
    )
    return fine[:, 0, edge[0] : edge[0] + size[0], edge[1] : edge[1] + size[1]]
