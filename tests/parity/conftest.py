"""Meta's package, imported with the one warning it cannot help."""

import warnings
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def meta_hiera() -> ModuleType:
    with warnings.catch_warnings():
        # It imports timm.models.layers, which timm has moved.
        warnings.simplefilter("ignore", FutureWarning)
        hiera = pytest.importorskip("hiera")
    return hiera
