"""The Hieras that are compared: ours and its peers, with the same weights, as one step each.

Stands below model_throughput.py and gpu_worker.py. It needs no datasets, as a bare GPU machine has none.
"""

import contextlib
import importlib
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import HieraConfig, HieraForImageClassification, HieraForPreTraining

from medhiera.training.working_weights import WorkingWeights
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.convert import convert

MASK_RATIO = 0.6
TOY = "toy"
MODES = ("eager", "default", "reduce-overhead", "max-autotune")
GRAPH_MODES = ("reduce-overhead", "max-autotune")
"""Those in which torch.compile records CUDA graphs."""

AGREEMENT = {"fp32": 2e-4, "tf32": 5e-3, "bf16": 1e-1, "bf16_weights": 1e-2}
"""Largest relative difference from the first model; half precision rounds each library's order otherwise."""


class NotOfferedError(Exception):
    """A library has no model for the case."""


@dataclass(frozen=True)
class Case:
    """One thing to measure on every model.

    Attributes:
        task: "train" (MAE step) or "infer" (classifier).
        size: a published Hiera size, or "toy": tiny's, a block a stage, to try the benchmark itself.
        pixels: height and width of the images.
        batch: images a step.
        precision: "fp32"; "tf32", the same with a GPU's shorter products; "bf16", autocast in training and
            bf16 weights in inference; or in training "bf16_weights", beside float32 ones that learn.
        mode: "eager", or a mode of torch.compile.
        has_optimizer: a training step ends with fused AdamW's.
        graphs_cudnn: PyTorch may choose cuDNN's attention inside of CUDA graphs too, where it has failed
            (pytorch#169849).
    """

    task: str
    size: str
    pixels: int
    batch: int
    precision: str
    mode: str = "eager"
    has_optimizer: bool = False
    graphs_cudnn: bool = False


def build_ours(case: Case) -> nn.Module:
    """Our model; its weights become everybody's."""
    torch.manual_seed(0)
    toy = {"depths": [1, 1, 1, 1], "decoder_depth": 1} if case.size == TOY else {}
    config = HieraMAEConfig.from_size(
        _published(case.size), image_size=[case.pixels] * 2, mask_ratio=MASK_RATIO, num_labels=15, **toy
    )
    if case.task == "train":
        return HieraMAEForPreTraining(config)
    model = HieraMAEForImageClassification(config)
    model.classifier.weight.data.normal_()  # or all logits would be near 0, and agreement be cheap
    return model


def _published(size: str) -> str:
    return "tiny" if size == TOY else size


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
    size: dict[str, Any] = {"input_size": (case.pixels, case.pixels)}
    toy: dict[str, Any] = {"embed_dim": 96, "num_heads": 1, "stages": (1, 1, 1, 1)}
    if case.task == "train" and case.size == TOY:
        model = hiera_mae.MaskedAutoencoderHiera(q_pool=2, decoder_depth=1, **toy, **size)
    elif case.task == "train":
        model = getattr(hiera_mae, f"mae_hiera_{case.size}_224")(**size)
    else:
        is_toy = case.size == TOY
        build = hiera.Hiera if is_toy else getattr(hiera, f"hiera_{case.size}_224")
        model = build(num_classes=15, **size, **(toy if is_toy else {}))
        model.head.act_func = nn.Identity()  # logits, as the others give
    return _with_our_weights(model, case)


def build_hiera_optim(case: Case) -> nn.Module:
    """hiera-optim on Meta's model, with the three attributes it expects and Meta's release lacks.

    Graph-safe wherever it is compiled: without that, replaying its step's CUDA graph reads memory that is not
    its own, and the process's GPU context is lost.
    """
    if case.task == "infer":
        raise NotOfferedError("hiera-optim takes Meta's MAE only")
    model = build_meta(case)
    mae, core = (importlib.import_module(f"hiera.{name}") for name in ("hiera_mae", "hiera"))
    core.MaskedAutoencoderHiera = mae.MaskedAutoencoderHiera
    core.apply_fusion_head = mae.apply_fusion_head
    model._grad_checkpointing = False
    from hiera_optim import optimize  # reads those attributes when it is imported

    optimize(model, graph_safe=case.mode != "eager", verbose=False)
    return model


def build_timm(case: Case) -> nn.Module:
    """Timm's classifier with our weights; timm has no MAE."""
    import timm

    if case.task == "train":
        raise NotOfferedError("timm has no Hiera MAE")
    toy: dict[str, Any] = {"stages": (1, 1, 1, 1)} if case.size == TOY else {}
    model = timm.create_model(
        f"hiera_{_published(case.size)}_224",
        pretrained=False,
        img_size=(case.pixels,) * 2,
        num_classes=15,
        **toy,
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
        heads = 1 if case.size == TOY else None  # of the first stage; a published size is known by its shape
        names = convert(str(Path(folder) / "weights.pth"), num_heads=heads).mapped
    ours = build_ours(case).state_dict()
    model.load_state_dict({theirs: ours[own] for theirs, own in names.items()})
    return model


def make_step(name: str, case: Case, device: torch.device) -> Callable[[], Tensor]:
    """One step of one model: returns the loss, or the logits.

    The images and the mask stay in place between steps, as a CUDA graph wants its inputs.

    Raises:
        NotOfferedError: the library has no such model, or not in this precision.
    """
    set_products(case)
    model = BUILDERS[name](case).to(device).train(case.task == "train")
    torch.manual_seed(1)
    coarse = torch.randn(case.batch, 3, 8, 8)  # enlarged: noise alone looks the same to a classifier
    images = functional.interpolate(coarse, (case.pixels, case.pixels), mode="bilinear")
    images = (images + torch.randn(images.shape) / 4).to(device)
    noise = torch.rand(case.batch, (case.pixels // 32) ** 2).to(device)
    if case.task == "train":
        return _training_step(name, case, model, images, noise)
    model = model.bfloat16() if case.precision == "bf16" else model
    images = images.to(next(model.parameters()).dtype)
    forward = _compiled(_forward(name, case, noise), case)

    @torch.inference_mode()
    def infer() -> Tensor:
        _begin(case)
        return forward(model, images).float()

    return infer


def set_products(case: Case) -> None:
    """How this process multiplies, for all libraries alike."""
    is_short = case.precision == "tf32"
    torch.set_float32_matmul_precision("high" if is_short else "highest")
    torch.backends.cudnn.allow_tf32 = is_short
    if case.mode in GRAPH_MODES and not case.graphs_cudnn:
        torch.backends.cuda.enable_cudnn_sdp(False)


def _training_step(
    name: str, case: Case, model: nn.Module, images: Tensor, noise: Tensor
) -> Callable[[], Tensor]:
    """Forward, backward and, where the case says so, the optimizer."""
    working = WorkingWeights(model) if case.precision == "bf16_weights" else None
    if working is not None and name == "transformers":
        raise NotOfferedError("transformers' MAE takes no weights in half precision")
    computing = model if working is None else working.model
    if working is not None and name != "ours":
        images = images.bfloat16()  # Meta's embeds with a convolution, which wants the weights' type
    optimizer = None
    if case.has_optimizer:
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), fused=True)
        if working is not None:
            working.follow(optimizer)
    forward = _compiled(_forward(name, case, noise), case)
    is_mixed = case.precision == "bf16"

    def train() -> Tensor:
        _begin(case)
        with torch.autocast(images.device.type, torch.bfloat16) if is_mixed else contextlib.nullcontext():
            loss = forward(computing, images)
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        computing.zero_grad(set_to_none=True)
        return loss.detach()

    return train


def _compiled(forward: Callable[..., Tensor], case: Case) -> Callable[..., Tensor]:
    if case.mode == "eager":
        return forward
    return torch.compile(forward, mode=case.mode, dynamic=False)


def _begin(case: Case) -> None:
    """Tell CUDA graphs that what the last step returned is not needed any more."""
    if case.mode in GRAPH_MODES:
        torch.compiler.cudagraph_mark_step_begin()


def _forward(name: str, case: Case, noise: Tensor) -> Callable[..., Tensor]:
    """Each library's own call, with the same mask."""
    meta_like = name in ("meta", "hiera-optim")
    if case.task == "infer":
        if meta_like or name == "timm":
            return lambda model, images: model(images)
        return lambda model, images: model(images).logits
    if not meta_like:
        return lambda model, images: model(images, noise=noise).loss
    kept = int(noise.shape[1] * (1 - MASK_RATIO))
    is_kept = noise.argsort(1).argsort(1) < kept
    if name == "meta":
        return lambda model, images: model(images, mask=is_kept)[0]
    # Without it the library asks the device how many units are kept, which no graph may.
    kept_units = noise.argsort(1)[:, :kept].sort(1).values
    return lambda model, images: model(images, mask=is_kept, keep_idx=kept_units)[0]


def product_work(name: str, case: Case, device: torch.device) -> float:
    """Floating-point operations of the matrix products of a model's own step, in GFLOP an image."""
    # In float32, whose attention is PyTorch's: the counter knows no kernels of ours.
    small = replace(case, batch=1, precision="fp32", mode="eager", has_optimizer=False)
    # On "meta" nothing is computed, and the CPU's own operators, which the counter does not know, stay out;
    # Meta's model chooses tokens by their values, which are not there.
    where = torch.device("meta") if device.type == "cpu" and name == "ours" else device
    step = make_step(name, small, where)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


def checked_values(result: Tensor) -> list[float]:
    """What models are compared by: the loss, or the logits of the first images."""
    return result.detach().float().flatten()[:60].tolist()


def relative_difference(values: Sequence[float], reference: Sequence[float]) -> float:
    """The largest, element by element; one nearer to 0 than their root mean square counts as large as that.

    Returns:
        Infinity where one of them is no number.
    """
    found, wanted = torch.tensor(values).double(), torch.tensor(reference).double()
    scale = wanted.abs().clamp(min=float(wanted.square().mean().sqrt()))
    return float(((found - wanted).abs() / scale).nan_to_num(nan=math.inf).max())
