"""Written reports against the radiologists': overlap measures, copies, sides, with intervals by study.

    python -m medhiera.evaluation.captions REFERENCES.json PREDICTIONS.json --clean iu
    python -m medhiera.evaluation.captions REFERENCES.json PREDICTIONS.json --compare OTHER.json

Each file maps study ids to reports; one line of JSON is printed. docs/reports.md says how each number is made
and what reports that no model wrote reach. Stands on caption_metrics.py and report_content.py.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import not_negative, positive
from medhiera.evaluation.report_cleaning import CLEANERS


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m medhiera.evaluation.captions",
        description="Score written reports against the radiologists'; one line of JSON.",
    )
    parser.add_argument("references", type=Path, help='a JSON file {"study id": "report", …}')
    parser.add_argument("predictions", type=Path, help="the same of the model, for the same studies")
    parser.add_argument(
        "--clean", choices=sorted(CLEANERS), help="clean all texts as R2Gen cleans IU X-Ray or MIMIC-CXR"
    )
    parser.add_argument(
        "--legacy_references", type=positive, metavar="N", help="cut references to N words (others: 60, 30)"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="OTHER.json", help="another model's reports: differences"
    )
    parser.add_argument("--training", type=Path, metavar="FILE", help="training reports: which are copied")
    parser.add_argument(
        "--normal", type=Path, metavar="FILE",
        help='normal studies, scored apart: ["id", …], or {"id": true or false, …} where not all are known',
    )  # fmt: skip
    parser.add_argument(
        "--chexbert", type=Path, metavar="FOLDER", help="chexbert.pth and its BERT's files: CheXbert F1"
    )
    parser.add_argument(
        "--radgraph", type=Path, nargs=2, metavar=("REFERENCES", "PREDICTIONS"),
        help="annotations that the package radgraph wrote: RadGraph F1",
    )  # fmt: skip
    parser.add_argument("--bootstrap_resamples", type=not_negative, default=2000, help="behind the intervals")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import dataclasses
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medhiera.errors import UserError, run_script
from medhiera.evaluation.bootstrap import Bootstrap, Difference, Floats, interval, paired_difference
from medhiera.evaluation.caption_metrics import (
    MEASURES,
    CaptionStatistics,
    measure_captions,
    meteor,
    why_no_meteor,
)
from medhiera.evaluation.caption_results import CaptionReport, CaptionScores
from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.evaluation.radgraph import Annotations, check_annotations, score_annotations
from medhiera.evaluation.report_cleaning import clean_report
from medhiera.evaluation.report_content import count_distinct, score_laterality, share_verbatim

Reports = Mapping[str, str]
"""Study id → report."""

METEOR_NOT_ASKED = "METEOR was not asked for"

EXAMPLES = 3
"""How many study ids an error names."""


def score_captions(
    references: Reports,
    predictions: Reports,
    bootstrap: Bootstrap,
    *,
    training: Collection[str] | None = None,
    normal: Collection[str] | Mapping[str, bool] | None = None,
    with_meteor: bool = False,
    uncleaned: tuple[Reports, Reports] | None = None,
) -> CaptionReport:
    """Score the reports of one model.

    Args:
        references: one a study.
        predictions: of the same studies; a text may be empty.
        bootstrap: over studies, behind the intervals.
        training: the reports that the model was trained on, cleaned like the predictions.
        normal: the ids of the normal studies, which are then scored apart from the others; or id → whether it
            is normal, where not all are known: the rest is in neither group.
        with_meteor: start METEOR too, where it is installed.
        uncleaned: references and predictions as they were before cleaning, which makes one sentence of what a
            semicolon parts: sides are looked for in these. None: nothing was cleaned.

    Raises:
        UserError: the studies differ, a reference is empty, or `normal` names a study that is not there.
    """
    true, said = _pair(references, predictions)
    statistics = measure_captions(true, said)
    groups: list[CaptionScores | None] = [None, None]
    if normal is not None:
        _check_normal(references, normal)
        rest = None if isinstance(normal, Mapping) else False
        known = normal if isinstance(normal, Mapping) else dict.fromkeys(normal, True)
        kinds = [bool(known[study]) if study in known else rest for study in references]
        groups = [
            _score_group(statistics, np.array([kind is wanted for kind in kinds]), bootstrap)
            for wanted in (True, False)
        ]
    as_they_are = (true, said) if uncleaned is None else _pair(*uncleaned)
    reason = why_no_meteor() if with_meteor else METEOR_NOT_ASKED
    return CaptionReport(
        scores=_score(statistics, bootstrap),
        distinct=count_distinct(said),
        verbatim_in_training=None if training is None else share_verbatim(said, training),
        laterality=score_laterality(*as_they_are, bootstrap),
        normal=groups[0],
        abnormal=groups[1],
        meteor=meteor(true, said) if reason is None else None,
        meteor_reason=reason,
        bootstrap_resamples=bootstrap.resamples,
    )


def compare_captions(
    references: Reports, predictions: Reports, other: Reports, bootstrap: Bootstrap
) -> dict[str, Difference]:
    """Differences of each measure, the first model's minus the second's, under the same resamples of studies.

    Args:
        references: one a study.
        predictions: of the first model.
        other: of the second, of the same studies.
        bootstrap: behind the intervals and p-values; without resamples there are none, and no p-value of
            fewer than FEWEST_PATIENTS studies.

    Raises:
        UserError: the studies differ, or a reference is empty.
    """
    both = [measure_captions(*_pair(references, each)) for each in (predictions, other)]
    values, drawn = ([each.values() for each in both], [_resample(each, bootstrap) for each in both])
    has_few = len(references) < FEWEST_PATIENTS
    return {
        name: paired_difference(values[0][name] - values[1][name], drawn[0][name] - drawn[1][name], has_few)
        for name in MEASURES
    }


def _pair(references: Reports, predictions: Reports) -> tuple[list[str], list[str]]:
    """Both as lists in the references' order; refuses what does not pair, and references without a word."""
    if not references:
        raise UserError("there is no reference; wanted at least one study with its report")
    empty = [study for study, report in references.items() if not re.search(r"\w", report)]
    if empty:
        raise UserError(
            f"{len(empty)} of {len(references)} references hold no word ({_examples(empty)}); leave these "
            "studies out of both files, for nothing can be compared with them"
        )
    absent = [study for study in references if study not in predictions]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(references)} studies have no prediction ({_examples(absent)}); write one "
            "for each: where the model said nothing, an empty text"
        )
    unknown = [study for study in predictions if study not in references]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(predictions)} predictions are of studies without a reference "
            f"({_examples(unknown)}); give both files the same studies"
        )
    return list(references.values()), [predictions[study] for study in references]


def _check_normal(references: Reports, normal: Collection[str]) -> None:
    unknown = [study for study in normal if study not in references]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(normal)} normal studies have no reference ({_examples(unknown)}); "
            "name studies that are scored"
        )


def _examples(studies: Sequence[str]) -> str:
    more = ", …" if len(studies) > EXAMPLES else ""
    return ", ".join(repr(study) for study in studies[:EXAMPLES]) + more


def _resample(statistics: CaptionStatistics, bootstrap: Bootstrap) -> dict[str, Floats]:
    """Each measure in each resample of studies: name → (resamples,)."""
    parts = [statistics.weigh(weights) for weights in bootstrap.weights(len(statistics))]
    return {name: np.concatenate([np.empty(0), *(part[name] for part in parts)]) for name in MEASURES}


def _score(statistics: CaptionStatistics, bootstrap: Bootstrap) -> CaptionScores:
    drawn = _resample(statistics, bootstrap)
    fields: dict[str, Any] = {**statistics.values()}
    fields |= {f"{name}_interval": interval(draws) for name, draws in drawn.items()}
    return CaptionScores(studies=len(statistics), **fields)


def _score_group(
    statistics: CaptionStatistics, is_chosen: NDArray[np.bool_], bootstrap: Bootstrap
) -> CaptionScores | None:
    return _score(statistics.select(is_chosen), bootstrap) if is_chosen.any() else None


def read_reports(path: Path) -> dict[str, str]:
    """Read a mapping of study ids to reports.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(
            f'{path} holds a {type(found).__name__}; wanted an object {{"study id": "report", …}}'
        )
    for study, report in found.items():
        if not isinstance(report, str):
            raise UserError(f"{path}: the report of {study!r} is a {type(report).__name__}; wanted a text")
    return found


def read_normal(path: Path) -> list[str] | dict[str, bool]:
    """Read which studies are normal, see `score_captions`.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    found = read_json(path)
    if isinstance(found, list) and all(isinstance(study, str) for study in found):
        return found
    if isinstance(found, dict) and all(isinstance(is_normal, bool) for is_normal in found.values()):
        return found
    raise UserError(
        f'{path} does not say which studies are normal; wanted ["study id", …], or {{"study id": true or '
        "false, …}"
    )


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it cannot be read, or names a key of an object twice.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_refuse_duplicates)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file; json would keep the last of two reports of one study."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, count)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} stands in it {count} times")
    return found


def read_annotations(
    paths: Sequence[Path], reports: Sequence[Reports], cleaned: Sequence[Reports]
) -> tuple[Annotations, Annotations]:
    """RadGraph's annotations of the references and of the predictions, see check_annotations.

    Args:
        paths: the two files.
        reports: references and predictions as they are.
        cleaned: the same as they are scored.

    Raises:
        UserError: a file cannot be read, or is of other reports.
    """
    of_references, of_predictions = (
        check_annotations(read_json(path), path, *texts)
        for path, *texts in zip(paths, reports, cleaned, strict=True)
    )
    return of_references, of_predictions


def truncate_report(report: str, words: int | None) -> str:
    """Cut a reference to its first words, as legacy numbers do; None leaves it whole."""
    return report if words is None else " ".join(report.split()[:words])


def truncate_raw(report: str, clean: str | None, words: int | None) -> str:
    """What a reference says up to where it is cut once it is cleaned, as it was before; None leaves it whole.

    Args:
        report: a reference.
        clean: how it is cleaned, see clean_report.
        words: of the cleaned text.
    """
    if words is None or clean is None:
        return truncate_report(report, words)
    parts = report.split()

    def count(beginning: int) -> int:
        """Words of a cleaned beginning, whose last period the cleaner adds."""
        return len(clean_report(" ".join(parts[:beginning]), clean).removesuffix(".").split())

    return " ".join(parts[: bisect_right(range(1, len(parts) + 1), words, key=count)])


def as_line(report: CaptionReport) -> dict[str, Any]:
    """What the command prints of a report: the scores of all studies stand first, beside the rest."""
    fields = dataclasses.asdict(report)
    return {**fields.pop("scores"), **fields}


def main(argv: list[str]) -> None:
    """Read, clean, score, print."""
    options = build_parser().parse_args(argv)

    def clean(texts: Reports) -> dict[str, str]:
        return {study: clean_report(text, options.clean) for study, text in texts.items()}

    def read(path: Path) -> dict[str, str]:
        return clean(read_reports(path))

    def cut(texts: Reports) -> dict[str, str]:
        return {study: truncate_report(text, options.legacy_references) for study, text in texts.items()}

    raw = read_reports(options.references), read_reports(options.predictions)
    references, predictions = cut(clean(raw[0])), clean(raw[1])
    raw = (
        {
            study: truncate_raw(text, options.clean, options.legacy_references)
            for study, text in raw[0].items()
        },
        raw[1],
    )
    bootstrap = Bootstrap(options.bootstrap_resamples)
    report = score_captions(
        references,
        predictions,
        bootstrap,
        training=None if options.training is None else read(options.training).values(),
        normal=None if options.normal is None else read_normal(options.normal),
        with_meteor=True,
        uncleaned=raw,
    )
    if options.chexbert is not None:
        # Late: a BERT takes seconds to import, and few have CheXbert's weights.
        from medhiera.evaluation.chexbert import Chexbert

        labeled = Chexbert.open(options.chexbert).score(*_pair(*raw), bootstrap)
        report = dataclasses.replace(report, chexbert=labeled)
    if options.radgraph is not None:
        annotated = read_annotations(options.radgraph, raw, (references, predictions))
        report = dataclasses.replace(report, radgraph=score_annotations(*annotated, bootstrap))
    printed = as_line(report)
    if options.compare is not None:
        differences = compare_captions(references, predictions, read(options.compare), bootstrap)
        printed["comparison"] = {name: dataclasses.asdict(one) for name, one in differences.items()}
    printed |= {"clean": options.clean, "legacy_references": options.legacy_references}
    print(json.dumps(printed, allow_nan=False))


if __name__ == "__main__":
    run_script(main)
