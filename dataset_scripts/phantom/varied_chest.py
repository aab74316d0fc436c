"""Draw chests as varied as radiographs come, each with its lungs: what the chest contour is trained on.

`anatomy` draws patients whose films a classifier can learn from; here only the outline of the lungs counts,
so everything else is drawn at random and wider than life (domain randomization as in SynthSeg, Billot et al.
2023, arXiv:2107.09559): shape, position, brightness of each tissue, opacities up to a white lung, processing,
borders, letters, lines. The cohort and its recorded numbers do not depend on this file.
Nothing here was taken from a patient.

Coordinates and brightness as in `anatomy`: x and y from -1 to 1, side -1 is the left of the image.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from dataset_scripts.phantom.anatomy import SIDES, Field, bump, soft_step

SIZE = 128
"""Height and width of a drawing, in pixels."""

_WORDS = ("L", "R", "PORTABLE", "AP ERECT", "MOBILE", "2020/01/29")


def draw_varied_chest(
    rng: np.random.Generator, size: int = SIZE
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw one chest.

    Args:
        rng: decides everything.
        size: height and width.

    Returns:
        The picture, (size, size) uint8; where its lungs are, (size, size): all of both as anatomy has them,
        behind heart and opacities too, but not behind the picture's own borders.
    """
    chest = _VariedChest(rng, size)
    chest.draw_tissue()
    chest.draw_lungs_and_heart()
    chest.draw_abdomen()
    chest.draw_bones()
    chest.draw_opacities()
    picture = _process(chest)
    covered = _cover(picture, chest)
    return np.asarray(picture), chest.is_lung & ~covered


class _VariedChest:
    """A chest that is being drawn: its geometry, and the image so far."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        self._place()
        self.lateral = {side: side * self.x for side in SIDES}
        self.width = self.uniform(0.68, 0.88)
        self._outline_lungs()
        self.image: Field = np.zeros((size, size), dtype=np.float32)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def noise(self, cells: int) -> Field:
        """A smooth random field of about unit variance with so many cells across the picture."""
        grid = self.rng.standard_normal((cells, cells)).astype(np.float32)
        return np.asarray(Image.fromarray(grid).resize((self.size, self.size), Image.Resampling.BICUBIC))

    def cover(self, mask: Field, brightness: float | Field) -> None:
        """Paint a brightness over the image where the mask (0..1) says."""
        self.image = self.image + mask * (brightness - self.image)

    def _place(self) -> None:
        """Turn, zoom, squeeze, shift and bend the chest."""
        rng, uniform = self.rng, self.uniform
        turn, aspect = math.radians(rng.normal(0, 5)), math.exp(rng.normal(0, 0.10))
        zoom = math.exp(rng.normal(0, 0.13)) * (uniform(0.55, 0.8) if self.chance(0.1) else 1)
        matrix = zoom * np.array(
            [[math.cos(turn) * aspect, -math.sin(turn)], [math.sin(turn), math.cos(turn) / aspect]]
        )
        inverse = np.linalg.inv(matrix)
        steps = (np.arange(self.size) + 0.5) / self.size * 2 - 1
        across, down = steps[None, :] - rng.normal(0, 0.07), steps[:, None] - rng.normal(0.06, 0.11)
        bend = uniform(0, 0.05)
        self.x: Field = (inverse[0, 0] * across + inverse[0, 1] * down).astype(np.float32)
        self.y: Field = (inverse[1, 0] * across + inverse[1, 1] * down).astype(np.float32)
        self.x, self.y = self.x + bend * self.noise(4), self.y + bend * self.noise(4)

    def _outline_lungs(self) -> None:
        uniform = self.uniform
        height = uniform(0.84, 1.14)
        if self.chance(0.3):  # children, and who could not breathe in
            height *= uniform(0.68, 0.95)
        self.apex = -0.8 * height + uniform(-0.04, 0.04)
        lowest = 0.62 * height
        self.base: dict[int, float] = {}
        self.wall: dict[int, Field] = {}
        self.floor: dict[int, Field] = {}
        self.inside: dict[int, Field] = {}
        for side in SIDES:
            self.base[side] = lowest + uniform(-0.06, 0.06) + (side == 1) * uniform(0, 0.08)
            if self.chance(0.12):  # a raised diaphragm
                self.base[side] -= uniform(0.1, 0.4)
            self._outline_lung(side)
        self.beyond_wall = np.where(self.x < 0, self.wall[-1], self.wall[1])
        self.is_lung = np.maximum(self.inside[-1], self.inside[1]) > 0

    def _outline_lung(self, side: int) -> None:
        uniform, lateral, base = self.uniform, self.lateral[side], self.base[side]
        width, apex = self.width * uniform(0.93, 1.07), self.apex + uniform(-0.04, 0.04)
        depth = np.clip((self.y - apex) / (base + 0.1 - apex), 0, 1)
        top, roundness, hilum = width * uniform(0.36, 0.52), uniform(1.7, 2.9), uniform(0.05, 0.17)
        flare = uniform(-0.06, 0.07) * np.clip(depth * 2 - 1, 0, 1)
        self.wall[side] = (
            top + (width - top) * np.sqrt(1 - (1 - depth) ** np.float32(roundness)) + flare - lateral
        )
        inner = top - (top - hilum) * np.sqrt(1 - (1 - np.clip(depth * uniform(2.2, 4), 0, 1)) ** 2)
        bulge = 1 - ((lateral - width * uniform(0.4, 0.6)) / np.float32(0.55 * width)) ** 2
        angle = uniform(0, 0.12) * np.clip((lateral / np.float32(width) - 0.7) * 3.3, 0, 1) ** 2
        self.floor[side] = base - uniform(0.08, 0.28) * bulge + angle - self.y
        inside = np.minimum(np.minimum(self.wall[side], lateral - inner), self.floor[side])
        self.inside[side] = np.minimum(inside, self.y - apex)

    def draw_tissue(self) -> None:
        """Draw neck, shoulders, trunk and arms before the air around them."""
        uniform, x, y, width, apex = self.uniform, self.x, self.y, self.width, self.apex
        fat, neck, shoulders = uniform(0.06, 0.38), uniform(0.2, 0.42), apex - uniform(0, 0.25)
        heights = [shoulders - 0.5, shoulders - 0.12, shoulders + uniform(0.02, 0.12),
                   shoulders + uniform(0.3, 0.5), apex + 0.75, 1.2]  # fmt: skip
        half_widths = [neck, neck + uniform(0, 0.08), max(width * uniform(1.15, 1.9), width + 0.1),
                       max(width, width + fat + uniform(-0.15, 0.25)), width + fat,
                       width + fat + uniform(-0.15, 0.15)]  # fmt: skip
        depth = np.interp(y, heights, half_widths).astype(np.float32) - np.abs(x)
        self.trunk = soft_step(depth, 0.02)
        self.tissue = uniform(0.42, 0.72)
        thin = uniform(0.1, 0.6) * np.exp(-np.clip(depth, 0, None) / np.float32(uniform(0.05, 0.25)))
        tissue = self.tissue * (1 - thin) + uniform(-0.05, 0.22) * y + uniform(0.02, 0.09) * self.noise(4)
        tissue += uniform(-0.03, 0.16) * bump(self.beyond_wall + 0.05, uniform(0.05, 0.15))
        trunk = self.trunk
        if self.chance(0.5):
            for side in SIDES:
                axis = width + fat + uniform(0.08, 0.35) + uniform(-0.15, 0.25) * (y - 0.3)
                arm = soft_step(uniform(0.1, 0.16) - np.abs(self.lateral[side] - axis), 0.03)
                arm *= soft_step(y - shoulders - 0.1, 0.1)
                brightness = self.tissue * uniform(0.6, 1) + 0.03 * self.noise(4)
                tissue, trunk = np.where(arm > trunk, brightness, tissue), np.maximum(trunk, arm)
        for side in SIDES:  # the shoulder joint
            away = np.hypot(self.lateral[side] - width * uniform(0.9, 1.25), y - apex - uniform(0, 0.3))
            tissue += uniform(-0.02, 0.2) * bump(away, uniform(0.15, 0.35))
        air = uniform(0, 0.16)
        self.image = air + 0.01 * self.noise(3) + trunk * (tissue - air)

    def draw_lungs_and_heart(self) -> None:
        """Draw the lungs, and between them mediastinum, aorta and heart."""
        uniform, x, y, apex = self.uniform, self.x, self.y, self.apex
        self.lungs = soft_step(np.maximum(self.inside[-1], self.inside[1]), uniform(0.01, 0.035))
        self.dense = uniform(0.6, 0.98)
        self.air = min(uniform(0.08, 0.5), self.tissue - uniform(0.06, 0.25), self.dense - 0.15)
        lungs = self.air + uniform(-0.1, 0.16) * y
        for cells, most in ((5, 0.05), (28, 0.05), (60, 0.05)):
            lungs += uniform(0.005, most) * self.noise(cells)
        vessels = uniform(0, 0.22)
        for side in SIDES:
            away = np.hypot((self.lateral[side] - uniform(0.18, 0.28)) / 0.8, y + uniform(-0.05, 0.12))
            lungs += vessels * bump(away, uniform(0.12, 0.25))
        depth = np.clip(self.beyond_wall, 0, None)
        lungs += uniform(-0.03, 0.12) * np.exp(-depth / np.float32(uniform(0.05, 0.2)))
        if self.chance(0.3):  # shoulders over the apices
            lungs += uniform(0, 0.15) * soft_step(apex + uniform(0.2, 0.5) - y, 0.2)
        self.cover(self.lungs, lungs)
        self.midline = uniform(-0.05, 0.05)
        half = (
            uniform(0.1, 0.2) + uniform(0, 0.12) * soft_step(-y - 0.5, 0.2) + uniform(0, 0.06) * bump(y, 0.2)
        )
        middle = soft_step(half - np.abs(x - self.midline), uniform(0.015, 0.05))
        middle *= soft_step(y - apex + uniform(-0.1, 0.25), 0.2)
        self.cover(uniform(0.7, 1) * middle, self.dense + 0.04 * self.noise(5))
        aorta = soft_step(
            uniform(0.06, 0.12) - np.hypot(x - uniform(0.08, 0.16), y - apex - uniform(0.4, 0.55)), 0.02
        )
        self.cover(uniform(0.6, 1) * aorta, self.dense)
        wide = uniform(0.22, 0.34) * (uniform(1.2, 1.9) if self.chance(0.25) else 1)
        high = uniform(0.22, 0.34) * wide / 0.28 if self.chance(0.5) else uniform(0.24, 0.36)
        across = x - uniform(0, 0.16) - 0.2 * wide
        down = y - self.base[1] + uniform(0.12, 0.25) + 0.35 * high
        slanted = np.hypot((across - 0.3 * down) / wide, (down + 0.12 * across) / high)
        heart = soft_step((1 - slanted) * np.float32(min(wide, high)), uniform(0.012, 0.035))
        self.cover(uniform(0.8, 1) * heart, self.dense + uniform(-0.12, 0.06))

    def draw_abdomen(self) -> None:
        """Draw what lies below the diaphragm: dense, or fading to the brightness of a lung; and its gas."""
        uniform, x, y = self.uniform, self.x, self.y
        below = np.ones_like(x)
        for side in SIDES:
            is_side = soft_step(self.lateral[side], 0.05)
            below *= 1 - is_side * soft_step(self.floor[side], uniform(0.01, 0.03))
        below *= self.trunk * soft_step(y + 0.1, 0.1)
        below *= soft_step(self.beyond_wall + uniform(0.02, 0.3), uniform(0.03, 0.1))
        brightness = min(self.dense + uniform(-0.18, 0.1), 1) + 0.03 * self.noise(4)
        lowest = max(self.base.values())
        if self.chance(0.4):
            fade = uniform(0.2, 1) * soft_step(y - lowest + uniform(-0.2, 0.25), uniform(0.1, 0.4))
            brightness += fade * (max(self.air + uniform(0, 0.2), 0.2) - brightness)
        else:
            brightness += uniform(0, 0.12) * (y - 0.6)
        self.cover(uniform(0.6, 1) * below, brightness)
        if self.chance(0.65):
            for _ in range(self.rng.integers(1, 6)):
                across = x - (uniform(0.1, 0.75) if self.chance(0.8) else uniform(-0.8, 0.1))
                away = np.hypot(across / uniform(0.7, 2), y - self.base[1] - uniform(-0.12, 0.35))
                gas = below * soft_step(uniform(0.03, 0.14) - away, 0.03)
                self.cover(uniform(0.1, 0.9) * gas, min(self.air + uniform(-0.1, 0.2), self.tissue))

    def draw_bones(self) -> None:
        """Draw ribs, spine, clavicles and scapulae over everything, the windpipe, and breasts."""
        uniform, x, y, width, apex = self.uniform, self.x, self.y, self.width, self.apex
        cage = soft_step(np.minimum(self.beyond_wall + 0.05, y - apex), 0.04)
        cage *= soft_step(uniform(0.5, 0.9) - y, 0.15)
        share = np.abs(x) / np.float32(width)
        spacing, slope, strength, thickness = (
            uniform(0.12, 0.19), uniform(0.05, 0.4), uniform(0, 0.11), uniform(0.018, 0.03),
        )  # fmt: skip
        for tilt, shift, part in ((slope, 0.0, 1.0), (-0.5 - slope, 0.4, uniform(0.2, 0.7))):
            phase = (y - tilt * share * share + 0.09 * np.sin(3 * share)) / spacing + shift
            self.image += strength * part * cage * bump((phase - np.round(phase)) * spacing, thickness)
        off = np.abs(x - self.midline)
        vertebrae = 0.7 + 0.3 * np.cos(y * np.float32(2 * math.pi / uniform(0.11, 0.16)))
        self.image += uniform(0, 0.12) * soft_step(uniform(0.05, 0.09) - off, 0.02) * vertebrae
        windpipe = soft_step(uniform(0.03, 0.06) - off, 0.02) * soft_step(apex + uniform(0.3, 0.6) - y, 0.08)
        self.image -= uniform(0, 0.14) * windpipe * soft_step(y - apex + 0.6, 0.2)
        clavicle, rise, breast = uniform(0.02, 0.17), uniform(-0.1, 0.3), uniform(0.02, 0.13)
        is_female = self.chance(0.3)
        for side in SIDES:
            lateral = self.lateral[side]
            height = apex + uniform(0.08, 0.3) - rise * (lateral - 0.1) * (1 + uniform(-0.3, 0.3))
            bone = bump(y - height - uniform(-0.04, 0.04) * np.sin(4 * lateral), uniform(0.025, 0.045))
            bone *= soft_step(lateral - 0.06, 0.03) * soft_step(width * uniform(1, 1.2) - lateral, 0.1)
            self.image += clavicle * bone
            if self.chance(0.5):
                depth = np.clip((y - apex - 0.1) / 0.6, 0, 1)
                border = width * uniform(0.85, 1.1) - uniform(-0.1, 0.3) * depth
                scapula = soft_step(lateral - border, 0.02) * soft_step(y - apex - 0.1, 0.1)
                scapula *= soft_step(apex + uniform(0.5, 0.9) - y, 0.1) * self.trunk
                self.image += uniform(0, 0.1) * scapula
            if is_female:
                across, down = lateral - uniform(0.4, 0.5), y - uniform(0.2, 0.4)
                away = np.hypot(across, np.maximum(down * 1.25, down * -0.8))
                self.image += breast * soft_step(uniform(0.3, 0.4) - away, 0.04) * self.trunk

    def draw_opacities(self) -> None:
        """Draw consolidations, effusions and whole white lungs."""
        uniform, y, dense = self.uniform, self.y, self.dense
        if self.chance(0.55):
            patches = self.noise(int(self.rng.integers(3, 9))) - uniform(-0.6, 1.6)
            opacity = uniform(0.2, 0.95) * soft_step(patches, uniform(0.3, 1.2))
            if self.chance(0.4):
                opacity *= soft_step(y - uniform(-0.4, 0.2), 0.4)
            if self.chance(0.3):
                opacity *= soft_step(self.lateral[int(self.rng.choice(SIDES))] + uniform(-0.1, 0.1), 0.1)
            self.cover(opacity * self.lungs, dense * uniform(0.7, 1))
        for side in SIDES:
            half = self.lungs * soft_step(self.lateral[side], 0.03)
            if self.chance(0.13):
                share = self.lateral[side] / np.float32(self.width)
                level = self.base[side] - uniform(0.05, 0.5) - uniform(0, 0.4) * share**2
                fluid = half * soft_step(y - level, uniform(0.03, 0.15))
                self.cover(uniform(0.6, 1) * fluid, dense * uniform(0.85, 1))
            if self.chance(0.03):
                self.cover(uniform(0.6, 1) * half, dense * uniform(0.8, 1) + 0.03 * self.noise(5))


def _stretch(image: Field) -> Field:
    low, high = float(image.min()), float(image.max())
    return (image - low) / max(high - low, 1e-3)


def _process(chest: _VariedChest) -> Image.Image:
    """Exposure, local contrast, windows, grain, blur, polarity: a picture of bytes."""
    rng, uniform, size = chest.rng, chest.uniform, chest.size
    image = _stretch(chest.image + uniform(0, 0.06) * chest.noise(2) + uniform(0, 0.05) * chest.noise(3))
    image = image ** np.float32(math.exp(rng.normal(0, 0.3)))
    if chest.chance(0.45):  # as processing that evens a film out
        blurred = Image.fromarray((image * 255).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(uniform(0.03, 0.125) * size)
        )
        image = _stretch(image - uniform(0.2, 0.8) / 255 * np.asarray(blurred, dtype=np.float32))
    if chest.chance(0.25):
        low, high = uniform(0, 0.25), uniform(0.7, 1)
        image = (image - low) / (high - low)
    image = image + uniform(0, 0.04) * rng.standard_normal((size, size)) + uniform(0, 0.03) * chest.noise(64)
    low, high = (uniform(0, 0.2), uniform(0.75, 1)) if chest.chance(0.8) else (uniform(0.3, 0.8), 1.0)
    image = low + (high - low) * np.clip(image, 0, 1)
    if chest.chance(0.05):
        image = 1 - image
    picture = Image.fromarray((image * 255).astype(np.uint8))
    if chest.chance(0.35):
        picture = picture.filter(ImageFilter.GaussianBlur(uniform(0.002, 0.0125) * size))
    return picture


def _cover(picture: Image.Image, chest: _VariedChest) -> npt.NDArray[np.bool_]:
    """Draw what lies over a chest: lines, electrodes, borders, bars, letters.

    Returns:
        (size, size): what a border hides.
    """
    rng, uniform, chance, size = chest.rng, chest.uniform, chest.chance, chest.size
    pen = ImageDraw.Draw(picture)
    hidden = np.zeros((size, size), dtype=np.bool_)
    if chance(0.3):
        _draw_lines(pen, chest)
    if chance(0.3):
        shade = 0 if chance(0.75) else 255
        for edge in range(4):
            if chance(0.5):
                thickness = round(size * (uniform(0, 0.12) if chance(0.85) else uniform(0.1, 0.25)))
                border = np.zeros((size, size), dtype=np.bool_)
                np.rot90(border, edge)[:thickness] = True  # a view
                hidden |= border
        picture.paste(shade, mask=Image.fromarray((hidden * 255).astype(np.uint8)))
    if chance(0.3):  # bars where a name was
        for _ in range(rng.integers(1, 4)):
            width, height = size * uniform(0.05, 0.2), size * uniform(0.02, 0.09)
            left, top = uniform(0, size - width), 0.0 if chance(0.8) else size - height
            pen.rectangle((left, top, left + width, top + height), fill=0 if chance(0.8) else 255)
    if chance(0.35):  # the letter of a journal's panel
        side = size * uniform(0.05, 0.13)
        left = float(rng.choice([0, size - side])) if chance(0.7) else uniform(0, size - side)
        top, shade = float(rng.choice([0, size - side])), int(rng.choice([0, 60, 255]))
        if chance(0.6):
            pen.rectangle((left, top, left + side, top + side), fill=shade)
        ink = 255 if shade < 128 else 0
        pen.text((left + side / 4, top + side / 10), str(rng.choice(list("ABCDLRab12"))), ink, font_size=side)
    if chance(0.3):
        top = uniform(0, 0.12) if chance(0.8) else uniform(0.85, 0.95)
        place, height = (uniform(0, size * 0.8), top * size), size * uniform(0.05, 0.09)
        pen.text(place, str(rng.choice(_WORDS)), int(uniform(180, 255)), font_size=height)
    return hidden


def _draw_lines(pen: ImageDraw.ImageDraw, chest: _VariedChest) -> None:
    """Draw wires as Bezier curves, some with an electrode."""
    uniform, size = chest.uniform, chest.size
    steps = np.linspace(0, 1, 12)[:, None]
    weights = [(1 - steps) ** 3, 3 * steps * (1 - steps) ** 2, 3 * steps**2 * (1 - steps), steps**3]
    for _ in range(chest.rng.integers(1, 5)):
        corners = chest.rng.uniform(-0.08 * size, 1.08 * size, (4, 2))
        curve = sum(weight * corner for weight, corner in zip(weights, corners, strict=True))
        pen.line([tuple(point) for point in curve], fill=int(chest.rng.choice([40, 200, 230, 255])))
        if chest.chance(0.5):
            left, top, side = (
                uniform(0.15, 0.85) * size,
                uniform(0.15, 0.85) * size,
                uniform(0.03, 0.06) * size,
            )
            pen.ellipse((left, top, left + side, top + side), fill=int(uniform(180, 255)))
