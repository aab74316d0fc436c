"""Crop, flip, RandAugment and rotation of a whole batch of gray bytes, on the device that trains.

The worker has drawn what happens to each image (augmentation.py); here it happens to all at once. Nothing
waits for the device: an operation that an image has not drawn leaves it as it is. The crop's sums are whole
numbers that float32 holds exactly, so that an image's pixels depend on nothing else in its batch.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
"""RandAugment's operations by index, without Color: radiographs are gray."""

ROUNDS = 2
"""Operations that each image passes, one after the other."""

STRENGTH = 9 / 30
"""Magnitude 9 of 31 as a share of each operation's range."""

DRAWS = ("crop_size", "is_flipped", "operations", "angle", "nearest_angle")
"""What a batch may hold beside its pixels for `augment`."""

_SHEAR = 0.3 * STRENGTH
_SHIFT = 150 / 331 * STRENGTH  # of the side
_DEGREES = 30.0 * STRENGTH
_FACTOR = 0.9 * STRENGTH  # brightness, contrast and sharpness are multiplied by 1 ± this
_POSTERIZED_BITS = 8 - round(4 * STRENGTH)
_SOLARIZED_FROM = 255 * (1 - STRENGTH)

_WEIGHT_UNIT = 2**13  # of the resize's weights: with 1/4 of a gray level between both products, sums of
_PIXEL_UNIT = 4  # at most 255 · 4 · 1.25 · 2^13 = 10.4 million stay below 2^24, where float32 is exact


def augment(pixels: Tensor, draws: dict[str, Any], image_size: int) -> Tensor:
    """Apply what was drawn for a batch: crop, flip, RandAugment, rotation.

    Args:
        pixels: (batch, 1, height, width), uint8.
        draws: as far as the recipe has them: `crop_size` (batch, 2), height and width of each crop, which
            stands in the upper left of `pixels`; `is_flipped`, `operations`, and `angle` or
            `nearest_angle`, see Augmentation.draws.
        image_size: side of the model's input in pixels.

    Returns:
        (batch, 1, image_size, image_size), uint8, where there are crops; else the size of `pixels`. The same
        bytes under autocast as without.
    """
    is_flipped = draws.get("is_flipped")
    # Autocast would round the products of whole numbers to half precision.
    with torch.autocast(pixels.device.type, enabled=False):
        if "crop_size" in draws:
            pixels = resize(pixels, draws["crop_size"], image_size, is_flipped)
        elif is_flipped is not None:
            pixels = torch.where(is_flipped[:, None, None, None], pixels.flip(-1), pixels)
        if "operations" in draws:
            for chosen in draws["operations"].unbind(1):
                pixels = rand_augment(pixels, chosen[:, 0].long(), chosen[:, 1])
        if "angle" in draws:
            pixels = rotate(pixels, draws["angle"])
        if "nearest_angle" in draws:
            pixels = rotate(pixels, draws["nearest_angle"], "nearest")
    return pixels


def resize(pixels: Tensor, sizes: Tensor, image_size: int, is_flipped: Tensor | None = None) -> Tensor:
    """Bicubic antialiased resize of each image, and its mirror image where asked for, as two matrix products.

    Within one gray level of torchvision's resize of the same bytes, which rounds to whole levels in between.

    Args:
        pixels: (batch, 1, height, width), uint8; each image stands in the upper left.
        sizes: (batch, 2), height and width of each image in pixels; what lies beyond does not count.
        image_size: side of the result in pixels.
        is_flipped: (batch,), bool; None: no image is mirrored.

    Returns:
        (batch, 1, image_size, image_size), uint8.

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing", with a = -1/2 as Pillow
        and torchvision; the filter is widened where it shrinks.
    """
    height, width = pixels.shape[-2:]
    rows = _resize_weights(sizes[:, 0], height, image_size)
    columns = _resize_weights(sizes[:, 1], width, image_size, is_flipped)
    gray = pixels[:, 0].to(torch.float32)
    across = _product(columns, gray.transpose(1, 2)).mul_(_PIXEL_UNIT / _WEIGHT_UNIT)
    across = across.round_().clamp_(0, 255 * _PIXEL_UNIT)  # (batch, columns, rows of the image)
    resized = _product(rows, across.transpose(1, 2)).mul_(1.0 / (_PIXEL_UNIT * _WEIGHT_UNIT))
    return resized.round_().clamp_(0, 255).to(torch.uint8).unsqueeze(1)


def _resize_weights(lengths: Tensor, side: int, image_size: int, is_mirrored: Tensor | None = None) -> Tensor:
    """(batch, image_size, side): what each pixel of a line counts in each of the result, × _WEIGHT_UNIT.

    Args:
        lengths: (batch,), pixels of each line that count.
        side: pixels of the lines.
        image_size: pixels of the result.
        is_mirrored: (batch,), bool, or None.
    """
    scale = lengths.to(torch.float32)[:, None] / image_size
    place = torch.arange(image_size, device=lengths.device, dtype=torch.float32).expand(len(lengths), -1)
    if is_mirrored is not None:
        place = torch.where(is_mirrored[:, None], image_size - 1 - place, place)
    center, widening = (place + 0.5) * scale, scale.clamp(min=1.0)
    taps = 2 * math.ceil(2 * max(1.0, side / image_size)) + 1  # known without asking the device
    first = (center - 2 * widening).floor()
    pixel = first[..., None] + torch.arange(taps, device=lengths.device)
    distance = (pixel + 0.5 - center[..., None]).abs() / widening[..., None]
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    weight = torch.where((pixel >= 0) & (pixel < lengths[:, None, None]), weight, 0.0)
    weight = (weight / weight.sum(-1, keepdim=True) * _WEIGHT_UNIT).round_()
    weights = weight.new_zeros(len(lengths), image_size, side)
    return weights.scatter_add_(-1, pixel.clamp(0, side - 1).long(), weight)


def _product(weights: Tensor, values: Tensor) -> Tensor:
    """The batched product of whole numbers, exactly.

    TF32 has 11 bits and the weights have 14: a GPU multiplies them in two parts.
    """
    if not weights.is_cuda:
        return torch.bmm(weights, values)
    coarse = (weights / 128).round_() * 128
    parts = torch.bmm(torch.cat([coarse, weights - coarse], 1), values)
    return parts[:, : weights.shape[1]] + parts[:, weights.shape[1] :]


def rotate(pixels: Tensor, angle: Tensor, mode: str = "bilinear") -> Tensor:
    """Turn each image about its center: black corners, as torchvision's `rotate` with fill 0.

    Args:
        pixels: (batch, 1, height, width), uint8.
        angle: (batch,), float32, in degrees, counter-clockwise.
        mode: bilinear or nearest.

    Returns:
        The same shape; within one gray level of torchvision, and of `nearest` all but the pixels that lie
        halfway between two.
    """
    turned = torch.deg2rad(angle)
    cosine, sine, zero = torch.cos(turned), torch.sin(turned), torch.zeros_like(turned)
    matrices = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1)
    gray = pixels.to(torch.float32)
    both = _sample(torch.cat([gray, torch.ones_like(gray)], 1), matrices, mode)
    return (both[:, :1] * both[:, 1:]).round_().to(torch.uint8)  # torchvision dims the edge twice: so do we


def _sample(values: Tensor, matrices: Tensor, mode: str) -> Tensor:
    """Read each image at the places that its matrix sends the result's pixels to; 0 outside.

    Args:
        values: (batch, channels, height, width), float32.
        matrices: (batch, 6), float32: result → image, in pixels from the center.
        mode: nearest or bilinear.
    """
    height, width = values.shape[-2:]
    x, y = (
        torch.linspace((1.0 - side) * 0.5, (side - 1.0) * 0.5, side, device=values.device)
        for side in (width, height)
    )
    x, y = x[None, None, :], y[None, :, None]
    a, b, c, d, e, f = (part[:, None, None] for part in matrices.unbind(1))
    grid = torch.stack([(a * x + b * y + c) / (0.5 * width), (d * x + e * y + f) / (0.5 * height)], -1)
    return functional.grid_sample(values, grid, mode=mode, padding_mode="zeros", align_corners=False)


def rand_augment(pixels: Tensor, operation: Tensor, sign: Tensor) -> Tensor:
    """One operation of RandAugment on each image, at magnitude 9 of 31, as torchvision's.

    An operation is a table of gray levels, a place for each pixel to come from, or a sharpening.

    Args:
        pixels: (batch, 1, height, width), uint8.
        operation: (batch,), int64, index into OPERATIONS.
        sign: (batch,), float32, 1 or -1, of the magnitude; for operations that have one.

    Returns:
        The same shape, uint8.

    Source: Cubuk et al. 2019, arXiv:1909.13719; N, M and the missing Color as in MedTransformer.
    """
    height, width = pixels.shape[-2:]
    levels = pixels.flatten(1).long()
    pixels = _gray_tables(levels, operation, sign).gather(1, levels).view_as(pixels)
    matrices = _matrices(height, width, pixels.device)[operation, (sign < 0).long()]
    gray = _sample(pixels.to(torch.float32), matrices, "nearest")
    factor = torch.where(operation == OPERATIONS.index("Sharpness"), 1 + _FACTOR * sign, 1.0)
    return _sharpen(gray, factor[:, None, None, None])


def _gray_tables(levels: Tensor, operation: Tensor, sign: Tensor) -> Tensor:
    """(batch, 256), uint8: what becomes of each gray level.

    Args:
        levels: (batch, pixels), int64.
        operation: (batch,), int64.
        sign: (batch,), float32.
    """
    counts = levels.new_zeros(len(levels), 256, dtype=torch.int32)
    counts.scatter_add_(1, levels, counts.new_ones(1).expand_as(levels))
    level = torch.arange(256, device=levels.device)
    gray = level.to(torch.float32).expand(len(levels), -1)
    factor = (1 + _FACTOR * sign)[:, None]
    mean = ((counts * level).sum(1, keepdim=True) / levels.shape[1]).to(torch.float32)
    is_there = counts > 0
    least = torch.where(is_there, level, 255).amin(1, keepdim=True).to(torch.float32)
    most = torch.where(is_there, level, 0).amax(1, keepdim=True).to(torch.float32)
    stretch = torch.where(most > least, (most - least) * (1.0 / 255.0), 1.0)
    tables = {
        "Brightness": gray * factor,
        "Contrast": gray * factor + mean * (1 - factor),
        "Posterize": (level & (256 - 2 ** (8 - _POSTERIZED_BITS))).to(torch.float32),
        "Solarize": torch.where(gray >= _SOLARIZED_FROM, 255 - gray, gray),
        "AutoContrast": torch.where(most > least, (gray - least) / stretch, gray),
        "Equalize": _equalized(counts, most.long()),
    }
    result = gray
    for name, table in tables.items():
        result = torch.where(operation[:, None] == OPERATIONS.index(name), table, result)
    return result.clamp(0, 255).to(torch.uint8)


def _equalized(counts: Tensor, most: Tensor) -> Tensor:
    """(batch, 256), float32: Pillow's table of histogram equalization.

    Args:
        counts: (batch, 256), pixels of each level.
        most: (batch, 1), the brightest level that occurs, int64.
    """
    total = counts.cumsum(1)
    step = (total[:, -1:] - counts.gather(1, most)).div(255, rounding_mode="floor")
    below = functional.pad(total[:, :-1], (1, 0))
    table = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor")
    table[:, 0] = 0
    return torch.where(step > 0, table, torch.arange(256, device=counts.device)).to(torch.float32)


@functools.lru_cache(maxsize=8)
def _matrices(height: int, width: int, device: torch.device) -> Tensor:
    """(operations, 2, 6): result → image, in pixels from the center, for both signs of the magnitude.

    Args:
        height: of the images.
        width: of the images.
        device: where the result lies.
    """
    table = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=torch.float64).repeat(len(OPERATIONS), 2, 1)
    for side, sign in enumerate((1, -1)):
        shear, turn = sign * _SHEAR, math.radians(sign * _DEGREES)
        cosine, sine = math.cos(turn), math.sin(turn)
        moved = {
            # sheared about the upper left corner, which lies half a side from the center
            "ShearX": [1, shear, shear * height / 2, 0, 1, 0],
            "ShearY": [1, 0, 0, shear, 1, shear * width / 2],
            "TranslateX": [1, 0, -int(sign * _SHIFT * width), 0, 1, 0],
            "TranslateY": [1, 0, 0, 0, 1, -int(sign * _SHIFT * height)],
            "Rotate": [cosine, -sine, 0, sine, cosine, 0],
        }
        for name, matrix in moved.items():
            table[OPERATIONS.index(name), side] = torch.tensor(matrix, dtype=torch.float64)
    return table.to(device, torch.float32)


def _sharpen(gray: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its smoothed self, borders left out; a factor of 1 leaves it as it is.

    Args:
        gray: (batch, 1, height, width), float32, whole numbers.
        factor: (batch, 1, 1, 1); below 1 is smoother, above 1 sharper.

    Returns:
        uint8.
    """
    if min(gray.shape[-2:]) <= 2:
        return gray.to(torch.uint8)
    inner = gray[..., 1:-1, 1:-1]
    rows = gray[..., :-2, :] + gray[..., 1:-1, :] + gray[..., 2:, :]
    # ones around a five, over 13, as Pillow's SMOOTH: thirteenths have no ties, so this is exact
    smooth = ((rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13).round_()
    inner += (smooth - inner) * (1 - factor)
    return gray.clamp_(0, 255).to(torch.uint8)
