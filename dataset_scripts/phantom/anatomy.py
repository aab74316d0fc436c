"""Draw the chest of a synthetic frontal radiograph: outline, lungs, vessels, heart, bones, exposure.

`findings` puts the signs of diseases on it, `phantom` decides who has which and writes the files.
Nothing here was taken from a patient.

Coordinates: x runs from -1 (left edge of the image, the patient's right) to 1, y from -1 (top) to 1, before
the patient is placed on the film. `lateral` is the distance from the midline on one side, so it grows towards
the chest wall on both. A side is -1 (image left) or 1 (image right). Brightness: 0 is air, 1 is metal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Field = npt.NDArray[np.floating[Any]]  # float32 throughout; numpy's stubs cannot follow that

Stroke = tuple[Sequence[tuple[float, float]], float]  # points, thickness

SIDES = (-1, 1)


@dataclass(frozen=True)
class Body:
    """What stays the same between two radiographs of one patient; lengths in the module's coordinates."""

    chest_width: float
    chest_height: float
    heart_width: float
    rib_spacing: float
    rib_slope: float
    fat: float
    is_female: bool


def draw_body(rng: np.random.Generator, *, is_female: bool) -> Body:
    """Draw the habitus of one patient."""
    return Body(
        chest_width=float(rng.uniform(0.64, 0.80) - 0.03 * is_female),
        chest_height=float(rng.uniform(0.88, 1.12)),
        heart_width=float(rng.uniform(0.25, 0.30)),
        rib_spacing=float(rng.uniform(0.135, 0.165)),
        rib_slope=float(rng.uniform(0.12, 0.30)),
        fat=float(rng.uniform(0.0, 1.0)),
        is_female=is_female,
    )


def soft_step(distance: Field, width: float) -> Field:
    """0 below -width, 1 above width, smooth between."""
    ramp = distance * np.float32(0.5 / width)
    ramp += np.float32(0.5)
    np.minimum(np.maximum(ramp, 0, out=ramp), 1, out=ramp)
    smooth = ramp * np.float32(-2)
    smooth += 3
    smooth *= ramp
    smooth *= ramp
    return smooth


def bump(distance: Field, width: float) -> Field:
    """A Gaussian of the distance."""
    scaled = distance * np.float32(1 / width)
    scaled *= scaled
    np.negative(scaled, out=scaled)
    return np.exp(scaled, out=scaled)


class Chest:
    """A chest that is being drawn: its geometry, and the image so far."""

    def __init__(
        self, body: Body, findings: Sequence[str], size: int, rng: np.random.Generator, *, is_ap: bool
    ) -> None:
        self.body, self.size, self.rng = body, size, rng
        self.side = {finding: int(rng.choice(SIDES)) for finding in findings}
        self._place_on_film(is_ap)
        self._measure(findings, is_ap)
        self.lateral = {side: side * self.x for side in SIDES}
        self.wall: dict[int, Field] = {}
        self.lungs: dict[int, Field] = {}
        self.floor: dict[int, Field] = {}
        for side in SIDES:
            self._outline_lung(side)
        self._fill_lungs(0.08 if "Emphysema" in findings else 0.17)

    def _place_on_film(self, is_ap: bool) -> None:
        rng, turn = self.rng, math.radians(self.rng.uniform(-6, 6))
        zoom = rng.uniform(0.94, 1.16)
        self._matrix = zoom * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        self._shift = np.array([rng.uniform(-0.11, 0.11), rng.uniform(0.02, 0.18) - 0.04 * is_ap])
        steps = (np.arange(self.size) + 0.5) / self.size * 2 - 1
        inverse = np.linalg.inv(self._matrix)
        across, down = steps[None, :] - self._shift[0], steps[:, None] - self._shift[1]
        self.x: Field = (inverse[0, 0] * across + inverse[0, 1] * down).astype(np.float32)
        self.y: Field = (inverse[1, 0] * across + inverse[1, 1] * down).astype(np.float32)

    def _measure(self, findings: Sequence[str], is_ap: bool) -> None:
        body, hyperinflated = self.body, "Emphysema" in findings
        self.apex = -0.74 * body.chest_height - 0.07 * hyperinflated
        self.width = body.chest_width * (1.07 if hyperinflated else 1.0)
        self.base = {side: 0.47 * body.chest_height + 0.02 * side + 0.17 * hyperinflated for side in SIDES}
        if "Atelectasis" in findings:  # volume loss: the diaphragm of that side comes up
            self.base[self.side["Atelectasis"]] -= 0.15
        self.dome = 0.02 if hyperinflated else float(self.rng.uniform(0.13, 0.19))
        self.heart_width = body.heart_width * (1.08 if is_ap else 1.0) * (0.8 if hyperinflated else 1.0)
        if "Cardiomegaly" in findings:
            self.heart_width *= float(self.rng.uniform(1.65, 1.95))

    def _outline_lung(self, side: int) -> None:
        lateral, top = self.lateral[side], 0.34 * self.width / 0.72
        depth = np.clip((self.y - self.apex) / (self.base[side] + 0.1 - self.apex), 0, 1)
        self.wall[side] = (
            top + (self.width - top) * np.sqrt(1 - np.square(1 - depth) * np.sqrt(1 - depth)) - lateral
        )
        inner = top - (top - 0.1) * np.sqrt(1 - (1 - np.clip(3 * depth, 0, 1)) ** 2)
        bulge = 1 - np.square((lateral - 0.42) * np.float32(1 / 0.42))
        angle = 0.14 * np.square(np.clip((lateral - 0.5) * 5, 0, 1))
        self.floor[side] = self.base[side] - self.dome * bulge + angle - self.y
        inside = np.minimum(np.minimum(self.wall[side], lateral - inner), self.floor[side])
        inside = np.minimum(inside, (self.y - self.apex) * np.float32(0.7))
        self.lungs[side] = soft_step(inside, 0.018)

    def _fill_lungs(self, air: float) -> None:
        body, x, y = self.body, self.x, self.y
        shoulders = soft_step(y + 0.80 - 0.12 * np.abs(x), 0.22)
        half_width = 0.22 + (self.width + 0.16 + 0.1 * body.fat - 0.22) * shoulders
        torso = soft_step(half_width - np.abs(x), 0.02)
        tissue = 0.50 + 0.06 * y + 0.08 * self.noise(4) + 0.10 * bump(np.abs(x) - self.width - 0.05, 0.12)
        lungs = self.lungs[-1] + self.lungs[1]
        self.image: Field = (0.03 + torso * (tissue - 0.03)).astype(np.float32)
        self.image *= 1 - lungs
        parenchyma = air + 0.06 * body.fat + 0.035 * self.noise(5) + 0.02 * self.noise(40)
        vessels = self.vessels() * (0.11 if air < 0.1 else 0.24)
        self.image += lungs * (parenchyma + vessels)
        if body.is_female:
            for side in SIDES:
                across, down = self.lateral[side] - 0.45, y - 0.28
                breast = soft_step(
                    0.34 - np.hypot(across, np.maximum(down * np.float32(1.25), down * np.float32(-0.8))),
                    0.05,
                )
                self.image += 0.06 * breast * torso

    def noise(self, cells: int) -> Field:
        """A smooth random field of about unit variance with so many cells across the film."""
        grid = self.rng.standard_normal((cells, cells)).astype(np.float32)
        grown = Image.fromarray(grid).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(grown) * np.float32(1.4)

    def strokes(self, lines: Sequence[Stroke], blur: float = 0.003) -> Field:
        """Draw polylines with soft edges; values in 0..1."""
        film = Image.new("L", (self.size, self.size))
        pen = ImageDraw.Draw(film)
        half = self.size / 2
        ((xx, xy), (yx, yy)), (left, top) = (
            (half * self._matrix).tolist(),
            (half * (self._shift + 1)).tolist(),
        )
        for points, thickness in lines:
            spots = [(xx * x + xy * y + left, yx * x + yy * y + top) for x, y in points]
            pen.line(spots, fill=255, width=max(1, round(thickness * half)))
        soft = film.filter(ImageFilter.GaussianBlur(blur * self.size))
        return np.asarray(soft, dtype=np.float32) * np.float32(1 / 255)

    def branches(
        self, origin: tuple[float, float], angles: npt.NDArray[np.float64], length: float, thickness: float
    ) -> list[Stroke]:
        """Grow a tree of three generations from the origin for each angle (radians, 0 to the right)."""
        lines: list[Stroke] = []
        for heading in angles.tolist():
            x, y = origin
            for share, thinning in ((0.45, 1.0), (0.35, 0.7), (0.25, 0.45)):
                reach = length * share * self.rng.uniform(0.8, 1.2)
                twig = heading + self.rng.choice((-1, 1)) * self.rng.uniform(0.4, 0.8)
                heading += self.rng.uniform(-0.15, 0.15)
                next_x, next_y = x + reach * math.cos(heading), y + reach * math.sin(heading)
                twig_end = (x + reach * math.cos(twig), y + reach * math.sin(twig))
                lines.append((((x, y), twig_end), thickness * thinning))
                lines.append((((x, y), (next_x, next_y)), thickness * thinning))
                x, y = next_x, next_y
        return lines

    def vessels(self) -> Field:
        """Draw the pulmonary vessels of both lungs, radiating from the hila."""
        lines: list[Stroke] = []
        for side in SIDES:
            angles = np.linspace(-1.35, 1.35, 9) + self.rng.uniform(-0.12, 0.12, 9)
            outward = angles if side == 1 else math.pi - angles
            lines += self.branches((side * 0.16, -0.06), outward, 0.62, 0.026)
        return self.strokes(lines)

    def spot(self, side: int, across: float, down: float) -> tuple[float, float]:
        """A point of a lung: `across` from mediastinum (0) to wall (1), `down` from apex (0) to base (1)."""
        floor = self.base[side] - self.dome
        depth = down * (floor - self.apex) / (self.base[side] + 0.1 - self.apex)
        top = 0.34 * self.width / 0.72
        wall = top + (self.width - top) * math.sqrt(1 - (1 - depth) ** 2.5)
        inner = 0.14 + (0.5 * self.heart_width if side == 1 and down > 0.5 else 0.0)
        return side * (inner + across * (wall - inner)), self.apex + down * (floor - self.apex)

    def cover(self, mask: Field, brightness: float | Field) -> None:
        """Paint a brightness over the image where the mask (0..1) says."""
        change = brightness - self.image
        change *= mask
        self.image += change

    def add_heart_and_abdomen(self) -> None:
        """Draw what stands before the lungs' inner and lower parts: mediastinum, aorta, heart, diaphragm."""
        x, y, rng = self.x, self.y, self.rng
        middle = 0.115 + 0.05 * soft_step(-y - 0.55, 0.2) + 0.03 * bump(y + 0.02, 0.15)
        self.cover(soft_step(middle - np.abs(x + 0.01), 0.02) * soft_step(y + 0.85, 0.2) * 0.95, 0.66)
        self.cover(0.9 * soft_step(0.085 - np.hypot(x - 0.115, y + 0.27), 0.02), 0.68)
        width, height = self.heart_width, 0.24 + 0.25 * (self.heart_width - 0.27)
        center, middle_y = 0.30 * width + 0.02, self.base[1] - self.dome - 0.42 * height
        across, down = x - center, y - middle_y
        slanted = np.hypot((across - 0.3 * down) / width, (down + 0.12 * across) / height)
        self.heart: Field = soft_step((1 - slanted) * np.float32(min(width, height)), 0.02)
        self.cover(0.95 * self.heart, 0.69)
        abdomen = np.ones_like(x)
        for side in SIDES:
            is_side = soft_step(self.lateral[side], 0.05)
            abdomen *= 1 - is_side * soft_step(self.floor[side], 0.015)
        inside = soft_step(self.width + 0.04 - np.abs(x), 0.04)
        self.cover(abdomen * inside * soft_step(y - 0.05, 0.05), 0.70)
        bubble = np.hypot((x - 0.42) / 1.5, y - self.base[1] - 0.09 - 0.02 * rng.standard_normal())
        self.cover(0.5 * abdomen * soft_step(0.06 - bubble, 0.03), 0.35)

    def add_bones(self) -> None:
        """Draw ribs, spine and clavicles over everything, as X-rays add up."""
        x, y, body = self.x, self.y, self.body
        cage = soft_step(np.minimum(self.width + 0.03 - np.abs(x), y - self.apex - 0.02), 0.03)
        cage *= soft_step(0.62 - y, 0.12)
        share = np.abs(x) * np.float32(1 / self.width)
        for slope, shift, thickness, strength in (
            (body.rib_slope, 0.0, 0.027, 0.085),  # posterior arcs run down and outwards
            (-0.55 - body.rib_slope, 0.4, 0.022, 0.045),  # anterior ends run down and inwards
        ):
            phase = (y - slope * share * share + 0.09 * np.sin(3 * share)) / body.rib_spacing + np.float32(
                shift
            )
            self.image += (
                strength * cage * bump((phase - np.round(phase)) * np.float32(body.rib_spacing), thickness)
            )
        vertebrae = 0.7 + 0.3 * np.cos(y * np.float32(2 * math.pi / 0.13))
        self.image += 0.07 * soft_step(0.065 - np.abs(x), 0.015) * vertebrae
        collar = [((side * 0.06, -0.50), (side * 0.3, -0.56), (side * 0.75, -0.70)) for side in SIDES]
        self.image += 0.15 * self.strokes([(line, 0.055) for line in collar], 0.006)

    def expose(self) -> npt.NDArray[np.uint8]:
        """Develop the film: exposure, contrast, grain, side marker; (size, size) uint8."""
        rng, size = self.rng, self.size
        film = np.clip(self.image, 0, 1) ** np.float32(rng.uniform(0.85, 1.2))
        film = (film - 0.45) * np.float32(rng.uniform(0.92, 1.12)) + np.float32(
            0.45 + rng.uniform(-0.04, 0.05)
        )
        film += np.float32(0.035) * (self.noise(3) + self.noise(5))
        grain = rng.integers(0, 256, size=(size, size), dtype=np.uint8).astype(np.float32)
        film += (grain - np.float32(127.5)) * np.float32(rng.uniform(0.015, 0.04) / 128)
        picture = Image.fromarray((np.clip(film, 0, 1) * 255).astype(np.uint8))
        corner = (size * rng.uniform(0.86, 0.93), size * rng.uniform(0.03, 0.12))
        ImageDraw.Draw(picture).text(corner, "L", fill=235, font_size=max(8, size // 20))
        return np.asarray(picture)
