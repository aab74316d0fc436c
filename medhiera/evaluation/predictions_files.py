"""Files of predictions: what `Predictions.table` wrote, and other models' tables of the same images.

Stands on predictions.py; scoring.py reads another model's scores by it, captions and experiments whole files.
"""

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from medhiera.data.finding_names import find_names
from medhiera.errors import one_line
from medhiera.evaluation.bootstrap import Floats
from medhiera.evaluation.predictions import IDENTITY, LABEL_SUFFIX, Predictions

_PARQUET = b"PAR1"
"""What such a file begins with."""


def read_predictions(
    path: Path, names: Sequence[str], image_ids: Sequence[str], patient_ids: Sequence[str], labels: Floats
) -> Floats:
    """Another model's probabilities for the same images, from its predictions.parquet or any table like it.

    Args:
        path: Parquet as evaluate_cls.py wrote it, or a CSV; image_id (or path, as predict.py writes it) and a
            column of probabilities a finding are enough, see _read_table.
        names: the findings wanted, in order; see find_name.
        image_ids: the images wanted, in order.
        patient_ids: one an image; the file's have to be the same where it has any.
        labels: (images, findings); 1, 0 or NaN, as patient_ids.

    Returns:
        (images, findings).

    Raises:
        ValueError: no such file, or it lacks a finding or an image, or is of other images of these names, or
            holds no numbers.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; name the predictions.parquet of another `medhiera evaluate` run"
        )
    table = _read_table(path, image_ids)
    findings = [str(column) for column in table.columns if column in names or column not in IDENTITY]
    columns = find_names(names, findings)
    absent = [name for name, column in zip(names, columns, strict=True) if column is None]
    if absent:
        raise ValueError(f"{path} has no column {absent[0]!r}; wanted predictions of the same findings")
    table = table[table["image_id"].isin(image_ids)].set_index("image_id")
    missing = [image for image in image_ids if image not in table.index]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(image_ids)} images, such as {missing[0]}; both models must "
            "be evaluated on the same split"
        )
    if len(twice := table.index[table.index.duplicated()]):
        raise ValueError(f"{path} has two rows of image {twice[0]!r}; name a file with one row an image")
    table = table.loc[list(image_ids)]
    wanted = [findings[column] for column in columns if column is not None]
    _refuse_other_patients(path, table, patient_ids)
    _refuse_other_labels(path, table, wanted, labels)
    try:
        scores = np.asarray(table[wanted], dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds something else than probabilities: {one_line(error)}") from error
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise ValueError(f"{path} has an image without a probability for each finding: {image_ids[row]}")
    return scores


def _read_table(path: Path, image_ids: Sequence[str]) -> pd.DataFrame:
    """A table with a column image_id, whose values are those of `image_ids` where they mean one of them.

    Args:
        path: of Parquet, or of a CSV with commas.
        image_ids: the images wanted.

    Raises:
        ValueError: it is neither, or has no column of images.
    """
    wanted = (
        "wanted a predictions.parquet of `medhiera evaluate`, the CSV of `medhiera predict`, or a table of "
        "your own, Parquet or CSV with commas: a column image_id and a column of probabilities a finding"
    )
    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(_PARQUET)) == _PARQUET
        if is_parquet:
            table = pd.read_parquet(path)
        else:
            text = dict.fromkeys(("image_id", "path", "patient_id"), str)
            table = pd.read_csv(path, dtype=text, encoding="utf-8-sig")
    except (ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}); {wanted}") from error
    column = next((name for name in ("image_id", "path") if name in table), None)
    if column is None:
        raise ValueError(f"{path} has no column 'image_id'; {wanted}")
    try:
        return table.assign(image_id=known_ids(table[column].astype(str).tolist(), image_ids))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def known_ids(names: Sequence[str], image_ids: Sequence[str]) -> list[str]:
    """The image that each name means: an id, or the path of a file, with the same folders before each.

    Args:
        names: as a table has them.
        image_ids: source and path of each image, "image folder/a/1.png".

    Returns:
        By name: an id, or the name itself where it means none. Paths begin at one folder, that which the most
        ids fit behind: of `a/1.png` and `b/1.png` beside each other, one is no image `1.png`.

    Raises:
        ValueError: two folders fit equally many ids.
    """
    if {*names} & {*image_ids}:
        return list(names)
    of_path = {image.partition("/")[2]: image for image in image_ids}
    paths = [posixpath.normpath(name.replace("\\", "/")) for name in names]
    roots: Counter[str] = Counter()
    for path in paths:
        parts = path.split("/")
        ends = (("/".join(parts[:cut]), "/".join(parts[cut:])) for cut in range(len(parts)))
        roots.update(root for root, end in ends if end in of_path)
    if not roots:
        return list(names)
    (root, count), *others = roots.most_common(2)
    if others and others[0][1] == count:
        raise ValueError(
            f"what it names below {root or '.'!r} and below {others[0][0] or '.'!r} fits equally many of the "
            "images that are scored, so it is not known which it means; name the images in a column "
            "image_id, or give it one folder alone"
        )
    begins = f"{root}/" if root else ""
    return [
        of_path.get(path.removeprefix(begins), name) if path.startswith(begins) else name
        for name, path in zip(names, paths, strict=True)
    ]


def _refuse_other_patients(path: Path, table: pd.DataFrame, patient_ids: Sequence[str]) -> None:
    """Refuse a table, one row an image by its image_id, that says an image is of another patient.

    Raises:
        ValueError: it does.
    """
    if "patient_id" not in table:
        return
    theirs, ours = table["patient_id"].astype(str), np.asarray(patient_ids, dtype=object)
    differs = np.flatnonzero(table["patient_id"].notna() & (theirs != ours))
    if len(differs):
        place = int(differs[0])
        said = f"patient {theirs.iloc[place]!r} there and {ours[place]!r} here"
        raise _other_data(path, table, differs, said)


def _refuse_other_labels(path: Path, table: pd.DataFrame, findings: Sequence[str], labels: Floats) -> None:
    """As _refuse_other_patients, of labels.

    Raises:
        ValueError: a finding is present, absent or not annotated here and something else there.
    """
    words = {1.0: "present", 0.0: "absent"}
    for finding, ours in zip(findings, labels.T, strict=True):
        if f"{finding}{LABEL_SUFFIX}" not in table:
            continue
        theirs = table[f"{finding}{LABEL_SUFFIX}"].to_numpy(np.float64)
        differs = np.flatnonzero((theirs != ours) & ~(np.isnan(theirs) & np.isnan(ours)))
        if len(differs):
            there, here = (words.get(each[differs[0]], "not annotated") for each in (theirs, ours))
            raise _other_data(path, table, differs, f"{finding} {there} there and {here} here")


def _other_data(path: Path, table: pd.DataFrame, differs: NDArray[np.intp], said: str) -> ValueError:
    """What is wrong and what to do."""
    return ValueError(
        f"{path} is of other data: image {table.index[differs[0]]!r} has {said} ({len(differs)} of "
        f"{len(table)} images differ); score both models with `medhiera evaluate` on the same data"
    )


def load_predictions(path: Path) -> Predictions:
    """The whole of a predictions.parquet, as `Predictions.table` wrote it.

    Raises:
        ValueError: no such file, or it has no column of labels.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name the predictions.parquet of a `medhiera evaluate` run")
    table = pd.read_parquet(path)
    columns = [str(name) for name in table.columns]
    names = [name.removesuffix(LABEL_SUFFIX) for name in columns if name.endswith(LABEL_SUFFIX)]
    if not names:
        raise ValueError(f"{path} has no column NAME{LABEL_SUFFIX}; wanted what `medhiera evaluate` wrote")
    rows = table[list(IDENTITY)]
    labels = table[[f"{name}{LABEL_SUFFIX}" for name in names]].to_numpy(np.float64)
    return Predictions(table[names].to_numpy(np.float64), labels, names, rows["patient_id"].tolist(), rows)
