"""What every test shares: no network, and caches inside the clone."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HOME", str(ROOT / ".cache" / "huggingface"))
os.environ.setdefault("MPLCONFIGDIR", str(ROOT / ".cache" / "matplotlib"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a CUDA device, tests marked gpu are skipped, and said to be."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone."""
    return ROOT


@pytest.fixture(scope="session")
def mini_cocktail(root: Path) -> Path:
    """Real images in the four sources' layouts, where they stand beside the clone."""
    folder = Path(os.environ.get("MEDHIERA_REALDATA", root.parent / "shared" / "mini_cocktail"))
    if not folder.is_dir():
        pytest.skip("no real images: ../shared/mini_cocktail is absent and MEDHIERA_REALDATA is not set")
    return folder
