"""What reports reach that no model wrote, to stand beside every model's numbers.

    python -m medhiera.evaluation.report_baselines ANNOTATION.json --clean iu

ANNOTATION.json is R2Gen's file: the studies of "train", "val" and "test", each with its id and report. One
line of JSON is printed. docs/reports.md shows the numbers on IU X-Ray. Stands on captions.py.

Two baselines need no picture. The best constant report gives every study the same text, one of the training
reports, chosen on validation. The nearest training report by text reads the reference that it is scored with,
which no model can do: it is about what copying whole training reports can reach, and not a competitor.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import not_negative
from medhiera.evaluation.report_cleaning import CLEANERS


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m medhiera.evaluation.report_baselines",
        description="Score the best constant report and the nearest training report; one line of JSON.",
    )
    parser.add_argument("annotation", type=Path, help="R2Gen's annotation.json")
    parser.add_argument(
        "--clean", choices=sorted(CLEANERS), help="clean all texts as R2Gen cleans IU X-Ray or MIMIC-CXR"
    )
    parser.add_argument(
        "--normal", type=Path, metavar="FILE", help="the normal test studies, as medhiera.evaluation.captions"
    )
    parser.add_argument("--bootstrap_resamples", type=not_negative, default=2000, help="behind the intervals")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from medhiera.errors import UserError, run_script
from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.caption_metrics import CIDER_SIGMA, ORDERS, NGram, corpus_bleu, count_ngrams
from medhiera.evaluation.caption_results import CaptionReport
from medhiera.evaluation.captions import (
    Reports,
    as_line,
    read_json,
    read_normal,
    score_captions,
)
from medhiera.evaluation.report_cleaning import clean_report
from medhiera.evaluation.report_content import share_verbatim

CHUNK = 512
"""Training reports, or references, compared at a time: bounds the memory."""

SPLITS = ("train", "val", "test")
"""As R2Gen's file names them."""

Choice = Literal["bleu_4", "cider"]


@dataclass(frozen=True)
class Constant:
    """One report for all studies.

    Attributes:
        report: the text.
        chosen_by: the measure that it has the most of on validation, among all training reports.
        validation: that measure there.
    """

    report: str
    chosen_by: Choice
    validation: float


def find_best_constant(training: Collection[str], validation: Sequence[str], chosen_by: Choice) -> Constant:
    """Find the training report that scores highest when every validation study gets it.

    Every different training report is tried. Of those with the same score, the first is taken.

    Args:
        training: reports, at least one.
        validation: the references of the validation studies, at least one.
        chosen_by: the measure.
    """
    candidates = list(dict.fromkeys(training))
    score = _bleu_4_of_constants if chosen_by == "bleu_4" else _cider_of_constants
    counted = [count_ngrams(reference.split()) for reference in validation]
    scores = np.concatenate(
        [
            score([count_ngrams(report.split()) for report in candidates[start : start + CHUNK]], counted)
            for start in range(0, len(candidates), CHUNK)
        ]
    )
    best = int(np.argmax(scores))
    return Constant(candidates[best], chosen_by, float(scores[best]))


def _count_words(counts: Counter[NGram]) -> int:
    return sum(count for ngram, count in counts.items() if len(ngram) == 1)


def _bleu_4_of_constants(
    candidates: Sequence[Counter[NGram]], references: Sequence[Counter[NGram]]
) -> Floats:
    """Corpus BLEU-4 of each candidate as the prediction of every reference: (candidates,)."""
    # An n-gram matches at most as often as in the prediction: how many references hold it at least k times?
    holding = Counter(
        (ngram, k) for counts in references for ngram, count in counts.items() for k in range(count)
    )
    wanted = sum(map(_count_words, references))
    sums = np.zeros((2 + 2 * ORDERS, len(candidates)))
    for column, counts in enumerate(candidates):
        for ngram, count in counts.items():
            order = len(ngram) - 1
            sums[2 + order, column] += sum(holding[ngram, k] for k in range(count))
            sums[2 + ORDERS + order, column] += count * len(references)
        sums[:2, column] = _count_words(counts) * len(references), wanted
    return np.asarray(corpus_bleu(sums)[-1])


def _cider_of_constants(candidates: Sequence[Counter[NGram]], references: Sequence[Counter[NGram]]) -> Floats:
    """Mean CIDEr-D of each candidate as the prediction of every reference: (candidates,).

    The same as `cider_d` up to rounding. The clipped product of two weights is a sum over occurrences: the
    k-th of an n-gram counts where both texts have it, so all pairs are one product of sparse matrices.
    """
    frequency = Counter(ngram for counts in references for ngram in counts)
    idf = {ngram: np.log(len(references)) - np.log(found) for ngram, found in frequency.items()}
    unseen = float(np.log(len(references)))
    lengths = [np.array([max(_count_words(one) - 1, 0) for one in side]) for side in (candidates, references)]
    penalty = np.exp(-((lengths[0][:, None] - lengths[1]) ** 2) / (2 * CIDER_SIGMA**2))
    total = np.zeros(len(candidates))
    for order in range(1, ORDERS + 1):
        texts, others = (
            [{ngram: count for ngram, count in one.items() if len(ngram) == order} for one in side]
            for side in (candidates, references)
        )
        columns: dict[tuple[NGram, int], int] = {}
        wanted = _occurrences(others, columns, lambda ngram, count: count * idf[ngram] ** 2)
        said = _occurrences(texts, columns, lambda ngram, count: 1.0)
        products = (said[:, : wanted.shape[1]] @ wanted.T).toarray()
        norms = np.outer(*(_norms(side, idf, unseen) for side in (texts, others)))
        total += (np.divide(products, norms, out=products, where=norms > 0) * penalty).mean(axis=1)
    return total / ORDERS * 10


def _occurrences(
    texts: Sequence[Mapping[NGram, int]],
    columns: dict[tuple[NGram, int], int],
    weight: Callable[[NGram, int], float],
) -> csr_array:
    """One row a text, one column for the k-th occurrence of an n-gram; new ones are added to `columns`."""
    cells = [
        (row, columns.setdefault((ngram, k), len(columns)), weight(ngram, count))
        for row, counts in enumerate(texts)
        for ngram, count in counts.items()
        for k in range(count)
    ]
    rows, places, values = (np.array(part) for part in zip(*cells, strict=True)) if cells else ([], [], [])
    return csr_array((values, (rows, places)), shape=(len(texts), len(columns)))


def _norms(texts: Sequence[Mapping[NGram, int]], idf: Mapping[NGram, float], unseen: float) -> Floats:
    """The Euclidean norm of each text's tf-idf weights: (texts,)."""
    squares = [sum((n * idf.get(ngram, unseen)) ** 2 for ngram, n in counts.items()) for counts in texts]
    return np.sqrt(np.array(squares, dtype=float))


def find_nearest_reports(training: Sequence[str], references: Sequence[str]) -> list[str]:
    """The training report that is most like each reference: cosine of tf-idf of n-grams of up to four words.

    A reference that stands in training word for word gets itself. Of equally near ones the first is taken.

    Args:
        training: reports, at least one with a word; the document frequencies are theirs.
        references: (studies,).

    Returns:
        (studies,).
    """
    vectorizer = TfidfVectorizer(
        tokenizer=str.split, token_pattern=None, lowercase=False, ngram_range=(1, ORDERS)
    )
    known = vectorizer.fit_transform(training)
    nearest: list[str] = []
    for start in range(0, len(references), CHUNK):
        similarity = (vectorizer.transform(references[start : start + CHUNK]) @ known.T).toarray()
        nearest += [training[row] for row in similarity.round(12).argmax(axis=1)]
    return nearest


@dataclass(frozen=True, kw_only=True)
class BaselineReport:
    """Baselines on the test studies.

    Attributes:
        studies: of each split.
        test_verbatim_in_training: share of the test references that are a training report word for word.
        constants: each way of choosing a constant report, with its scores on test.
        nearest_by_text: the training report nearest to each reference. It reads the reference: no model.
    """

    studies: dict[str, int]
    test_verbatim_in_training: float
    constants: list[tuple[Constant, CaptionReport]]
    nearest_by_text: CaptionReport


def score_baselines(
    splits: Mapping[str, Reports],
    bootstrap: Bootstrap,
    normal: Collection[str] | Mapping[str, bool] | None = None,
    clean: str | None = None,
) -> BaselineReport:
    """Choose on validation, score on test.

    Args:
        splits: "train", "val" and "test", each study id → report, as it is.
        bootstrap: over the test studies.
        normal: the normal test studies, scored apart too; see score_captions.
        clean: see clean_report.
    """
    training, validation, test = (
        {study: clean_report(report, clean) for study, report in splits[name].items()} for name in SPLITS
    )
    known = list(training.values())
    originals = dict(reversed(list(zip(known, splits["train"].values(), strict=True))))

    def score(reports: Sequence[str]) -> CaptionReport:
        predictions = dict(zip(test, reports, strict=True))
        as_they_are = {study: originals[report] for study, report in predictions.items()}
        return score_captions(
            test,
            predictions,
            bootstrap,
            training=known,
            normal=normal,
            uncleaned=(splits["test"], as_they_are),
        )

    choices: tuple[Choice, ...] = ("bleu_4", "cider")
    constants = [find_best_constant(known, list(validation.values()), choice) for choice in choices]
    references = list(test.values())
    return BaselineReport(
        studies={name: len(splits[name]) for name in SPLITS},
        test_verbatim_in_training=share_verbatim(references, known),
        constants=[(constant, score([constant.report] * len(test))) for constant in constants],
        nearest_by_text=score(find_nearest_reports(known, references)),
    )


def read_annotation(path: Path) -> dict[str, dict[str, str]]:
    """Read R2Gen's annotation.json: split → study id → report.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    found = read_json(path)
    splits: dict[str, dict[str, str]] = {}
    for name in SPLITS:
        studies = found.get(name) if isinstance(found, dict) else None
        if not isinstance(studies, list) or not studies:
            raise UserError(
                f'{path} has no list of studies "{name}"; wanted R2Gen\'s "train", "val" and "test"'
            )
        splits[name] = {}
        for number, study in enumerate(studies):
            if not isinstance(study, dict) or not all(
                isinstance(study.get(key), str) for key in ("id", "report")
            ):
                raise UserError(f'{path}: study {number} of "{name}" has no text as "id" and "report"')
            if study["id"] in splits[name]:
                raise UserError(f'{path}: the study {study["id"]!r} stands twice in "{name}"')
            splits[name][study["id"]] = study["report"]
    return splits


def main(argv: list[str]) -> None:
    """Read, clean, choose, score, print."""
    parser = build_parser()
    options = parser.parse_args(argv)
    splits = read_annotation(options.annotation)
    normal = None if options.normal is None else read_normal(options.normal)
    report = score_baselines(splits, Bootstrap(options.bootstrap_resamples), normal, options.clean)
    printed: dict[str, Any] = {
        "studies": report.studies,
        "test_verbatim_in_training": report.test_verbatim_in_training,
    }
    for constant, scores in report.constants:
        said = {"report": constant.report, "validation": constant.validation}
        printed[f"constant_by_{constant.chosen_by}"] = said | as_line(scores)
    printed["nearest_by_text"] = as_line(report.nearest_by_text)
    print(json.dumps(printed, allow_nan=False))


if __name__ == "__main__":
    run_script(main)
