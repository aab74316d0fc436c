"""The interval of a share of images, such as accuracy, where all or none may be right.

Stands on bootstrap.py, below thresholds.py and exclusive.py.
"""

from scipy.stats import binomtest

from medhiera.evaluation.bootstrap import Floats, interval


def share_interval(draws: Floats, right: int, images: int) -> list[float] | None:
    """Return that of the resamples; exact where all or none are right: resampling cannot leave 0 or 1."""
    if images and right in (0, images):
        limits = binomtest(right, images).proportion_ci(method="exact")
        return [float(limits.low), float(limits.high)]
    return interval(draws)
