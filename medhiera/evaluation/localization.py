"""Does the classifier look where the finding is? The pointing game on the boxes that a dataset has.

Stands on the inference room. A heat map scores a hit when its highest point lies in a box of the finding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from medhiera.data.preprocessing import CenterCrop
from medhiera.evaluation.bootstrap import count_patients, group_patients, interval, patient_weights
from medhiera.inference.classifier import Classifier
from medhiera.inference.grad_cam import heat_maps

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the model's input."""


@dataclass(frozen=True)
class Shown:
    """One image, one of its findings, and where the model looked.

    Attributes:
        image_id: of the dataset.
        patient_id: of the dataset.
        finding: its name.
        probability: what the model says of it.
        pixels: (height, width), gray in [0, 1].
        heat: (height, width) in [0, 1].
        boxes: of this finding.
        is_hit: the highest point lies in one of them.
    """

    image_id: str
    patient_id: str
    finding: str
    probability: float
    pixels: NDArray[np.float32]
    heat: NDArray[np.float32]
    boxes: list[Box]
    is_hit: bool


def play(
    classifier: Classifier, rows: Dataset, batch_size: int = 32, bootstrap_resamples: int = 0, seed: int = 0
) -> tuple[dict[str, Any], list[Shown]]:
    """Point at every finding that has a box.

    No margin is granted around a box (Zhang et al. 2018 grant 15 pixels), and a finding is asked for whatever
    its probability.

    Args:
        classifier: its findings are matched with the boxes' by name.
        rows: of the cocktail, with the column `boxes`.
        batch_size: images at a time.
        bootstrap_resamples: of patients, behind the interval; 0 for none.
        seed: of the resampling.

    Returns:
        The record: `hit_rate` and its `interval`, `chance` (a random point: the mean share of the image that
        boxes cover), `centre` (always the middle of the image), `pairs` of image and finding, and the same by
        finding; or a `reason`. And what was shown.

    Source: Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop", IJCV 126.
    """
    crop = classifier.preprocessing.crop
    names = rows.features["boxes"].feature["finding"].names
    boxed = rows.select(np.flatnonzero([len(boxes) > 0 for boxes in rows["boxes"]]))
    if crop is None or not len(boxed):
        what = "no image has a box" if crop is not None else "this image processor's crop is not known"
        return {"reason": what, "pairs": 0}, []
    shown: list[Shown] = []
    covered: list[float] = []
    central: list[bool] = []
    for batch in boxed.iter(batch_size):
        pixels = classifier.preprocessing.pixel_values(batch["image"])
        probabilities = classifier.probabilities(batch["image"]).numpy()
        places = [
            _by_finding(boxes, image.size, crop)
            for boxes, image in zip(batch["boxes"], batch["image"], strict=True)
        ]
        for finding in sorted({finding for place in places for finding in place}):
            if names[finding] not in classifier.names:
                continue
            output = classifier.names.index(names[finding])
            chosen = [index for index, place in enumerate(places) if finding in place]
            maps = heat_maps(classifier.model, pixels[chosen], output).numpy()
            for index, heat in zip(chosen, maps, strict=True):
                is_inside = _inside(places[index][finding], heat.shape)
                row, column = np.unravel_index(int(heat.argmax()), heat.shape)
                covered.append(float(is_inside.mean()))
                central.append(bool(is_inside[heat.shape[0] // 2, heat.shape[1] // 2]))
                shown.append(
                    Shown(
                        batch["image_id"][index],
                        batch["patient_id"][index],
                        names[finding],
                        float(probabilities[index, output]),
                        _as_picture(pixels[index]),
                        heat,
                        places[index][finding],
                        bool(heat.max() > 0 and is_inside[row, column]),
                    )
                )
    if not shown:
        return {"reason": "no box of the model's findings lies in the crop", "pairs": 0}, []
    return _record(shown, np.array(covered), np.array(central), bootstrap_resamples, seed), shown


def _record(
    shown: Sequence[Shown],
    covered: NDArray[np.float64],
    central: NDArray[np.bool_],
    bootstrap_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Rates over all pairs and by finding."""
    hits = np.array([one.is_hit for one in shown])
    patients = group_patients(len(shown), [one.patient_id for one in shown])
    findings = np.array([one.finding for one in shown])

    def rates(is_in: NDArray[np.bool_]) -> dict[str, Any]:
        tallies = np.stack(
            [np.bincount(patients[is_in], v[is_in], count) for v in (hits, np.ones(len(hits)))]
        )
        draws = [tallies @ weights for weights in patient_weights(count, bootstrap_resamples, seed)]
        limits = None
        if draws:
            right, asked = np.concatenate(draws, axis=1)
            limits = interval(np.divide(right, asked, out=np.full_like(right, np.nan), where=asked > 0))
        return {
            "hit_rate": float(hits[is_in].mean()),
            "interval": limits,
            "chance": float(covered[is_in].mean()),
            "centre": float(central[is_in].mean()),
            "pairs": int(is_in.sum()),
        }

    count = count_patients(patients)
    by_finding = {name: rates(findings == name) for name in sorted(set(findings.tolist()))}
    return rates(np.ones(len(hits), dtype=bool)) | {"findings": by_finding}


def _by_finding(
    boxes: Sequence[dict[str, Any]], size: tuple[int, int], crop: CenterCrop
) -> dict[int, list[Box]]:
    """Boxes of a stored image in pixels of the crop, those that lie in it.

    Args:
        boxes: the row's.
        size: width and height of the stored image.
        crop: of the model's preprocessing.
    """
    square = crop.box(*size)
    scale, side = square.scale, square.side
    result: dict[int, list[Box]] = {}
    for box in boxes:
        x, y = scale * box["x"] - square.left, scale * box["y"] - square.top
        right, bottom = x + scale * box["width"], y + scale * box["height"]
        inside = (max(x, 0.0), max(y, 0.0), min(right, float(side)), min(bottom, float(side)))
        if inside[2] - inside[0] >= 1 and inside[3] - inside[1] >= 1:
            result.setdefault(box["finding"], []).append(inside)
    return result


def _inside(boxes: Sequence[Box], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """True where a pixel's centre lies in a box: (height, width)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    result = np.zeros(shape, dtype=bool)
    for left, top, right, bottom in boxes:
        result |= (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
    return result


def _as_picture(pixels: Tensor) -> NDArray[np.float32]:
    """Normalised input, stretched to [0, 1] for showing."""
    gray = pixels.float().mean(dim=0).numpy()
    low, high = float(gray.min()), float(gray.max())
    return np.asarray((gray - low) / max(high - low, 1e-6), dtype=np.float32)
