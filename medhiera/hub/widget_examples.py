"""Example images for the Hub's widget and the app: phantoms, which are ours to publish.

Stands beside model_card.py; dataset_scripts draws them, the same pixels every time.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.findings import draw_radiograph
from medhiera.inference.classifier import Classifier

SIDE = 320

EXAMPLES: dict[str, tuple[str, ...]] = {
    "Phantom_without_finding": (),
    "Phantom_with_cardiomegaly": ("Cardiomegaly",),
    "Phantom_with_effusion_and_mass": ("Effusion", "Mass"),
}


def draw_example(findings: Sequence[str], seed: int, side: int = SIDE) -> Image.Image:
    """A synthetic chest radiograph, (side, side), 8-bit gray.

    Args:
        findings: names among the phantom's signs.
        seed: everything random follows from it.
        side: in pixels.
    """
    generator = np.random.default_rng([20, seed])
    body = draw_body(generator, is_female=bool(seed % 2))
    return Image.fromarray(draw_radiograph(body, findings, side, generator).pixels)


def write_examples(folder: Path) -> None:
    """Write every example as a PNG named by what it shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, findings) in enumerate(EXAMPLES.items()):
        draw_example(findings, seed).save(folder / f"{name}.png", optimize=True)


def score_examples(folder: Path, classifier: Classifier) -> dict[str, dict[str, float]]:
    """What a classifier says of the pictures that write_examples wrote.

    Returns:
        By file name without suffix: label → the model's own probability.

    Raises:
        UserError: a probability is NaN or infinite.
    """
    files = sorted(folder.glob("*.png"))
    scores = classifier.predict(files) if files else []
    return dict(zip((file.stem for file in files), scores, strict=True))
