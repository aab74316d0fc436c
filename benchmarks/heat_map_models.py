"""Small classifiers whose finding has a known place, for heat_map_methods: what they see and how they learn.

Stands below heat_map_methods.py; nothing else imports it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.findings import draw_radiograph
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

SIGNS = ("Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
"""Findings of the phantom chests, each with a box."""

SIDE = 128


@dataclass(frozen=True)
class Images:
    """A batch with its truth.

    Attributes:
        pixel_values: (batch, 3, height, width), normalized.
        labels: (batch, findings), 1 or 0.
        is_target: (batch, findings, height, width), True where the finding is.
    """

    pixel_values: Tensor
    labels: Tensor
    is_target: Tensor


Draw = Callable[[int, torch.Generator], Images]


def draw_squares(
    count: int,
    generator: torch.Generator,
    *,
    brightness: float = 2.0,
    is_textured: bool = False,
    is_anywhere: bool = True,
    squares: int = 1,
) -> Images:
    """Noise, and in every second image squares of 16 pixels: the finding.

    Args:
        count: images, even.
        generator: of everything random.
        brightness: added to a square.
        is_textured: draw a background that is as bright and dark as the squares are.
        is_anywhere: squares may lie across the borders of mask units; else in the middle of one.
        squares: in an image that has the finding.
    """
    pixels = _background(count, generator, is_textured)
    is_target = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.bool)
    for index in range(0, count, 2):
        for _ in range(squares):
            if is_anywhere:
                row, column = torch.randint(SIDE - 16, (2,), generator=generator).tolist()
            else:
                row, column = (32 * torch.randint(SIDE // 32, (2,), generator=generator) + 8).tolist()
            pixels[index, :, row : row + 16, column : column + 16] += brightness
            is_target[index, 0, row : row + 16, column : column + 16] = True
    return Images(pixels.expand(-1, 3, -1, -1), is_target.amax(dim=(2, 3)).float(), is_target)


def draw_missing(count: int, generator: torch.Generator) -> Images:
    """A bright disk in every mask unit; the finding is that one is missing."""
    pixels = _background(count, generator, is_textured=False)
    is_target = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.bool)
    for index in range(count):
        missing = int(torch.randint(16, (), generator=generator)) if index % 2 == 0 else -1
        for place in range(16):
            top, left = 32 * (place // 4), 32 * (place % 4)
            if place == missing:
                is_target[index, 0, top : top + 32, left : left + 32] = True
                continue
            row, column = (torch.randint(4, 13, (2,), generator=generator)).tolist()
            pixels[index, :, top + row : top + row + 16, left + column : left + column + 16] += 2.0
    return Images(pixels.expand(-1, 3, -1, -1), is_target.amax(dim=(2, 3)).float(), is_target)


def _background(count: int, generator: torch.Generator, is_textured: bool) -> Tensor:
    fine = 0.1 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    if not is_textured:
        return fine
    coarse = gaussian_blur(torch.randn(count, 1, SIDE, SIDE, generator=generator), [31, 31], [6.0, 6.0])
    return fine + 0.25 * coarse / coarse.std()


def draw_phantoms(count: int, generator: torch.Generator, size: int = SIDE) -> Images:
    """Phantom chests, each finding in a quarter of them; truth is the finding's box."""
    random = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    pixels, labels = torch.empty(count, 1, size, size), torch.zeros(count, len(SIGNS))
    is_target = torch.zeros(count, len(SIGNS), size, size, dtype=torch.bool)
    for index in range(count):
        present = [name for name in SIGNS if random.random() < 0.25]
        body = draw_body(random, is_female=bool(random.integers(2)))
        film = draw_radiograph(body, present, size, random)
        pixels[index, 0] = torch.from_numpy(film.pixels.astype(np.float32)) / 255
        for name in present:
            finding = SIGNS.index(name)
            labels[index, finding] = 1
            for x, y, width, height in film.boxes[name]:
                rows = slice(round(y * size), round((y + height) * size))
                is_target[index, finding, rows, round(x * size) : round((x + width) * size)] = True
    return Images(((pixels - 0.427) / 0.285).expand(-1, 3, -1, -1), labels, is_target)


def tiny_model(seed: int, findings: int = 1) -> HieraMAEForImageClassification:
    """Four blocks of 8 to 64 channels."""
    torch.manual_seed(seed)
    return HieraMAEForImageClassification(
        HieraMAEConfig.from_size(
            "tiny",
            image_size=[SIDE, SIDE],
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_labels=findings,
            problem_type=MULTI_LABEL,
        )
    )


def hiera_tiny(seed: int, findings: int = 1) -> HieraMAEForImageClassification:
    """Hiera-T, 28 million parameters."""
    torch.manual_seed(seed)
    config = HieraMAEConfig.from_size(
        "tiny", image_size=[SIDE, SIDE], num_labels=findings, problem_type=MULTI_LABEL, drop_path_rate=0.0
    )
    return HieraMAEForImageClassification(config)


def of_signs(folder: Path) -> HieraMAEForImageClassification:
    """A finished classifier with those of its outputs that are SIGNS."""
    model = HieraMAEForImageClassification.from_pretrained(folder)
    rows = [model.config.label2id[name] for name in SIGNS]
    model.classifier.weight.data = model.classifier.weight.data[rows]
    model.classifier.bias.data = model.classifier.bias.data[rows]
    model.num_labels = len(SIGNS)
    return model.eval()


def train(
    model: HieraMAEForImageClassification, draw: Draw, *, steps: int, rate: float, seed: int, batch: int = 16
) -> float:
    """AdamW on fresh images, the rate warmed up, then falling to 0; the mean loss of the last tenth."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    model.train()
    losses = []
    for _ in range(steps):
        images = draw(batch, generator)
        optimizer.zero_grad()
        loss = model(images.pixel_values, labels=images.labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return float(np.mean(losses[-max(1, steps // 10) :]))
