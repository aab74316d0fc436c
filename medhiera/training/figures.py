"""The figures of a run: losses over steps, and what the masked autoencoder fills in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from medhiera.inference.reconstruction import Reconstruction
from medhiera.plotting import BLUE, GREEN, ORANGE, save


def reconstruction_rows(pictures: Reconstruction, captions: Sequence[str], path: Path) -> None:
    """One row an image: original, masked, reconstruction.

    Args:
        pictures: from explain.reconstruct.
        captions: one per image, such as its source.
        path: the PNG to write.
    """
    columns = (
        ("original", pictures.original),
        ("masked", pictures.masked),
        ("reconstruction", pictures.filled),
    )
    count = len(captions)
    figure, axes = plt.subplots(count, 3, figsize=(6.0, 2.1 * count), squeeze=False, layout="constrained")
    for row, caption in enumerate(captions):
        for column, (title, images) in enumerate(columns):
            axis = axes[row, column]
            axis.imshow(images[row].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=10)
        axes[row, 0].set_ylabel(caption, fontsize=8)
    save(figure, path)


def training_curves(history: Sequence[Mapping[str, Any]], path: Path, *, loss_name: str) -> None:
    """Loss in training and validation, and the learning rate, over steps.

    Args:
        history: the Trainer's log_history.
        path: the PNG to write.
        loss_name: what the loss is, for the axis.
    """
    trained = [entry for entry in history if "loss" in entry]
    validated = [entry for entry in history if "eval_loss" in entry]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
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
    save(figure, path)
