"""RadGraph F1 of written reports, from annotations that the package `radgraph` has written.

Beside captions.py, whose `--radgraph` takes the two files. The package itself is not called: it unpickles its
weights where there is a GPU (docs/decisions.md). docs/reports.md has the lines that write its annotations, in
an environment of its own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap, Floats, interval
from medhiera.evaluation.caption_results import RadGraphScores

Annotations = Mapping[str, Mapping[str, Any]]
"""Study id → what RadGraph found in its report: {"entities": {"1": {"tokens", "label", "relations"}}}."""


def score_annotations(
    references: Annotations, predictions: Annotations, bootstrap: Bootstrap
) -> RadGraphScores:
    """Score the annotations of one model's reports; a study without an entity on either side has F1 0.

    Args:
        references: of the radiologists' reports.
        predictions: of the written ones, of the same studies.
        bootstrap: over studies, behind the intervals.

    Raises:
        UserError: the studies differ, or an annotation is not RadGraph's.

    Source: Jain et al. 2021, arXiv:2106.14463; the three levels are those of the package radgraph 0.1.18.
    """
    if references.keys() != predictions.keys() or not references:
        differing = sorted(references.keys() ^ predictions.keys())[:3]
        raise UserError(
            f"RadGraph's annotations are of {len(references)} references and {len(predictions)} predictions, "
            f"which are not the same studies ({differing}); annotate both of the same studies"
        )
    rows = [
        _levels(_facts(study, reference), _facts(study, predictions[study]))
        for study, reference in references.items()
    ]
    values = np.array(rows)
    names = ("simple", "partial", "complete")
    fields: dict[str, Any] = {name: float(mean) for name, mean in zip(names, values.mean(0), strict=True)}
    drawn: list[Floats] = [values.T @ weights / len(values) for weights in bootstrap.weights(len(values))]
    means = np.concatenate([np.empty((3, 0)), *drawn], axis=1)
    fields |= {f"{name}_interval": interval(row) for name, row in zip(names, means, strict=True)}
    return RadGraphScores(**fields)


def check_annotations(content: Any, path: Path, *reports: Mapping[str, str]) -> Annotations:
    """What a file of annotations holds, if it is of these reports.

    Args:
        content: of the file.
        path: its name.
        *reports: study id → report; as they are, and cleaned: either may have been annotated. None given: the
            file's form alone is checked.

    Raises:
        UserError: it is no mapping, lacks a study, or annotates another text: of another model, say.
    """
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        raise UserError(f'{path}: wanted {{"study id": RadGraph\'s annotation of its report, …}}')
    if not reports:
        return content
    first, *_ = reports
    if absent := [study for study in first if study not in content]:
        raise UserError(
            f"{path} lacks {len(absent)} of {len(first)} studies, such as {absent[0]!r}; annotate the report "
            "of each study"
        )
    # The package annotates the word None in the place of an empty report, and scores such a pair 0.
    found = {study: content[study] if first[study].strip() else {"entities": {}} for study in first}
    other = [
        study
        for study in first
        if (text := found[study].get("text"))
        and not any(_letters(str(text)) == _letters(each[study]) for each in reports)
    ]
    if other:
        raise UserError(
            f"{path} annotates other texts than the reports that are scored ({len(other)} of {len(first)}, "
            f"such as that of {other[0]!r}); annotate these reports anew"
        )
    return found


def _letters(text: str) -> str:
    """Letters and digits alone: RadGraph's own text has spaces around what is none of these."""
    return re.sub(r"[\W_]+", "", text.lower())


def _facts(study: str, annotation: Mapping[str, Any]) -> tuple[set[Any], set[Any], set[Any]]:
    """The entities of one report, at each of the three levels."""
    try:
        entities = annotation["entities"]
        simple = {(one["tokens"], one["label"]) for one in entities.values()}
        partial = {(one["tokens"], one["label"], bool(one["relations"])) for one in entities.values()}
        complete = {
            (one["tokens"].lower(), one["label"], kind, entities[other]["tokens"].lower())
            for one in entities.values()
            for kind, other in one["relations"]
        } | {(one["tokens"], one["label"]) for one in entities.values() if not one["relations"]}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"the annotation of {study!r} is not RadGraph's: {error!r}; wanted entities with tokens, label "
            "and relations"
        ) from error
    return simple, partial, complete


def _levels(true: tuple[set[Any], ...], said: tuple[set[Any], ...]) -> list[float]:
    both = zip(true, said, strict=True)
    return [2 * len(one & other) / (len(one) + len(other)) if one and other else 0.0 for one, other in both]
