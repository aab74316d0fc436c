"""The Hieras that model_throughput compares: ours and its peers, with the same weights, as one step each.

Stands below model_throughput.py; nothing else imports it.
"""

import contextlib
import importlib
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import HieraConfig, HieraForImageClassification, HieraForPreTraining

from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.convert import convert

MASK_RATIO = 0.6


class NotOfferedError(Exception):
    """A library has no model for the case."""


@dataclass(frozen=True)
class Case:
    """One thing to measure on every model.

    Attributes:
        task: "train" (MAE step) or "infer" (classifier).
        size: a published Hiera size.
        pixels: height and width of the images.
        batch: images a step.
        precision: "fp32" or "bf16".
        compiled: through torch.compile.
    """

    task: str
    size: str
    pixels: int
    batch: int
    precision: str
    compiled: bool


def build_ours(case: Case) -> nn.Module:
    """Our model; its weights become everybody's."""
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size(
        case.size, image_size=[case.pixels, case.pixels], mask_ratio=MASK_RATIO, num_labels=15
    )
    return HieraMAEForPreTraining(config) if case.task == "train" else HieraMAEForImageClassification(config)


def build_stock(case: Case) -> nn.Module:
    """Stock transformers with our weights, built at the image's size: its MAE cannot interpolate."""
    ours = build_ours(case)
    config = HieraConfig(**{k: v for k, v in ours.config.to_dict().items() if k != "position_interpolation"})
    stock = HieraForPreTraining(config) if case.task == "train" else HieraForImageClassification(config)
    stock.load_state_dict(ours.state_dict())
    return stock


def build_meta(case: Case) -> nn.Module:
    """Meta's model with our weights, through the names that conversion reports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it imports timm from where it no longer is
        import hiera
        from hiera import hiera_mae
    size = {"input_size": (case.pixels, case.pixels)}
    if case.task == "train":
        model = getattr(hiera_mae, f"mae_hiera_{case.size}_224")(**size)
    else:
        model = getattr(hiera, f"hiera_{case.size}_224")(num_classes=15, **size)
        model.head.act_func = nn.Identity()  # logits, as the others give
    return _with_our_weights(model, case)


def build_hiera_optim(case: Case) -> nn.Module:
    """hiera-optim on Meta's model, with the three attributes it expects and Meta's release lacks."""
    if case.task == "infer":
        raise NotOfferedError("hiera-optim takes Meta's MAE only")
    model = build_meta(case)
    mae, core = (importlib.import_module(f"hiera.{name}") for name in ("hiera_mae", "hiera"))
    core.MaskedAutoencoderHiera = mae.MaskedAutoencoderHiera
    core.apply_fusion_head = mae.apply_fusion_head
    model._grad_checkpointing = False
    from hiera_optim import optimize  # reads those attributes when it is imported

    optimize(model, verbose=False)
    return model


def build_timm(case: Case) -> nn.Module:
    """Timm's classifier with our weights; timm has no MAE."""
    import timm

    if case.task == "train":
        raise NotOfferedError("timm has no Hiera MAE")
    model = timm.create_model(
        f"hiera_{case.size}_224", pretrained=False, img_size=(case.pixels, case.pixels), num_classes=15
    )
    return _with_our_weights(model, case)


BUILDERS: dict[str, Callable[[Case], nn.Module]] = {
    "ours": build_ours,
    "transformers": build_stock,
    "meta": build_meta,
    "hiera-optim": build_hiera_optim,
    "timm": build_timm,
}


def _with_our_weights(model: nn.Module, case: Case) -> nn.Module:
    """Copy our weights in under the names conversion gives them."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pth")
        names = convert(str(Path(folder) / "weights.pth")).mapped
    ours = build_ours(case).state_dict()
    model.load_state_dict({theirs: ours[own] for theirs, own in names.items()})
    return model


def make_step(name: str, case: Case, device: torch.device) -> Callable[[], torch.Tensor]:
    """One step of one model: returns the loss, or the sum of the logits' squares, as a tensor."""
    model = BUILDERS[name](case).to(device).train(case.task == "train")
    torch.manual_seed(1)
    images = torch.randn(case.batch, 3, case.pixels, case.pixels).to(device)
    noise = torch.rand(case.batch, (case.pixels // 32) ** 2).to(device)
    if case.task == "infer" and case.precision == "bf16":
        model, images = model.bfloat16(), images.bfloat16()
    is_kept = noise.argsort(1).argsort(1) < int(noise.shape[1] * (1 - MASK_RATIO))
    forward = _forward(name, case)
    if case.compiled:
        mode = "reduce-overhead" if device.type == "cuda" else None
        forward = torch.compile(forward, mode=mode)

    def train() -> torch.Tensor:
        model.zero_grad()
        is_mixed = case.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16) if is_mixed else contextlib.nullcontext():
            loss = forward(model, images, noise, is_kept)
        loss.backward()
        return loss.detach()

    @torch.inference_mode()
    def infer() -> torch.Tensor:
        return forward(model, images, noise, is_kept).float().square().sum()

    return train if case.task == "train" else infer


def _forward(name: str, case: Case) -> Callable[..., torch.Tensor]:
    """Each library's own call."""
    meta_like = name in ("meta", "hiera-optim")
    if case.task == "infer":
        if meta_like or name == "timm":
            return lambda model, images, noise, is_kept: model(images)
        return lambda model, images, noise, is_kept: model(images).logits
    if meta_like:
        return lambda model, images, noise, is_kept: model(images, mask=is_kept)[0]
    return lambda model, images, noise, is_kept: model(images, noise=noise).loss
