"""The pixel mean and deviation that a stage starts with: the data's, or those of what it starts from.

Below run.py.
"""

import logging

from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.hub.lineage import record_before
from medhiera.hub.record import BegunRecord
from medhiera.layout import is_checkpoint
from medhiera.loading import load_processor

logger = logging.getLogger(__name__)


def choose_preprocessing(
    source: str | None, image_size: int, resize_size: int | None, mean: float, std: float
) -> Preprocessing:
    """The normalization of the stage or checkpoint that training starts from, or the data's own.

    Args:
        source: the folder or Hub id whose normalization is kept, or None.
        image_size: side of the crop in pixels.
        resize_size: shorter side before it.
        mean: of the data, in units of [0, 1].
        std: of the data.
    """
    assert resize_size is not None, "parse_config fills it in"
    inherited = kept_normalization(source) if source else None
    if inherited is not None:
        mean, std = inherited
        logger.info("normalization kept of %s: mean %.4f, std %.4f", source, mean, std)
    return Preprocessing(image_size, resize_size, mean, std)


def kept_normalization(source: str) -> tuple[float, float] | None:
    """Mean and standard deviation of a stage or of the run of a checkpoint; None of weights of others.

    Args:
        source: a folder or Hub id.

    Raises:
        UserError: its record or its processor cannot be used; see record_before.
    """
    record = record_before(source)
    if not isinstance(record, BegunRecord):
        return None  # stage 0's is of photographs
    of_run = record.preprocessing
    inherited = of_run if is_checkpoint(source) else stage_preprocessing(source)
    return inherited.mean, inherited.std


def stage_preprocessing(source: str) -> Preprocessing:
    """What the preprocessor_config.json of a stage says.

    Raises:
        UserError: it cannot be used, or is not one that a stage writes.
    """
    processor = load_processor(source)
    try:
        return Preprocessing.from_processor(processor)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
