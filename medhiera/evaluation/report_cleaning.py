"""How reports are cleaned before they are scored: R2Gen's rules for IU X-Ray and for MIMIC-CXR.

Below captions.py and written_reports.py; R2Gen's vocabulary is of cleaned reports too.
"""

from collections.abc import Callable

_QUOTES_AND_SLASHES = str.maketrans("", "", "\"'/\\")
_PUNCTUATION = str.maketrans("", "", ".,?;*!%^&_+():<=>@[]{}")


def clean_iu(report: str) -> str:
    """A report of IU X-Ray as R2Gen cleans it: lower case, no punctuation, " . " between sentences.

    The numbers of lists go too ("1. ", "2. "), and < = > @, which lie in a range of R2Gen's pattern; a hyphen
    stays. An empty sentence leaves two spaces, which mean nothing where words are split at white space.

    Source: R2Gen (Chen et al. 2020, arXiv:2010.16056), modules/tokenizers.py, clean_report_iu_xray.
    """
    return _clean_sentences(_halve(report, "..", 3))


def clean_mimic(report: str) -> str:
    """A report of MIMIC-CXR as R2Gen cleans it: as clean_iu, and longer runs of periods are one.

    Its underscores, which stand for what was removed, all go: R2Gen's rule for runs of them changes nothing.

    Source: the same file, clean_report_mimic_cxr.
    """
    report = _halve(report.replace("\n", " "), "__", 7)
    return _clean_sentences(_halve(_halve(report, "  ", 6), "..", 8))


def _halve(report: str, pair: str, times: int) -> str:
    """Each run of a character becomes shorter by half, so many times."""
    for _ in range(times):
        report = report.replace(pair, pair[0])
    return report


def _clean_sentences(report: str) -> str:
    report = report.replace("1. ", "")
    for before in (". ", " "):
        for number in range(2, 6):
            report = report.replace(f"{before}{number}. ", ". ")
    sentences = report.strip().lower().split(". ")
    return " . ".join(_clean_sentence(sentence) for sentence in sentences) + " ."


def _clean_sentence(sentence: str) -> str:
    # Stripped in between, as there: a space beside a removed period stays.
    return sentence.translate(_QUOTES_AND_SLASHES).strip().translate(_PUNCTUATION)


CLEANERS: dict[str, Callable[[str], str]] = {"iu": clean_iu, "mimic": clean_mimic}
"""What `--clean` may name."""


def clean_report(report: str, clean: str | None) -> str:
    """A text as it is scored; an empty one stays empty, where the cleaners would make a period of it.

    Args:
        report: written or a reference.
        clean: a key of CLEANERS; anything else leaves the text as it is.
    """
    return CLEANERS.get(clean or "", str)(report) if report.strip() else ""
