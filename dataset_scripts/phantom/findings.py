"""Draw the sign of each finding on a synthetic chest, so that the eye can see it.

It takes a `Chest` of `anatomy` (coordinates and sides are explained there) and turns a list of
findings into pixels, a lung mask and boxes for `phantom`. The signs are caricatures: sensible in place and
shape, much clearer than in life.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataset_scripts.phantom.anatomy import SIDES, Body, Chest, Field, Stroke, bump, soft_step

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Radiograph:
    """One drawn film.

    `pixels` is (size, size) uint8. `is_lung` is (size, size), True inside the lung fields. `boxes` holds for
    a finding one (x, y, width, height) for each place where its sign is seen, as fractions of the image size.
    `sides` holds the patient's side, left or right, of each finding of `ONE_SIDED`; as on any radiograph the
    patient's left is on the image's right. `extents` holds the area of each sign as a share of both lungs'.
    """

    pixels: npt.NDArray[np.uint8]
    is_lung: npt.NDArray[np.bool_]
    boxes: dict[str, list[Box]]
    sides: dict[str, str]
    extents: dict[str, float]


def draw_radiograph(
    body: Body, findings: Sequence[str], size: int, rng: np.random.Generator, *, is_ap: bool = False
) -> Radiograph:
    """Draw one film of a body with the signs of the findings on it.

    Args:
        body: the patient, see `draw_body`.
        findings: names among `SIGNS`; empty is a healthy chest.
        size: height and width of the film in pixels.
        rng: source of position, exposure, noise and the place of each sign.
        is_ap: an antero-posterior film, which magnifies the heart.

    Raises:
        ValueError: a finding has no sign.
    """
    unknown = [finding for finding in findings if finding not in SIGNS]
    if unknown:
        raise ValueError(f"no sign is known for {unknown}; the known findings are {sorted(SIGNS)}.")
    chest = Chest(body, findings, size, rng, is_ap=is_ap)
    seen: dict[str, Sequence[Field]] = {}
    in_lungs = [name for name in SIGNS if name in findings and name not in _IN_FRONT_OF_THE_HEART]
    for name in in_lungs:
        seen[name] = SIGNS[name](chest)
    chest.add_heart_and_abdomen()
    for name in _IN_FRONT_OF_THE_HEART:
        if name in findings:
            seen[name] = SIGNS[name](chest)
    chest.add_bones()
    boxes = {name: [_bounding_box(mask) for mask in masks] for name, masks in seen.items()}
    sides = {name: _PATIENT_SIDES[chest.side[name]] for name in ONE_SIDED if name in findings}
    lungs = np.maximum(chest.lungs[-1], chest.lungs[1])
    extents = {name: float(sum(mask.sum() for mask in masks) / lungs.sum()) for name, masks in seen.items()}
    return Radiograph(chest.expose(), lungs > 0.5, boxes, sides, extents)


def _bounding_box(mask: Field) -> Box:
    height, width = mask.shape
    is_seen = mask > 0.4 * mask.max()
    rows, columns = np.flatnonzero(is_seen.any(axis=1)), np.flatnonzero(is_seen.any(axis=0))
    left, top = columns[0] / width, rows[0] / height
    return (
        float(left),
        float(top),
        float((columns[-1] + 1) / width - left),
        float((rows[-1] + 1) / height - top),
    )


# Every sign below paints itself on the chest and returns one mask for each place where it is seen.


def _emphysema(chest: Chest) -> Sequence[Field]:
    return [chest.lungs[side] for side in SIDES]  # long dark lungs and flat diaphragms: drawn by the geometry


def _cardiomegaly(chest: Chest) -> Sequence[Field]:
    return [chest.heart]  # drawn by the geometry


def _atelectasis(chest: Chest) -> Sequence[Field]:
    side, rng = chest.side["Atelectasis"], chest.rng
    x, y = chest.spot(side, 0.55, rng.uniform(0.68, 0.8))
    tilt = side * rng.uniform(-0.35, 0.1)
    plate = np.zeros_like(chest.x)
    for shift in (0.0, -0.13):
        away = (chest.y - y - shift) - tilt * (chest.x - x)
        plate = np.maximum(plate, bump(away, 0.028) * soft_step(0.24 + shift / 2 - np.abs(chest.x - x), 0.05))
    plate = plate * chest.lungs[side]
    chest.cover(0.95 * plate, 0.80)
    return [plate]


def _edema(chest: Chest) -> Sequence[Field]:
    wings = []
    lines: list[Stroke] = []
    for side in SIDES:
        away = np.hypot((chest.lateral[side] - 0.27) / 1.1, (chest.y + 0.02) / 1.25)
        wings.append(bump(away, 0.27) * chest.lungs[side])
        for height in np.linspace(0.05, 0.36, 7):
            x, end = side * (chest.width - 0.03), side * (chest.width - 0.17)
            lines.append((((x, height), (end, height - 0.015)), 0.012))
    for wing in wings:
        chest.cover(0.8 * wing, 0.60 + 0.05 * chest.noise(24))
    chest.image += 0.3 * chest.strokes(lines) * (chest.lungs[-1] + chest.lungs[1])
    return wings


def _consolidation(chest: Chest) -> Sequence[Field]:
    side, rng = chest.side["Consolidation"], chest.rng
    fissure = rng.uniform(-0.22, -0.06) + rng.uniform(-0.15, 0.15) * (chest.lateral[side] - 0.4)
    lobe = chest.lungs[side] * soft_step(fissure - chest.y, 0.015)
    chest.cover(0.88 * lobe, 0.66 + 0.02 * chest.noise(12))
    return [lobe]


def _pneumonia(chest: Chest) -> Sequence[Field]:
    side, rng = chest.side["Pneumonia"], chest.rng
    x, y = chest.spot(side, 0.45, rng.uniform(0.62, 0.78))
    radius = rng.uniform(0.25, 0.31)
    away = np.hypot(chest.x - x, (chest.y - y) / 0.9) + 0.035 * chest.noise(9)
    patch = chest.lungs[side] * soft_step(radius - away, 0.06)
    toward = 0.0 if side == 1 else math.pi
    angles = toward + np.linspace(-0.9, 0.9, 5)
    bronchi = chest.strokes(chest.branches((x - side * 0.2, y - 0.05), angles, 0.5, 0.02), 0.002)
    chest.cover(0.85 * patch, 0.68 + 0.03 * chest.noise(20))
    chest.cover(0.9 * patch * bronchi, 0.12)
    return [patch]


def _infiltration(chest: Chest) -> Sequence[Field]:
    side, rng = chest.side["Infiltration"], chest.rng
    patches = []
    for place in SIDES if rng.random() < 0.5 else (side,):
        x, y = chest.spot(place, 0.5, rng.uniform(0.4, 0.6))
        region = soft_step(0.34 - np.hypot(chest.x - x, (chest.y - y) / 1.2), 0.12) * chest.lungs[place]
        chest.image += 0.30 * region * soft_step(chest.noise(26) - 0.1, 0.6)
        patches.append(region)
    return patches


def _fibrosis(chest: Chest) -> Sequence[Field]:
    low = soft_step(chest.y - 0.05, 0.14)
    net = np.maximum(bump(chest.noise(22), 0.28), bump(chest.noise(22), 0.28))
    bases = [chest.lungs[side] * low for side in SIDES]
    for base in bases:
        chest.image += base * (0.06 + 0.36 * net)
    return bases


def _pleural_thickening(chest: Chest) -> Sequence[Field]:
    side, rng = chest.side["Pleural_Thickening"], chest.rng
    thickness = rng.uniform(0.06, 0.085) + 0.012 * chest.noise(12)
    along = soft_step(chest.y - chest.apex - 0.16, 0.05)
    rim = soft_step(thickness - chest.wall[side], 0.015) * chest.lungs[side] * along
    chest.cover(0.95 * rim, 0.82)
    return [rim]


def _pneumothorax(chest: Chest) -> Sequence[Field]:
    side, rng = chest.side["Pneumothorax"], chest.rng
    gap = rng.uniform(0.12, 0.18) + 0.2 * soft_step(-chest.y - 0.25, 0.35)
    from_wall, from_apex = chest.wall[side], (chest.y - chest.apex) * np.float32(0.7)
    depth = -0.1 * np.log(np.exp(-10 * from_wall.clip(-1)) + np.exp(-10 * from_apex.clip(-1)))
    space = chest.lungs[side] * soft_step(gap - depth, 0.012)
    chest.cover(0.97 * space, 0.015)
    edge = chest.lungs[side] * bump(depth - gap, 0.014)
    chest.image += 0.12 * chest.lungs[side] * (1 - space)
    chest.cover(0.9 * edge, 0.62)
    return [space]


def _effusion(chest: Chest) -> Sequence[Field]:
    side, rng = chest.side["Effusion"], chest.rng
    share = chest.lateral[side] / np.float32(chest.width)
    level = chest.base[side] + 0.02 - rng.uniform(0.38, 0.58) * (0.42 + 0.58 * np.clip(share, 0, 1) ** 3)
    fluid = chest.lungs[side] * soft_step(chest.y - level, 0.025)
    chest.cover(0.97 * fluid, 0.76)
    return [fluid]


def _disk(chest: Chest, name: str, radius: float, brightness: float) -> Sequence[Field]:
    side, rng = chest.side[name], chest.rng
    x, y = chest.spot(side, rng.uniform(0.35, 0.7), rng.uniform(0.3, 0.75))
    disk = soft_step(radius - np.hypot(chest.x - x, chest.y - y), 0.014)
    chest.cover(0.95 * disk, brightness)
    return [disk]


def _nodule(chest: Chest) -> Sequence[Field]:
    return _disk(chest, "Nodule", float(chest.rng.uniform(0.05, 0.065)), 0.95)


def _mass(chest: Chest) -> Sequence[Field]:
    return _disk(chest, "Mass", float(chest.rng.uniform(0.15, 0.20)), 0.88)


def _hernia(chest: Chest) -> Sequence[Field]:
    rng = chest.rng
    x, y = rng.uniform(-0.06, 0.12), chest.base[1] - chest.dome - rng.uniform(0.16, 0.22)
    radius = rng.uniform(0.19, 0.23)
    away = np.hypot(chest.x - x, (chest.y - y) / 0.9)
    sac = soft_step(radius - away, 0.012)
    chest.cover(sac, np.where(chest.y < y + 0.05, 0.14, 0.80).astype(np.float32))
    chest.cover(bump(away - radius, 0.018), 0.86)
    return [sac]


SIGNS: dict[str, Callable[[Chest], Sequence[Field]]] = {
    "Emphysema": _emphysema,
    "Infiltration": _infiltration,
    "Fibrosis": _fibrosis,
    "Edema": _edema,
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Atelectasis": _atelectasis,
    "Pleural_Thickening": _pleural_thickening,
    "Effusion": _effusion,
    "Mass": _mass,
    "Nodule": _nodule,
    "Cardiomegaly": _cardiomegaly,
    "Hernia": _hernia,
}

ONE_SIDED = ("Atelectasis", "Consolidation", "Effusion", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia",
             "Pneumothorax")  # fmt: skip
"""Findings whose sign is drawn on one side alone."""

_PATIENT_SIDES = {-1: "right", 1: "left"}

_IN_FRONT_OF_THE_HEART = ("Cardiomegaly", "Hernia")
