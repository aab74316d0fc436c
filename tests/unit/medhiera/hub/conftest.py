"""The record that most tests of cards start from."""

import pytest
from stage_records import classification_record

from medhiera.hub.record import Lineage


@pytest.fixture
def record():
    """Stage 2 from ImageNet weights by way of stage 1."""
    started_from = "stage 1 (facebook/hiera-tiny-224-mae-hf)"
    lineage = Lineage(started_from, "cc-by-nc-4.0", None, ["classifier.bias"], [], [])
    return classification_record(lineage=lineage)
