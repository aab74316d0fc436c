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
        written: whose written report names left, right or both; None in records of before it was counted.
        share_written_correct: correct / written: how many of the sides that are written are right; None where
            no written report names one.
    """

    studies: int
    correct: int
    wrong: int
    missing: int
    share_correct: float | None
    share_correct_interval: Interval
    written: int | None = None
    share_written_correct: float | None = None
    share_written_correct_interval: Interval = None


@dataclass(frozen=True, kw_only=True)
class ChexbertScores:
    """F1 of CheXbert's positive labels of the written reports against those of the references.

    A label that is not positive (blank, negative, uncertain) counts as absent. A condition that neither side
    mentions has F1 0, as scikit-learn has it, so macro averages depend on which conditions occur.

    Attributes:
        micro_f1: over all conditions and studies together.
        macro_f1: mean over the 14 conditions.
        micro_f1_five: of the five alone that CheXpert's competition scored; macro_f1_five likewise.
        f1: by condition.
        positives: studies whose reference has it, by condition.
    """

    micro_f1: float
    macro_f1: float
    micro_f1_five: float
    macro_f1_five: float
    micro_f1_interval: Interval
    macro_f1_interval: Interval
    micro_f1_five_interval: Interval
    macro_f1_five_interval: Interval
    f1: dict[str, float]
    positives: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RadGraphScores:
    """Mean over the studies of the F1 between what RadGraph finds in a written report and in its reference.

    Attributes:
        simple: sets of (words, label) of the entities.
        partial: sets of (words, label, whether it has a relation): RadGraph F1 in most papers.
        complete: sets of (words, label, relation, words of the other entity).
    """

    simple: float
    partial: float
    complete: float
    simple_interval: Interval
    partial_interval: Interval
    complete_interval: Interval


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
        abnormal: of those that are not normal, likewise; a study of which neither is known is in neither.
        meteor: METEOR 1.5, 0 to 1; None where it was not computed.
        meteor_reason: why not.
        bootstrap_resamples: behind the intervals.
        chexbert: F1 of CheXbert's labels; None where its weights were not named.
        radgraph: RadGraph F1; None where its annotations were not named.
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
    chexbert: ChexbertScores | None = None
    radgraph: RadGraphScores | None = None
