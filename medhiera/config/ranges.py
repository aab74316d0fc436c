"""The range of every number of a config: one rule that refuses what lies outside, before any data is read.

Stands below arguments.py, whose numeric fields each declare their Range; those of transformers' arguments
are here. parser.py checks the words of file and command line against them.
"""

import math
from dataclasses import dataclass

LARGEST = 2**31 - 1
"""Of whole numbers without another limit: what a 32-bit integer of a library holds."""


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes; never NaN, never infinite.

    Attributes:
        least: the smallest.
        most: the largest; inf for every finite one.
        above: `least` itself is outside.
        below: `most` itself is outside.
        also: one more number, outside of these.
        share: numbers below 1 are a share of the run's steps, those from 1 up whole numbers of steps.
        hint: what some of them mean, or an example.
    """

    least: float = 0
    most: float = LARGEST
    above: bool = False
    below: bool = False
    also: float | None = None
    share: bool = False
    hint: str = ""

    def __contains__(self, number: float) -> bool:
        if number == self.also:
            return True
        if not math.isfinite(number) or number < self.least or number > self.most:
            return False
        if (self.above and number == self.least) or (self.below and number == self.most):
            return False
        return not self.share or number < 1 or float(number).is_integer()

    def in_words(self, is_whole: bool) -> str:
        """What is wanted: `a whole number from 1 to 64`.

        Args:
            is_whole: of an integer field.
        """
        noun = "a whole number" if is_whole else "a share" if self.most == 1 else "a finite number"
        least, most = _plain(self.least), _plain(self.most)
        if self.above and self.below:
            ends = f"between {least} and {most}"
        elif math.isinf(self.most):
            ends = f"above {least}" if self.above else f"from {least} up"
        elif self.above:
            ends = f"above {least} and at most {most}"
        else:
            ends = f"from {least} to {'below ' if self.below else ''}{most}"
        shares = " (below 1: a share of the steps; from 1 up: whole steps)" if self.share else ""
        return f"{noun} {ends}{shares}" + (f" ({self.hint})" if self.hint else "")


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


COUNT = Range(1)
COUNT_OR_NONE = Range(0)
ABOVE_ZERO = Range(0, math.inf, above=True)
FROM_ZERO = Range(0, math.inf)
SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, below=True)
STEPS = Range(0, LARGEST, above=True, share=True)

TRAINING_RANGES = {
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "num_train_epochs": Range(0, 1_000_000, above=True),
    "max_steps": Range(1, also=-1, hint="or -1, where num_train_epochs says how long"),
    "learning_rate": ABOVE_ZERO,
    "warmup_steps": Range(0, LARGEST, share=True),
    "weight_decay": FROM_ZERO,
    "adam_beta1": BELOW_ONE,
    "adam_beta2": BELOW_ONE,
    "adam_epsilon": ABOVE_ZERO,
    "max_grad_norm": Range(0, math.inf, hint="0: no clipping"),
    "label_smoothing_factor": BELOW_ONE,
    "neftune_noise_alpha": FROM_ZERO,
    "torch_empty_cache_steps": COUNT,
    "logging_steps": STEPS,
    "eval_steps": STEPS,
    "eval_delay": FROM_ZERO,
    "eval_accumulation_steps": COUNT,
    "save_steps": STEPS,
    "save_total_limit": COUNT,
    "seed": Range(0, 2**32 - 1),
    "data_seed": Range(0, 2**32 - 1),
    "dataloader_num_workers": Range(0, 4096),
    "dataloader_prefetch_factor": Range(1, 4096),
    "ddp_bucket_cap_mb": COUNT,
    "ddp_timeout": COUNT,
    "local_rank": Range(0, also=-1),
}
"""Of transformers' TrainingArguments, by field."""
