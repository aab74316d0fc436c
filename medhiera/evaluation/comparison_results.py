"""What a comparison of two models returns: plain dataclasses, as those of results.py.

comparison.py makes them; results.py, whose report holds one, stands on them.
"""

from dataclasses import dataclass

from medhiera.evaluation.bootstrap import Difference


@dataclass(frozen=True, kw_only=True)
class FindingComparison:
    """Two models on one finding.

    Attributes:
        auroc: None where there is no value.
        average_precision: None where there is no value.
        delong_p_value: of the AUROC; takes every image for a patient of its own.
        reason: why there is no value.
        has_few_cases: too few patients on one side for a p-value; False in records of earlier versions.
    """

    auroc: Difference | None = None
    average_precision: Difference | None = None
    delong_p_value: float | None = None
    reason: str | None = None
    has_few_cases: bool = False


@dataclass(frozen=True, kw_only=True)
class MeanComparison:
    """Two models by their means.

    Attributes:
        auroc: of the mean AUROCs.
        average_precision: of the mean average precisions.
        has_few_cases: a finding in the means has, see FindingComparison.
    """

    auroc: Difference
    average_precision: Difference
    has_few_cases: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        mean: over all findings with a value; None where none has.
        diseases: the same without No Finding.
        findings: by name.
        images: of the split.
        bootstrap_resamples: of patients.
        other: the file and its folder, without the path, that the second model's scores were read from; None
            where they were not read, as a member's of several models, and in records of earlier versions.
        other_sha256: of that file's content, in hexadecimal digits; None as `other`.
    """

    mean: MeanComparison | None
    diseases: MeanComparison | None
    findings: dict[str, FindingComparison]
    images: int
    bootstrap_resamples: int
    other: str | None = None
    other_sha256: str | None = None
