"""Which rows of the cocktail a stage reads.

Stands between the opened data and the datasets that a DataLoader reads.
"""

import logging
import math
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice, zip_longest

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, interleave_datasets

from dataset_scripts import SOURCES
from dataset_scripts.build.layout import BUILD_REPORT_FILE
from medhiera.data.cocktail import by_source
from medhiera.data.columns import read_column, read_labels
from medhiera.data.seeding import derive_seed
from medhiera.data.stored_images import as_picture
from medhiera.errors import UserError

logger = logging.getLogger(__name__)

_LABEL_FRACTION = "label_fraction"
"""What its keys are for."""

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def default_sources(rows: Dataset) -> list[str] | None:
    """Stage 2 reads its task's sources where the data has them, else all there is (your image folder)."""
    return task_sources(by_source(rows))


def choose_sources(rows: Dataset, named: Sequence[str] | None) -> list[str] | None:
    """What stage 2 learns from: the sources that were named, or the default ones, which are logged.

    Args:
        rows: the training split.
        named: by `sources`; None or empty for the default.
    """
    if named:
        return list(named)
    chosen = default_sources(rows)
    if chosen is None:
        return None
    is_labelled = ~np.isnan(read_labels(rows)).all(axis=1)
    labelled = Counter(read_column(rows, "source").filter(pa.array(is_labelled)).to_pylist())
    left_out = {source: count for source, count in sorted(labelled.items()) if source not in chosen}
    learned = sum(count for source, count in by_source(rows).items() if source in chosen)
    if left_out:
        both = " ".join(map(shlex.quote, [*chosen, *left_out]))
        counts = ", ".join(f"{source} {count:,}" for source, count in left_out.items())
        logger.info(
            "learns from %s alone, %s of %s images; left out although labelled: %s; "
            "--sources %s takes all of them",
            " and ".join(chosen), f"{learned:,}", f"{len(rows):,}", counts, both,
        )  # fmt: skip
    return chosen


def task_sources(present: Collection[str]) -> list[str] | None:
    """Stage 2's task's sources among some; None where there is none of them."""
    return [source.name for source in SOURCES if source.is_default_task and source.name in present] or None


def select_examples(rows: Dataset, sources: Sequence[str] | None, at_most: int | None, seed: int) -> Dataset:
    """The rows of some sources, at most so many of them, drawn by the seed.

    A name that stands in no split at all is refused by `open_cocktail`.

    Raises:
        UserError: no row left.
    """
    if sources is not None:
        there, split = by_source(rows), rows.split or "chosen"
        absent = sorted(set(sources) - there.keys())
        if len(absent) == len(set(sources)):
            raise UserError(
                f"--sources {list(sources)}: none is in this split ({split}), which holds {sorted(there)}. "
                "Name one of these, or another split. A source is in a split if it holds images out for it; "
                f"{BUILD_REPORT_FILE} beside the built data says what else was left out"
            )
        if absent:
            logger.warning(
                "sources %s have no image in the %s split; it holds %s", absent, split, sorted(there)
            )
        rows = rows.select(_rows_of(rows, sources))
    if at_most is not None and at_most < len(rows):
        rows = rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:at_most]))
    return rows


def draw_label_fraction(
    is_present: npt.NDArray[np.bool_], patient_ids: Sequence[str], fraction: float, seed: int
) -> list[int]:
    """A share of training images, to learn from few labels: whole patients, stratified by their findings.

    All patients stand in one line: by how many of their images show each finding, the rarest finding first,
    then by how many images they have, then in an order keyed by seed and patient. Along it runs a sequence
    that falls evenly into [0, 1) over every stretch, from a keyed start; who gets a number below `fraction`
    is taken. So each stretch of like patients gives its share, and a smaller share is a part of a larger one.

    Args:
        is_present: (images, findings).
        patient_ids: one an image.
        fraction: 0 < fraction ≤ 1, of the images.
        seed: of the draw.

    Returns:
        The images' numbers, ascending; none where the share is too small.

    Source: Kronecker's sequence, here of the golden ratio; Niederreiter 1992, "Random Number Generation and
    Quasi-Monte Carlo Methods", chapter 3.
    """
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(patient_ids):
        rows_of.setdefault(patient, []).append(row)
    rarest_first = np.argsort(is_present.sum(axis=0), kind="stable")
    line = sorted(
        rows_of,
        key=lambda patient: (
            *is_present[rows_of[patient]].sum(axis=0)[rarest_first].tolist(),
            len(rows_of[patient]),
            derive_seed(seed, 0, patient, _LABEL_FRACTION),
        ),
    )
    start = derive_seed(seed, 0, "", _LABEL_FRACTION) / 2**63
    places = (start + _GOLDEN_RATIO * np.arange(len(line))) % 1
    return sorted(
        row
        for patient, place in zip(line, places, strict=True)
        if place < fraction
        for row in rows_of[patient]
    )


def take_label_fraction(rows: Dataset, fraction: float, seed: int) -> Dataset:
    """A share of the training rows, see draw_label_fraction.

    Args:
        rows: of the training split, as they were chosen.
        fraction: 0 < fraction ≤ 1, of the images.
        seed: of the draw.

    Raises:
        UserError: no row is left.
    """
    if fraction == 1:
        return rows
    is_present = read_labels(rows) == 1  # NaN: no
    patient_ids = read_column(rows, "patient_id").to_pylist()
    taken = draw_label_fraction(is_present, patient_ids, fraction, seed)
    if not taken:
        raise UserError(
            f"label_fraction {fraction} of {len(rows)} training images of {len(set(patient_ids))} patients "
            "is none; raise it"
        )
    lost = (is_present.any(axis=0) & ~is_present[taken].any(axis=0)).sum()
    logger.info(
        "label_fraction %s: %s of %s training images%s", fraction, f"{len(taken):,}", f"{len(rows):,}",
        f"; {lost} findings are left without a positive image" if lost else "",
    )  # fmt: skip
    return rows.select(taken)


def warn_of_small_images(rows: Dataset, resize_size: int, *, is_exported: bool) -> None:
    """Say so where the data holds less detail than the model looks for: it was built smaller, or is small.

    Args:
        rows: the first of them are looked at.
        resize_size: the shorter side that the model's preprocessing asks for, in pixels.
        is_exported: what was named is built data, and not the files themselves.
    """
    sides = [min(as_picture(row["image"]).size) for row in rows.select(range(min(len(rows), 32)))]
    if sides and max(sides) < resize_size:
        advice = (
            "If the files it was built from are larger, name their folder, which is built anew for this model"
            if is_exported
            else "The files themselves are so small; use larger ones if you have them"
        )
        logger.warning(
            "the images are at most %d pixels on their shorter side and are enlarged to %d. %s",
            max(sides), resize_size, advice,
        )  # fmt: skip


def mix_sources(rows: Dataset, weights: Mapping[str, float], seed: int) -> Dataset:
    """Training rows with each source's share as weighted; a source that is not named is left out.

    `all_exhausted`: an epoch shows every image at least once, and those of a source that is small for its
    weight several times (RadiographDataset masks each showing anew). `first_exhausted` would never repeat an
    image, but drop most of the large sources.

    Args:
        rows: as they were chosen.
        weights: source to weight, positive; they need not add up to one. Empty: the rows as they are.
        seed: of the draw.

    Raises:
        UserError: a weighted source has no row here.
    """
    if not weights:
        return rows
    absent = sorted(weights.keys() - by_source(rows).keys())
    if absent:
        raise UserError(f"source_weights names {absent}, of which no training row is chosen; see --sources")
    total = sum(weights.values())
    return interleave_datasets(
        [rows.select(_rows_of(rows, [source])) for source in weights],
        probabilities=[weight / total for weight in weights.values()],
        seed=seed,
        stopping_strategy="all_exhausted",
    )


def _rows_of(rows: Dataset, sources: Sequence[str]) -> npt.NDArray[np.intp]:
    is_wanted = pc.is_in(read_column(rows, "source"), value_set=pa.array(sources, pa.string()))
    return np.flatnonzero(is_wanted.to_numpy())


def sample_across_sources(rows: Dataset, count: int) -> list[int]:
    """Row numbers for a figure: each source in turn, evenly through the split."""
    places: dict[str, list[int]] = {}
    for row, source in enumerate(read_column(rows, "source").to_pylist()):
        places.setdefault(source, []).append(row)
    thinned = [found[:: max(1, len(found) // count)] for found in places.values()]
    in_turn = (row for rank in zip_longest(*thinned) for row in rank if row is not None)
    return list(islice(in_turn, count))
