"""What happens to a picture before another dataset publishes it again: each change by itself, and several.

leakage_table.py and leakage_scale.py make copies with these. A change takes an 8-bit gray picture and a
random generator; what is not named (where a crop lies, how gray a border is) is drawn.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Change = Callable[[Image.Image, np.random.Generator], Image.Image]

_TILES = 8  # a side, as in OpenCV's CLAHE

_MARKERS = ("R", "L", "PORTABLE", "AP ERECT", "SUPINE 10:42", "ANON 004731", "2019-03-14")


def resize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Resize each side on its own."""
    width, height = (int(side) for side in rng.integers(150, 400, 2))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compress and decompress."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def gamma(image: Image.Image, power: float) -> Image.Image:
    """Apply a gray-level curve."""
    return image.point([round(255 * (level / 255) ** power) for level in range(256)])


def invert(image: Image.Image) -> Image.Image:
    """Swap black and white."""
    return image.point([255 - level for level in range(256)])


def crop(image: Image.Image, rng: np.random.Generator, cut: float) -> Image.Image:
    """Cut a share of each side away, anywhere."""
    left, top = rng.random() * cut * image.width, rng.random() * cut * image.height
    box = (left, top, left + (1 - cut) * image.width, top + (1 - cut) * image.height)
    return image.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))


def turn(image: Image.Image, rng: np.random.Generator, most: float, least: float = 0) -> Image.Image:
    """Turn either way by `least` to `most` degrees; corners become black."""
    degrees = rng.uniform(least, most) * rng.choice([-1, 1])
    return image.rotate(degrees, Image.Resampling.BICUBIC)


def border(image: Image.Image, level: int, share: float) -> Image.Image:
    """Put a flat border around a picture, a share of the result's sides wide."""
    x, y = (round(side * share / (1 - 2 * share)) for side in image.size)
    framed = Image.new("L", (image.width + 2 * x, image.height + 2 * y), level)
    framed.paste(image, (x, y))
    return framed


def gray_border(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    """A border that is black, white, or any gray."""
    return border(image, int(rng.choice([0, 255, rng.integers(256)])), share)


def letterbox(image: Image.Image, rng: np.random.Generator, ratio: float) -> Image.Image:
    """Add flat bars on two sides until one side is `ratio` of what it was to the other."""
    stretch = (ratio, 1.0) if rng.integers(2) else (1.0, ratio)
    size = (round(image.width * stretch[0]), round(image.height * stretch[1]))
    framed = Image.new("L", size, int(rng.choice([0, 255])))
    framed.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return framed


def squeeze(image: Image.Image, rng: np.random.Generator, cut: float = 0.2) -> Image.Image:
    """Cut a share of one axis away, then make the rest square."""
    keep, start = [1.0, 1.0], [0.0, 0.0]
    axis = int(rng.integers(2))
    keep[axis], start[axis] = 1 - cut, rng.random() * cut
    width, height = image.size
    box = (start[0] * width, start[1] * height, (start[0] + keep[0]) * width, (start[1] + keep[1]) * height)
    side = min(image.size)
    return image.resize((side, side), Image.Resampling.BICUBIC, box)


def equalise(image: Image.Image) -> Image.Image:
    """Histogram equalisation."""
    counts = np.asarray(image.convert("L").histogram(), float)
    levels = np.cumsum(counts) - counts[np.flatnonzero(counts)[0]]
    return image.point(np.rint(255 * levels.clip(0) / levels[-1]).astype(int).tolist())


def hard_window(image: Image.Image) -> Image.Image:
    """Stretch the levels between the 15th and the 85th percentile; all beyond becomes black or white."""
    low, high = np.percentile(np.asarray(image), [15, 85])
    levels = np.clip((np.arange(256) - low) / max(high - low, 1), 0, 1)
    return image.point(np.rint(255 * levels).astype(int).tolist())


def noise(image: Image.Image, rng: np.random.Generator, width: float = 15) -> Image.Image:
    """Add Gaussian noise of `width` gray levels."""
    noisy = np.asarray(image, float) + rng.normal(0, width, (image.height, image.width))
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def text(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write three markers, some in a box, as a scanner or an annotator does."""
    written = image.convert("L").copy()
    draw = ImageDraw.Draw(written)
    for word in rng.choice(_MARKERS, 3, replace=False):
        size = int(rng.uniform(0.06, 0.11) * image.height)
        x, y = rng.random() * 0.75 * image.width, float(rng.choice([0.02, 0.06, 0.84, 0.88])) * image.height
        ink, paper = (255, 0) if rng.random() < 0.7 else (0, 255)
        if rng.random() < 0.4:
            draw.rectangle(draw.textbbox((x, y), str(word), font_size=size), fill=paper)
        draw.text((x, y), str(word), fill=ink, font_size=size)
    return written


def clahe(image: Image.Image, limit: float) -> Image.Image:
    """Contrast-limited adaptive histogram equalisation of 8 x 8 tiles.

    Source: Zuiderveld 1994, Graphics Gems IV; `limit` is in multiples of a flat histogram, as in OpenCV.
    """
    pixels = np.asarray(image.convert("L"))
    height, width = (-(-side // _TILES) * _TILES for side in pixels.shape)
    padded = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1])), "reflect")
    tile = (height // _TILES, width // _TILES)
    tiles = padded.reshape(_TILES, tile[0], _TILES, tile[1]).swapaxes(1, 2).reshape(_TILES**2, -1)
    counts = np.stack([np.bincount(levels, minlength=256) for levels in tiles]).astype(float)
    cap = max(limit * tiles.shape[1] / 256, 1)
    excess = (counts - cap).clip(0).sum(axis=1, keepdims=True)
    curves = np.cumsum(np.minimum(counts, cap) + excess / 256, axis=1) * (255 / tiles.shape[1])
    curves = curves.reshape(_TILES, _TILES, 256)
    near: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for side, step in zip(pixels.shape, tile, strict=True):
        place = np.clip((np.arange(side) + 0.5) / step - 0.5, 0, _TILES - 1)
        first = np.minimum(place.astype(int), _TILES - 2)
        near.append((first, first + 1, place - first))
    (top, bottom, down), (left, right, across) = near
    across, down = across[None], down[:, None]
    upper, lower = (
        curves[row[:, None], left, pixels] * (1 - across) + curves[row[:, None], right, pixels] * across
        for row in (top, bottom)
    )
    return Image.fromarray(np.clip(np.rint(upper * (1 - down) + lower * down), 0, 255).astype(np.uint8))


BUILT_FOR: dict[str, Change] = {
    "resize": resize,
    "JPEG quality 50": lambda image, rng: jpeg(image, 50),
    "gamma 0.7": lambda image, rng: gamma(image, 0.7),
    "gamma 1.4": lambda image, rng: gamma(image, 1.4),
    "crop of a tenth": lambda image, rng: crop(image, rng, 0.1),
    "turn within ±3°": lambda image, rng: turn(image, rng, 3),
    "crop and turn": lambda image, rng: crop(turn(image, rng, 3), rng, 0.1),
    "all of these": lambda image, rng: jpeg(gamma(resize(crop(turn(image, rng, 3), rng, 0.1), rng), 1.4), 50),
}

SIMPLE: dict[str, Change] = {
    "mirrored": lambda image, rng: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "inverted": lambda image, rng: invert(image),
    "turned 90°": lambda image, rng: image.transpose(Image.Transpose.ROTATE_90),
    "turned 180°": lambda image, rng: image.transpose(Image.Transpose.ROTATE_180),
    "turned 270°": lambda image, rng: image.transpose(Image.Transpose.ROTATE_270),
    "border 5 %": lambda image, rng: gray_border(image, rng, 0.05),
    "border 10 %": lambda image, rng: gray_border(image, rng, 0.1),
    "border 15 %": lambda image, rng: gray_border(image, rng, 0.15),
    "letterbox 1.2:1": lambda image, rng: letterbox(image, rng, 1.2),
    "letterbox 4:3": lambda image, rng: letterbox(image, rng, 4 / 3),
    "one axis cut 20 %, squeezed": squeeze,
    "histogram equalised": lambda image, rng: equalise(image),
    "hard window": lambda image, rng: hard_window(image),
    "JPEG quality 20": lambda image, rng: jpeg(image, 20),
    "noise": noise,
    "text markers": text,
}

HARD: dict[str, Change] = {
    "CLAHE 2": lambda image, rng: clahe(image, 2),
    "CLAHE 4": lambda image, rng: clahe(image, 4),
    "crop of 15 %": lambda image, rng: crop(image, rng, 0.15),
    "crop of 20 %": lambda image, rng: crop(image, rng, 0.2),
}

HARDEST: dict[str, Change] = {
    "crop of 25 %": lambda image, rng: crop(image, rng, 0.25),
    "crop of 30 %": lambda image, rng: crop(image, rng, 0.3),
    "turn of 5 to 10°": lambda image, rng: turn(image, rng, 10, 5),
    "turn of 10 to 15°": lambda image, rng: turn(image, rng, 15, 10),
    "text, CLAHE 2, JPEG 50": lambda image, rng: jpeg(clahe(text(image, rng), 2), 50),
    "crop of 20 %, CLAHE 2, text": lambda image, rng: text(clahe(crop(image, rng, 0.2), 2), rng),
    "letterbox 4:3, inverted, text": lambda image, rng: text(invert(letterbox(image, rng, 4 / 3)), rng),
}

_KINDS: tuple[tuple[str, ...], ...] = (  # several changes are of different kinds, in this order
    ("mirrored", "turned 90°", "turned 180°", "turned 270°"),
    ("one axis cut 20 %, squeezed",),
    ("border 5 %", "border 10 %", "border 15 %", "letterbox 1.2:1", "letterbox 4:3"),
    ("histogram equalised", "hard window"),
    ("inverted",),
    ("text markers",),
    ("noise",),
    ("JPEG quality 20",),
)

_HARD_KINDS = (("crop of 20 %", "turn of 5 to 10°"), ("CLAHE 2", "CLAHE 4"))


def several(
    image: Image.Image, rng: np.random.Generator, count: int, kinds: Sequence[Sequence[str]] = _KINDS
) -> Image.Image:
    """Apply `count` changes of different kinds, drawn anew for each picture."""
    for number in sorted(rng.choice(len(kinds), count, replace=False)):
        image = ALONE[str(rng.choice(list(kinds[number])))](image, rng)
    return image


ALONE = SIMPLE | HARD | HARDEST

CHANGES: dict[str, Change] = (
    BUILT_FOR
    | SIMPLE
    | {"two of these": lambda image, rng: several(image, rng, 2)}
    | HARD
    | HARDEST
    | {
        "three of the simple": lambda image, rng: several(image, rng, 3),
        "three of all": lambda image, rng: several(image, rng, 3, _HARD_KINDS + _KINDS),
    }
)

WANTED = (  # share found that issue 17 wants
    dict.fromkeys((*BUILT_FOR, *SIMPLE, "two of these"), 0.995)
    | dict.fromkeys(HARD, 0.98)
    | dict.fromkeys((*HARDEST, "three of the simple", "three of all"), 0.9)
)
