"""Which mask units the encoder sees: a forward's inputs are checked, noise → a mask, and scores → noise.

Stands between the caller, who decides what to mask by `noise`, and both model files, which call `choose_mask`
(masked forward) or `check_pixel_values` (whole images). A mask is indices of static shape. Torch only.
"""

from typing import NamedTuple

import torch

from .configuration_hiera_mae import HieraMAEConfig, check_image_size


class UnitMask(NamedTuple):
    """A mask over mask units, as indices of static shape.

    Attributes:
        kept: (batch, kept units), ascending indices of the units the encoder sees.
        masked: (batch, masked units), ascending indices of the others.
        is_kept: (batch, units); True is visible to the encoder.
        ids_restore: (batch, units); each unit's rank in the noise, as transformers returns it.
    """

    kept: torch.Tensor
    masked: torch.Tensor
    is_kept: torch.Tensor
    ids_restore: torch.Tensor


def count_kept(units: int, mask_ratio: float) -> int:
    """Number of units that stay visible.

    Args:
        units: mask units of one image.
        mask_ratio: fraction to hide, strictly between 0 and 1.

    Raises:
        ValueError: the ratio is outside (0, 1), or leaves nothing visible or nothing masked.
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(
            f"mask_ratio is {mask_ratio}; wanted a number strictly between 0 and 1, such as 0.6."
        )
    kept = int(units * (1 - mask_ratio))
    if not 0 < kept < units:
        raise ValueError(
            f"mask_ratio {mask_ratio} keeps {kept} of {units} mask units; wanted at least one kept and one "
            "masked. Use larger images or another mask_ratio."
        )
    return kept


def mask_from_noise(noise: torch.Tensor, kept: int) -> UnitMask:
    """Keep the units with the smallest noise.

    Args:
        noise: (batch, units).
        kept: units to keep in each sample.
    Source: the same sorting as transformers' Hiera, so equal noise gives equal masks.
    """
    ids_shuffle = torch.argsort(noise, dim=1)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    return UnitMask(
        kept=ids_shuffle[:, :kept].sort(dim=1).values,
        masked=ids_shuffle[:, kept:].sort(dim=1).values,
        is_kept=ids_restore < kept,
        ids_restore=ids_restore,
    )


def noise_from_scores(scores: torch.Tensor, tie_break: torch.Tensor | None = None) -> torch.Tensor:
    """Turn "keep these units first" scores into the `noise` that keeps them first.

    A pure function of its arguments. Whatever prefers some regions (a lung contour, an attention map) becomes
    a mask through it: `model(pixel_values, noise=noise_from_scores(scores, torch.rand_like(scores)))`.

    Args:
        scores: (batch, units), any order of magnitude; the highest are kept.
        tie_break: (batch, units), decides among equal scores, lowest first; None keeps the lower index.

    Returns:
        (batch, units), float32: rank / units, all different, so that sorting it has one answer.

    Raises:
        ValueError: scores are not (batch, units), or hold NaN, or tie_break has another shape.
    """
    if scores.dim() != 2:
        raise ValueError(f"scores have shape {tuple(scores.shape)}; wanted (batch, mask units).")
    if scores.is_floating_point() and bool(scores.isnan().any()):
        raise ValueError("scores hold NaN, which cannot be sorted; give such units a low score instead.")
    if tie_break is None:
        by_tie = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    elif tie_break.shape == scores.shape:
        by_tie = torch.argsort(tie_break, dim=1)
    else:
        raise ValueError(
            f"tie_break has shape {tuple(tie_break.shape)}; wanted {tuple(scores.shape)}, that of scores."
        )
    by_score = torch.argsort(scores.gather(1, by_tie), dim=1, descending=True, stable=True)
    ranks = torch.argsort(by_tie.gather(1, by_score), dim=1)
    return ranks.float() / scores.shape[1]


def check_pixel_values(
    config: HieraMAEConfig, pixel_values: torch.Tensor, interpolate_pos_encoding: bool | None = None
) -> None:
    """Refuse images the model cannot take.

    Args:
        config: the model's.
        pixel_values: (batch, channels, height, width).
        interpolate_pos_encoding: False refuses images of another size than `config.image_size`.

    Raises:
        ValueError: not four-dimensional, not floating point, wrong channels, not whole mask units, or of
            another size where position embeddings shall not be interpolated.
    """
    if pixel_values.dim() != 4:
        raise ValueError(
            f"pixel_values have shape {tuple(pixel_values.shape)}; wanted (batch, channels, height, width)."
        )
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel_values are {pixel_values.dtype}; wanted normalized floating point. Run the image "
            "processor first."
        )
    if pixel_values.shape[1] != config.num_channels:
        raise ValueError(
            f"pixel_values have {pixel_values.shape[1]} channels; wanted {config.num_channels} (num_channels "
            "of the configuration). Convert the images, or load the model with another num_channels."
        )
    check_image_size(tuple(pixel_values.shape[2:]), config.unit_pixels, "The size of pixel_values")
    found, trained = tuple(pixel_values.shape[2:]), tuple(config.image_size)
    if interpolate_pos_encoding is False and found != trained:
        raise ValueError(
            f"pixel_values are {found[0]}×{found[1]} pixels, and interpolate_pos_encoding is False; wanted "
            f"{trained[0]}×{trained[1]}, the size of the position embeddings. Resize the images, or leave "
            "interpolate_pos_encoding out."
        )


def choose_mask(
    config: HieraMAEConfig,
    pixel_values: torch.Tensor,
    noise: torch.Tensor | None,
    mask_ratio: float | None,
    interpolate_pos_encoding: bool | None = None,
) -> UnitMask:
    """The mask of a forward: check its inputs, draw noise if none is given, keep the smallest.

    Args:
        config: the model's.
        pixel_values: (batch, channels, height, width).
        noise: (batch, mask units) or None.
        mask_ratio: fraction to hide; None takes the configuration's.
        interpolate_pos_encoding: see check_pixel_values.

    Raises:
        ValueError: any of them does not fit.
    """
    check_pixel_values(config, pixel_values, interpolate_pos_encoding)
    rows, columns = (
        side // unit for side, unit in zip(pixel_values.shape[2:], config.unit_pixels, strict=True)
    )
    shape = (pixel_values.shape[0], rows * columns)
    kept = count_kept(rows * columns, config.mask_ratio if mask_ratio is None else mask_ratio)
    if noise is None:
        noise = torch.rand(*shape, device=pixel_values.device)
    elif tuple(noise.shape) != shape:
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}; wanted {shape}: one number per image and mask unit "
            f"({rows} rows × {columns} columns)."
        )
    return mask_from_noise(noise, kept)
