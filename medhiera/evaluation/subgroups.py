"""The same numbers by sex, age band and view: whom a model serves less well.

Stands on metrics.py. Groups are compared over the same findings: those with enough positive and negative
patients in every group that is large enough. A finding with one positive patient in a group would move the
group's mean by that patient alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import FEWEST_PATIENTS, Predictions
from medhiera.evaluation.results import GroupScore, SubgroupReport

AGE_BANDS = (
    (0, 18, "0–17"),
    (18, 40, "18–39"),
    (40, 60, "40–59"),
    (60, 80, "60–79"),
    (80, 1000, "80 and over"),
)
"""From, below (years), and the name."""

FEWEST_IMAGES = 30
"""A smaller group is counted and not scored, nor does it decide which findings are compared."""

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


def score_subgroups(predictions: Predictions, bootstrap: Bootstrap) -> dict[str, SubgroupReport]:
    """Mean AUROC and average precision in each group.

    Args:
        predictions: with rows, which say sex, age and view.
        bootstrap: behind the intervals.

    Returns:
        By attribute, with a reason where the data says nothing about it.

    Raises:
        ValueError: the predictions have no rows.
    """
    groups = groups_of(*(predictions.values(column) for column in ("sex", "age_years", "view")))
    return {
        attribute: _compare(predictions, attribute, names, bootstrap) for attribute, names in groups.items()
    }


def _compare(
    predictions: Predictions, attribute: str, names: NDArray[np.object_], bootstrap: Bootstrap
) -> SubgroupReport:
    """The groups of one attribute.

    Args:
        predictions: of the split.
        attribute: its name.
        names: (images,), each image's group.
        bootstrap: behind the intervals.
    """
    present = _in_order(attribute, set(names.tolist()))
    if present in ([], [UNKNOWN]):
        reason = f"the data says nothing about {attribute}"
        return SubgroupReport(groups={}, findings_in_mean=[], findings_left_out=[], reason=reason)
    parts = {name: predictions.select(names == name) for name in present}
    large = [name for name in present if name != UNKNOWN and len(parts[name]) >= FEWEST_IMAGES]
    shared = _shared_findings([parts[name] for name in large])
    groups: dict[str, GroupScore] = {}
    for name, part in parts.items():
        if name == UNKNOWN:
            groups[name] = _unscored(part, f"{attribute} not given")
        elif name not in large:
            groups[name] = _unscored(part, f"fewer than {FEWEST_IMAGES} images")
        elif not shared:
            groups[name] = _unscored(
                part,
                f"no finding has {FEWEST_PATIENTS} positive and {FEWEST_PATIENTS} negative patients in every "
                "group",
            )
        else:
            groups[name] = _scored(part, shared, bootstrap)
    left_out = [name for name in predictions.finding_names if large and name not in shared]
    return SubgroupReport(groups=groups, findings_in_mean=shared, findings_left_out=left_out)


def _shared_findings(parts: Sequence[Predictions]) -> list[str]:
    """The findings with enough patients on both sides in each of the groups; none where there is no group."""
    enough: dict[str, bool] = {}
    for part in parts:
        here = {column.name: not column.has_few_cases for column in part.columns()}
        enough = {name: is_enough and enough.get(name, True) for name, is_enough in here.items()}
    return [name for name, is_enough in enough.items() if is_enough]


def _scored(part: Predictions, shared: Sequence[str], bootstrap: Bootstrap) -> GroupScore:
    """A large group over the shared findings."""
    everything = np.ones(len(part), dtype=bool)
    # A bootstrap of its own: no other scorer has this group's patients, so its draws need not be kept.
    ranked = rank_findings(part.select(everything, shared), Bootstrap(bootstrap.resamples))
    return GroupScore(
        images=len(part),
        patients=part.patient_count,
        mean_auroc=ranked.mean_auroc,
        mean_auroc_interval=ranked.mean_auroc_interval,
        mean_average_precision=ranked.mean_average_precision,
        mean_average_precision_interval=ranked.mean_average_precision_interval,
        auroc={name: entry.auroc for name, entry in ranked.findings.items()},
    )


def _unscored(part: Predictions, reason: str) -> GroupScore:
    return GroupScore(images=len(part), patients=part.patient_count, reason=reason)


def _in_order(attribute: str, names: set[str]) -> list[str]:
    """Age bands by age, others by name, unknown last."""
    bands = [name for _, _, name in AGE_BANDS]
    known = names - {UNKNOWN}
    ordered = [band for band in bands if band in known] if attribute == "age" else sorted(known)
    return ordered + [UNKNOWN] * (UNKNOWN in names)
