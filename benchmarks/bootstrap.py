"""How long the intervals of a whole test split take: 25,596 images × 15 findings of 2,797 patients.

    python -m benchmarks.bootstrap

Random scores and labels, as many as ChestX-ray14's official test list has; speed only.
"""

import argparse
import time

import numpy as np

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions

IMAGES, PATIENTS = 25_596, 2_797
# Positive images of the official test list (Wang et al. 2017), then No Finding, roughly.
SHARES = [
    0.128,
    0.042,
    0.071,
    0.036,
    0.182,
    0.043,
    0.017,
    0.003,
    0.239,
    0.068,
    0.063,
    0.045,
    0.022,
    0.104,
    0.385,
]


def main() -> None:
    """Time it once, on one thread of numpy or as many as it takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    labels = (generator.random((IMAGES, len(SHARES))) < SHARES).astype(float)
    scores = generator.normal(size=labels.shape) + labels
    patients = [str(number) for number in generator.integers(PATIENTS, size=IMAGES)]
    names = [str(column) for column in range(len(SHARES))]
    predictions = Predictions(scores, labels, names, patients)
    for resamples in (0, options.resamples):
        started = time.perf_counter()
        rank_findings(predictions, Bootstrap(resamples))
        print(f"{IMAGES:,} × {len(SHARES)}, {resamples:,} resamples: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
