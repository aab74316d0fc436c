"""The interval of a share of images, such as accuracy, where all or none may be right.

Stands on bootstrap.py, below thresholds.py, exclusive.py, localization.py and report_content.py.
"""

from scipy.stats import binomtest

from medhiera.evaluation.bootstrap import Floats, interval


def share_interval(draws: Floats, right: Floats, images: Floats) -> list[float] | None:
    """Return that of the resamples; where all images are right or none, which resampling cannot leave, exact.

    The exact one (Clopper and Pearson 1934) counts each patient with such an image once: the images of one
    are no independent cases.

    Args:
        draws: (resamples,), the share in each; NaN where no image is drawn.
        right: (patients,), images of each that are right; or studies, where these are resampled.
        images: (patients,), images of each that count.
    """
    patients = int((images > 0).sum())
    if patients and right.sum() in (0, images.sum()):
        limits = binomtest(patients if right.sum() else 0, patients).proportion_ci(method="exact")
        return [float(limits.low), float(limits.high)]
    return interval(draws)
