"""The figures of a run: losses over steps, masks, and what the masked autoencoder fills in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medhiera.data.dataset import RadiographCollator, RadiographDataset
from medhiera.data.masks import Region
from medhiera.data.stored_images import GrayArray
from medhiera.inference.reconstruction import Reconstruction
from medhiera.plotting import BLUE, GREEN, ORANGE, save, subplots
from modeling_hiera_mae.masking import count_kept, mask_from_noise


def reconstruction_rows(
    pictures: Reconstruction, captions: Sequence[str], path: Path, *, mark: str = ""
) -> None:
    """One row an image: original, masked, reconstruction.

    Args:
        pictures: from explain.reconstruct.
        captions: one per image, such as its source.
        path: the PNG to write.
        mark: at the bottom, see plotting.save.
    """
    columns = (
        ("original", pictures.original),
        ("masked", pictures.masked),
        ("reconstruction", pictures.filled),
    )
    count = len(captions)
    figure, axes = subplots(count, 3, figsize=(6.0, 2.1 * count), squeeze=False)
    for row, caption in enumerate(captions):
        for column, (title, images) in enumerate(columns):
            axis = axes[row, column]
            axis.imshow(images[row].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=10)
        axes[row, 0].set_ylabel(caption, fontsize=8)
    figure.supxlabel(pictures.note, fontsize=8)
    save(figure, path, mark)


def training_curves(
    history: Sequence[Mapping[str, Any]], path: Path, *, loss_name: str, mark: str = ""
) -> None:
    """Loss in training and validation, and the learning rate, over steps.

    Args:
        history: the Trainer's log_history.
        path: the PNG to write.
        loss_name: what the loss is, for the axis.
        mark: at the bottom, see plotting.save.
    """
    trained = [entry for entry in history if "loss" in entry]
    validated = [entry for entry in history if "eval_loss" in entry]
    figure, (top, bottom) = subplots(2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1))
    few = "." if len(trained) < 10 else ""  # a line of one point would not be seen
    top.plot(
        [e["step"] for e in trained], [e["loss"] for e in trained], color=BLUE, marker=few, label="training"
    )
    if validated:
        top.plot(
            [e["step"] for e in validated],
            [e["eval_loss"] for e in validated],
            color=ORANGE,
            marker="o",
            markersize=4,
            label="validation",
        )
    top.set_ylabel(loss_name)
    top.legend(frameon=False)
    top.grid(alpha=0.3)
    bottom.plot([e["step"] for e in trained], [e["learning_rate"] for e in trained], color=GREEN, marker=few)
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("optimizer step")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    bottom.grid(alpha=0.3)
    save(figure, path, mark)


def draw_masks(
    table: RadiographDataset, chosen: Sequence[int], captions: Sequence[str], path: Path, *, mark: str = ""
) -> None:
    """Draw the first epoch's masks over a few images, with the regions that they follow.

    Args:
        table: of stage 1, with masks.
        chosen: its rows.
        captions: one per image, such as its source.
        path: the PNG to write.
        mark: at the bottom, see plotting.save.
    """
    masks, preprocessing, regions = table.masks, table.preprocessing, table.regions
    assert masks is not None
    drawn = RadiographCollator()(table.__getitems__([(0, row) for row in chosen]))
    batch = preprocessing.model_inputs(drawn, channels=1)
    inputs = batch["pixel_values"][:, 0] * preprocessing.std + preprocessing.mean
    is_kept = mask_from_noise(batch["noise"], count_kept(batch["noise"].shape[1], masks.mask_ratio)).is_kept
    mask_rows(
        table.images.read(chosen), [None] * len(chosen) if regions is None else regions.read(chosen),
        inputs.clamp(0, 1), is_kept.unflatten(1, masks.grid), captions, path, mark=mark,
    )  # fmt: skip


def mask_rows(
    pictures: Sequence[GrayArray],
    regions: Sequence[Region | None],
    inputs: Tensor,
    is_kept: Tensor,
    captions: Sequence[str],
    path: Path,
    *,
    mark: str = "",
) -> None:
    """One row an image: the picture with its region, what the model is given, and what the mask leaves of it.

    Args:
        pictures: whole, each (height, width), uint8.
        regions: of the whole pictures; None where the mask follows none.
        inputs: (images, height, width), in [0, 1]: after crop and flip.
        is_kept: (images, rows, columns) of mask units.
        captions: one per image, such as its source.
        path: the PNG to write.
        mark: at the bottom, see plotting.save.
    """
    titles = ("picture, region", "model's input", "what it sees")
    count = len(captions)
    figure, axes = subplots(count, 3, figsize=(6.0, 2.1 * count), squeeze=False)
    for row, (picture, region) in enumerate(zip(pictures, regions, strict=True)):
        height, width = picture.shape
        across, down = (inputs.shape[2] // is_kept.shape[2], inputs.shape[1] // is_kept.shape[1])
        kept = is_kept[row].repeat_interleave(down, 0).repeat_interleave(across, 1)
        shown = (picture / 255.0, inputs[row].numpy(), inputs[row].where(kept, torch.tensor(0.5)).numpy())
        for axis, title, image in zip(axes[row], titles, shown, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=10)
        if region is not None and region.any():
            x, y = ((np.arange(side) + 0.5) * length / side - 0.5
                    for side, length in zip(region.shape[::-1], (width, height), strict=True))  # fmt: skip
            axes[row, 0].contour(x, y, region, levels=[0.5], colors=ORANGE, linewidths=1.2)
        axes[row, 0].set_ylabel(captions[row], fontsize=8)
    save(figure, path, mark)
