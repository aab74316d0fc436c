"""The folder that the page opens in most of its tests."""

import pytest
from page_fixtures import write_stage2


@pytest.fixture(scope="module")
def stage2(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("stage2"))
