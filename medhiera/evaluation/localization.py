"""Does the classifier look where the finding is? The pointing game on the boxes that a dataset has.

Stands on the inference room. A heat map scores a hit when its highest point lies in a box of the finding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from medhiera.data.columns import read_column
from medhiera.data.finding_names import find_name
from medhiera.data.preprocessing import CenterCrop
from medhiera.data.stored_images import as_pictures
from medhiera.evaluation.bootstrap import Bootstrap, count_patients, group_patients, interval
from medhiera.evaluation.pointing_game import HitRate, LocalizationReport
from medhiera.evaluation.shares import share_interval
from medhiera.inference.classifier import Classifier
from medhiera.inference.heat_maps import METHOD, heat_maps

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the model's input."""


@dataclass(frozen=True, eq=False)
class HeatMapExample:
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
        is_center_hit: the middle of the image lies in one of them.
        covered_share: of the image's pixels, by these boxes.
    """

    image_id: str
    patient_id: str
    finding: str
    probability: float
    pixels: NDArray[np.float32]
    heat: NDArray[np.float32]
    boxes: list[Box]
    is_hit: bool
    is_center_hit: bool
    covered_share: float


def evaluate_localization(
    classifier: Classifier, rows: Dataset, bootstrap: Bootstrap, batch_size: int = 32
) -> tuple[LocalizationReport, list[HeatMapExample]]:
    """Point at every finding that has a box.

    No margin is granted around a box (Zhang et al. 2018 grant 15 pixels), and a finding is asked for whatever
    its probability.

    Args:
        classifier: its findings are matched with the boxes' by name, see find_name.
        rows: of the cocktail, with the column `boxes`.
        bootstrap: of patients, behind the intervals.
        batch_size: images at a time.

    Returns:
        Hit rates over all pairs of image and finding and by finding, or a reason; and each pair's heat map.

    Source: Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop", IJCV 126.
    """
    crop = classifier.preprocessing.crop
    if crop is None:
        return LocalizationReport(reason="this image processor's crop is not known"), []
    names = rows.features["boxes"].feature["finding"].names
    boxed = rows.select(
        np.flatnonzero(pc.list_value_length(read_column(rows, "boxes")).fill_null(0).to_numpy())
    )
    if not len(boxed):
        return LocalizationReport(reason="no image has a box"), []
    examples = [
        example
        for batch in boxed.iter(batch_size)
        for example in _point_at_boxes(classifier, batch, names, crop)
    ]
    if not examples:
        return LocalizationReport(reason="no box of the model's findings lies in the crop"), []
    return _report(examples, bootstrap), examples


def _point_at_boxes(
    classifier: Classifier, batch: Mapping[str, Any], names: Sequence[str], crop: CenterCrop
) -> Iterator[HeatMapExample]:
    """Every pair of image and finding of a batch, finding by finding."""
    images = as_pictures(batch["image"])
    pixels = classifier.pixel_values([classifier.preprocessing.pixels(image) for image in images])
    probabilities = classifier.score(pixels).numpy()
    maps = heat_maps(classifier.model, pixels).numpy()
    boxes_of = [
        _by_finding(boxes, image.size, crop) for boxes, image in zip(batch["boxes"], images, strict=True)
    ]
    for finding in sorted({finding for boxes in boxes_of for finding in boxes}):
        output = find_name(names[finding], classifier.names)
        if output is None:
            continue
        chosen = [index for index, boxes in enumerate(boxes_of) if finding in boxes]
        for index in chosen:
            heat = maps[index, output]
            is_inside = _inside(boxes_of[index][finding], heat.shape)
            row, column = np.unravel_index(int(heat.argmax()), heat.shape)
            yield HeatMapExample(
                image_id=batch["image_id"][index],
                patient_id=batch["patient_id"][index],
                finding=names[finding],
                probability=float(probabilities[index, output]),
                pixels=_stretched(pixels[index]),
                heat=heat,
                boxes=boxes_of[index][finding],
                is_hit=bool(heat.max() > 0 and is_inside[row, column]),
                is_center_hit=bool(is_inside[heat.shape[0] // 2, heat.shape[1] // 2]),
                covered_share=float(is_inside.mean()),
            )


def _report(examples: Sequence[HeatMapExample], bootstrap: Bootstrap) -> LocalizationReport:
    """Rates over all pairs and by finding."""
    patients = group_patients([example.patient_id for example in examples])
    findings = np.array([example.finding for example in examples])
    overall = _hit_rate(examples, patients, np.ones(len(examples), dtype=bool), bootstrap)
    by_finding = {
        name: _hit_rate(examples, patients, findings == name, bootstrap)
        for name in sorted(set(findings.tolist()))
    }
    return LocalizationReport(**vars(overall), method=METHOD, findings=by_finding)


def _hit_rate(
    examples: Sequence[HeatMapExample],
    patients: NDArray[np.intp],
    is_in: NDArray[np.bool_],
    bootstrap: Bootstrap,
) -> HitRate:
    """Rates over some of the pairs.

    Args:
        examples: all pairs.
        patients: (pairs,), numbered; all of them are resampled, whichever pairs count.
        is_in: (pairs,), True counts.
        bootstrap: behind the interval.
    """
    count = count_patients(patients)
    hits = np.array([example.is_hit for example in examples], dtype=float)
    shares = np.array([example.covered_share for example in examples])
    counted = (hits, shares, np.ones(len(hits)))
    sums = np.stack([np.bincount(patients[is_in], values[is_in], count) for values in counted]).astype(float)
    draws = [sums @ weights for weights in bootstrap.weights(count)]
    rate, chance = float(hits[is_in].mean()), float(shares[is_in].mean())
    limits, above_chance = None, None
    if draws:
        right, by_chance, pairs = np.concatenate(draws, axis=1)
        # A resample may hold no patient with the finding; it has no rate.
        drawn, drawn_above = (
            np.divide(total, pairs, out=np.full_like(right, np.nan), where=pairs > 0)
            for total in (right, right - by_chance)
        )
        limits, above_chance = share_interval(drawn, sums[0], sums[2]), interval(drawn_above)
        if rate in (0, 1) and limits is not None:  # resamples differ by chance alone
            above_chance = [limit - chance for limit in limits]
    return HitRate(
        hit_rate=rate,
        interval=limits,
        chance=chance,
        above_chance_interval=above_chance,
        center=float(np.array([example.is_center_hit for example in examples])[is_in].mean()),
        pairs=int(is_in.sum()),
        patients=len(set(patients[is_in].tolist())),
    )


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
    """True where a pixel's center lies in a box: (height, width)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    result = np.zeros(shape, dtype=bool)
    for left, top, right, bottom in boxes:
        result |= (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
    return result


def _stretched(pixels: Tensor) -> NDArray[np.float32]:
    """Normalized input, stretched to [0, 1] for showing."""
    gray = pixels.float().mean(dim=0).cpu().numpy()
    low, high = float(gray.min()), float(gray.max())
    return np.asarray((gray - low) / max(high - low, 1e-6), dtype=np.float32)
