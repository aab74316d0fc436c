"""Do heat maps point at the finding? Methods compared over models of which the place is known.

    python -m benchmarks.heat_map_methods
    python -m benchmarks.heat_map_methods --families "bright square" --seeds 2 --images 8
    python -m benchmarks.heat_map_methods --families phantoms --classifier demo/phantom/stage2 --images 96

Each family is one task, learned by several models that differ in their seed alone (heat_map_models.py); a
model that did not learn its task is left out and named. "Phantoms" are fresh films for a finished classifier,
one "model" for each finding that it ranks with an AUROC of .7 or more. Needs `medhiera[bench]`. Every
method explains the logit of the images that have the finding:

- hits: the highest point lies on the finding (within 16 pixels, half a mask unit, of a square; in a phantom's
  box with no margin). Mean over models, and the worst model: a map that fails in one seed fails.
- deletion and insertion (Petsiuk et al. 2018): pixels are blurred from the highest on, and brought back into
  the blurred image from the highest on, in eight steps; the mean logit's area, where the whole image is 1 and
  the blurred one 0. Lower deletion is better, higher insertion. A blurred image is an odd one to a model:
  areas outside of 0 … 1 say that a partly blurred one had a logit beyond both ends.
- units, deletion and insertion: the same by leaving mask units out of the encoder, in the order of their mean
  heat; the mean unit alone is 0.
- ms: an image, on one thread, all images in one batch; the machine's other load is in it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from benchmarks.heat_map_candidates import METHODS, Method, Model, blurred, logit_of_units
from benchmarks.heat_map_models import (
    SIGNS,
    Draw,
    Images,
    draw_missing,
    draw_phantoms,
    draw_squares,
    hiera_tiny,
    of_signs,
    tiny_model,
    train,
)

STEPS = 8
CHECKED = 64
"""Images on which a model shows that it has learned its task."""


@dataclass(frozen=True)
class Family:
    """One task and how its models are trained."""

    draw: Draw
    build: Callable[[int], Model] = tiny_model
    steps: int = 150
    rate: float = 5e-3
    batch: int = 16


in_units = partial(draw_squares, is_anywhere=False)
FAMILIES = {
    "bright square": Family(in_units),
    "bright square, partly trained": Family(in_units, steps=50, rate=3e-3),
    "bright square anywhere": Family(draw_squares),
    "dark square anywhere": Family(partial(draw_squares, brightness=-2.0)),
    "two bright squares": Family(partial(draw_squares, squares=2)),
    "a square is missing": Family(draw_missing),
    "bright square anywhere, Hiera-T": Family(draw_squares, hiera_tiny, steps=70, rate=4e-4, batch=8),
}
PHANTOMS = "phantoms"


@dataclass(frozen=True, eq=False)
class Case:
    """A trained model and images with one of its findings.

    Attributes:
        name: of the model in its family.
        model: in evaluation mode.
        finding: index of the output.
        pixels: (images, 3, height, width); all of them have the finding.
        is_target: (images, height, width), True where it is.
        margin: pixels around it that count as hit too.
    """

    name: str
    model: Model
    finding: int
    pixels: Tensor
    is_target: Tensor
    margin: int

    @classmethod
    def of(cls, name: str, model: Model, images: Images, finding: int, margin: int) -> "Case":
        """Those of the images that have the finding."""
        chosen = images.labels[:, finding] > 0
        pixels, is_target = images.pixel_values[chosen], images.is_target[chosen, finding]
        return cls(name, model, finding, pixels, is_target, margin)


@dataclass(frozen=True)
class Score:
    """Of one method on one model: shares, areas and seconds."""

    hits: float
    deletion: float
    insertion: float
    unit_deletion: float
    unit_insertion: float
    milliseconds: float


def load_model(name: str, seed: int, folder: Path) -> Model | None:
    """A model of a family, from the folder if it was trained before; None where it learned nothing."""
    family, file = FAMILIES[name], folder / f"{name}, seed {seed}.pt"
    model = family.build(seed).eval()
    if file.is_file():
        model.load_state_dict(torch.load(file))
    else:
        train(model, family.draw, steps=family.steps, rate=family.rate, seed=seed, batch=family.batch)
        torch.save(model.state_dict(), file)
    images = family.draw(CHECKED, torch.Generator().manual_seed(99))
    with torch.inference_mode():
        right = ((model(images.pixel_values).logits > 0) == (images.labels > 0)).float().mean()
    return model if right > 0.8 else None


def grown(case: Case) -> Tensor:
    """Where a peak counts as a hit, with the margin: (images, height, width)."""
    is_target = case.is_target[:, None].float()
    return functional.max_pool2d(is_target, 2 * case.margin + 1, 1, case.margin)[:, 0]


def score(case: Case, method: Method) -> Score:
    """Explain the images that have the finding."""
    started = time.perf_counter()
    heat = method(case.model, case.pixels, case.finding).detach().float()
    milliseconds = 1000 * (time.perf_counter() - started) / len(case.pixels)
    hits = [
        bool(one.max() > 0 and target.flatten()[one.argmax()])
        for one, target in zip(heat, grown(case), strict=True)
    ]
    return Score(float(np.mean(hits)), *pixel_areas(case, heat), *unit_areas(case, heat), milliseconds)


@torch.inference_mode()
def pixel_areas(case: Case, heat: Tensor) -> tuple[float, float]:
    """Deletion and insertion by blurring pixels."""
    model, finding = case.model, case.finding
    rank = heat.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view_as(heat)
    hidden, shown = blurred(case.pixels), case.pixels
    deletion, insertion = [], []
    for step in range(STEPS + 1):
        is_first = (rank < heat[0].numel() * step / STEPS)[:, None]
        deletion.append(model(torch.where(is_first, hidden, shown)).logits[:, finding].mean())
        insertion.append(model(torch.where(is_first, shown, hidden)).logits[:, finding].mean())
    return area(deletion, deletion[-1], deletion[0]), area(insertion, insertion[0], insertion[-1])


@torch.inference_mode()
def unit_areas(case: Case, heat: Tensor) -> tuple[float, float]:
    """Deletion and insertion by leaving units out."""
    model, finding = case.model, case.finding
    tokens = model.hiera.embeddings(case.pixels, None)
    by_unit = functional.avg_pool2d(heat[:, None], model.config.unit_pixels).flatten(1)
    order = by_unit.argsort(dim=1, descending=True)
    units = order.shape[1]
    empty = logit_of_units(model, tokens, torch.arange(units)[:, None], finding).mean()
    whole = logit_of_units(model, tokens, torch.arange(units)[None], finding).mean()

    def mean_logit(kept: Tensor) -> Tensor:
        found = [
            logit_of_units(model, one[None], units_of_one[None].sort(dim=1).values, finding)
            for one, units_of_one in zip(tokens, kept, strict=True)
        ]
        return torch.stack(found).mean()

    sizes = [round(units * step / STEPS) for step in range(1, STEPS)]
    deletion = [whole, *(mean_logit(order[:, size:]) for size in sizes), empty]
    insertion = [empty, *(mean_logit(order[:, :size]) for size in sizes), whole]
    return area(deletion, empty, whole), area(insertion, empty, whole)


def area(curve: list[Tensor], low: Tensor, high: Tensor) -> float:
    """Under a curve of mean logits: `low` is 0 and `high` is 1."""
    values = (torch.stack(curve) - low) / (high - low)
    return float(((values[1:] + values[:-1]) / 2).mean())


def cases(options: argparse.Namespace) -> dict[str, list[Case]]:
    """Family → its models that learned their task."""
    found: dict[str, list[Case]] = {}
    for name in options.families:
        if name == PHANTOMS:
            model = of_signs(options.classifier)
            images = draw_phantoms(options.images, torch.Generator().manual_seed(98))
            with torch.inference_mode():
                logits = torch.cat([model(part).logits for part in images.pixel_values.split(32)])
            areas = [roc_auc_score(*pair) for pair in zip(images.labels.T, logits.T, strict=True)]
            print(f"{name}: AUROC", dict(zip(SIGNS, np.round(areas, 2).tolist(), strict=True)))
            learned = [finding for finding, auroc in enumerate(areas) if auroc >= 0.7]
            found[name] = [Case.of(SIGNS[finding], model, images, finding, 0) for finding in learned]
            continue
        images = FAMILIES[name].draw(options.images, torch.Generator().manual_seed(97))
        for seed in range(options.seeds):
            model = load_model(name, seed, options.work_dir)
            if model is None:
                print(f"{name}, seed {seed}: not learned, left out")
            else:
                found.setdefault(name, []).append(Case.of(f"seed {seed}", model, images, 0, 16))
    return found


def print_table(name: str, models: Sequence[Case], methods: Sequence[str]) -> None:
    """The methods on the models of one family, as Markdown."""
    chance = np.mean([float(grown(one).mean()) for one in models])
    print(f"\n**{name}**: {', '.join(one.name for one in models)}; a random point hits {chance:.2f}\n")
    print("| method | hits | worst | each | deletion | insertion | units: deletion | insertion | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for label in methods:
        scores = [score(one, METHODS[label]) for one in models]
        means = [
            float(np.mean([vars(one)[key] for one in scores]))
            for key in ("deletion", "insertion", "unit_deletion", "unit_insertion")
        ]
        hits = [one.hits for one in scores]
        cells = [np.mean(hits), min(hits), " ".join(f"{value:.2f}" for value in hits), *means]
        cost = np.mean([one.milliseconds for one in scores])
        shown = " | ".join(cell if isinstance(cell, str) else f"{cell:.2f}" for cell in cells)
        print(f"| {label} | {shown} | {cost:.0f} |", flush=True)


def main() -> None:
    """Print one table a family."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=[*FAMILIES], choices=[*FAMILIES, PHANTOMS])
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS], metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=3, help="models a family")
    parser.add_argument("--images", type=int, default=16, help="a model; every second square image has one")
    parser.add_argument("--classifier", type=Path, default=Path("demo/phantom/stage2"), help="for phantoms")
    parser.add_argument("--work_dir", type=Path, default=Path("build/heat_maps"), help="keeps trained models")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, models in cases(options).items():
        print_table(name, models, options.methods)


if __name__ == "__main__":
    main()
