"""What every test shares: no network, caches inside the clone, and its part of the cores."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # read when torch is loaded, here and by the commands that tests run
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

import torch  # noqa: E402 -- it reads the number of threads, set above, as it is loaded

# A script starts what it puts in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was printed as any process can be sent it: file names need not be UTF-8."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections
    ]
    return report


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


@pytest.fixture(scope="session")
def kermany_folder(mini_cocktail: Path) -> Path:
    """Kermany's chest X-rays of children as they are published: splits, and in each two classes."""
    folder = mini_cocktail.parent / "kermany" / "chest_xray"
    if not folder.is_dir():
        pytest.skip("no real class folders: ../shared/kermany is absent")
    return folder
