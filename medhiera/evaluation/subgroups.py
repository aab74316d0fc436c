"""The same numbers by sex, age band and view: whom a model serves less well.

Stands on metrics.py. Groups are compared over the same findings: those with present and absent images in
every group that is large enough.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medhiera.evaluation.bootstrap import Floats
from medhiera.evaluation.metrics import rank_findings

AGE_BANDS = (
    (0, 18, "0–17"),
    (18, 40, "18–39"),
    (40, 60, "40–59"),
    (60, 80, "60–79"),
    (80, 1000, "80 and over"),
)
"""From, below (years), and the name."""

FEWEST_IMAGES = 30
"""A smaller group is counted and not scored."""

UNKNOWN = "unknown"


def groups_of(
    sex: Sequence[str | None], age_years: Sequence[float | None], view: Sequence[str | None]
) -> dict[str, NDArray[np.object_]]:
    """Each image's group in every attribute: name of the attribute → (images,) of names, or `unknown`.

    Args:
        sex: as the data has it, such as F and M; empty is unknown.
        age_years: NaN or None is unknown.
        view: as the data has it, such as PA and AP; empty is unknown.
    """
    ages = np.array([np.nan if age is None else age for age in age_years], dtype=np.float64)
    bands = np.full(len(ages), UNKNOWN, dtype=object)
    for low, high, name in AGE_BANDS:
        bands[(ages >= low) & (ages < high)] = name
    return {"sex": _named(sex), "age": bands, "view": _named(view)}


def _named(values: Sequence[str | None]) -> NDArray[np.object_]:
    return np.array([value or UNKNOWN for value in values], dtype=object)


def score_subgroups(
    scores: Floats,
    labels: Floats,
    finding_names: Sequence[str],
    groups: Mapping[str, NDArray[np.object_]],
    patient_ids: Sequence[str],
    bootstrap_resamples: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Mean AUROC and average precision in each group.

    Args:
        scores: (images, findings).
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.
        groups: from `groups_of`.
        patient_ids: one per image.
        bootstrap_resamples: behind the intervals; 0 for none.
        seed: of the resampling.

    Returns:
        attribute → `groups` (name → `images`, `patients`, and `mean_auroc`, `mean_average_precision`, their
        `…_interval` and `auroc` by finding, or a `reason`), `findings_in_mean` and, where the data says
        nothing about this attribute, a `reason`.
    """
    patients = np.asarray(patient_ids, dtype=object)
    result: dict[str, dict[str, Any]] = {}
    for attribute, names in groups.items():
        present = [name for name in _in_order(attribute, set(names.tolist()))]
        if present in ([], [UNKNOWN]):
            result[attribute] = {
                "groups": {},
                "findings_in_mean": [],
                "reason": f"the data says nothing about {attribute}",
            }
            continue
        large = [n for n in present if n != UNKNOWN and (names == n).sum() >= FEWEST_IMAGES]
        is_shared = np.ones(labels.shape[1], dtype=bool)
        for name in large:
            here = labels[names == name]
            is_shared &= (here == 1).any(axis=0) & (here == 0).any(axis=0)
        shared = [name for name, is_in in zip(finding_names, is_shared, strict=True) if is_in and large]
        table: dict[str, dict[str, Any]] = {}
        for name in present:
            rows = names == name
            table[name] = {"images": int(rows.sum()), "patients": len(set(patients[rows].tolist()))}
            if name not in large:
                is_small = name != UNKNOWN
                table[name]["reason"] = (
                    f"fewer than {FEWEST_IMAGES} images" if is_small else f"{attribute} not given"
                )
            elif not shared:
                table[name]["reason"] = "no finding has present and absent images in every group"
            else:
                ranked = rank_findings(
                    scores[rows][:, is_shared], labels[rows][:, is_shared], shared,
                    patients[rows].tolist(), bootstrap_resamples, seed,
                )  # fmt: skip
                table[name] |= {key: value for key, value in ranked.items() if key.startswith("mean_")}
                table[name]["auroc"] = {each: entry["auroc"] for each, entry in ranked["findings"].items()}
        result[attribute] = {"groups": table, "findings_in_mean": shared}
    return result


def _in_order(attribute: str, names: set[str]) -> list[str]:
    """Age bands by age, others by name, unknown last."""
    bands = [name for _, _, name in AGE_BANDS]
    known = names - {UNKNOWN}
    ordered = [band for band in bands if band in known] if attribute == "age" else sorted(known)
    return ordered + [UNKNOWN] * (UNKNOWN in names)
