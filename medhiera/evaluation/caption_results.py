"""What captions.py returns of a model's reports: plain dataclasses, as results.py has them for findings.

A value that cannot be computed is None. An interval is [low, high] at 95 %, over studies, or None where none
was asked for; `X_interval` is that of the field `X`.
"""

from dataclasses import dataclass

Interval = list[float] | None


@dataclass(frozen=True, kw_only=True)
class CaptionScores:
    """The measures of some studies.

    Attributes:
        studies: how many.
        bleu_1: of n-grams of one word, 0 to 1; bleu_2 to bleu_4 with those of up to two, three and four.
        rouge_l: mean over the studies, 0 to 1, β 1.2.
        cider: CIDEr-D, mean over the studies, 0 to 10.
    """

    studies: int
    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    cider: float
    bleu_1_interval: Interval
    bleu_2_interval: Interval
    bleu_3_interval: Interval
    bleu_4_interval: Interval
    rouge_l_interval: Interval
    cider_interval: Interval


@dataclass(frozen=True, kw_only=True)
class Laterality:
    """Sides in the studies whose reference names one (report_content.py has the rule).

    Attributes:
        studies: whose reference names left, right or both.
        correct: the written report names exactly the same sides.
        wrong: it names others.
        missing: it names none.
        share_correct: correct / studies; None where no reference names a side.
    """

    studies: int
    correct: int
    wrong: int
    missing: int
    share_correct: float | None
    share_correct_interval: Interval


@dataclass(frozen=True, kw_only=True)
class CaptionReport:
    """What is said of a model's reports beside their references.

    Attributes:
        scores: of all studies.
        distinct: how many different reports were written.
        verbatim_in_training: share of the written reports that are a training report word for word; None
            where no training reports were given.
        laterality: left and right.
        normal: the scores of the normal studies alone, under the document frequencies of all; None where the
            caller did not name them, or there are none.
        abnormal: of all others, likewise.
        meteor: METEOR 1.5, 0 to 1; None where it was not computed.
        meteor_reason: why not.
        bootstrap_resamples: behind the intervals.
    """

    scores: CaptionScores
    distinct: int
    verbatim_in_training: float | None
    laterality: Laterality
    normal: CaptionScores | None
    abnormal: CaptionScores | None
    meteor: float | None
    meteor_reason: str | None
    bootstrap_resamples: int
