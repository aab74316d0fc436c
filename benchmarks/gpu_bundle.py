"""A folder of wheels that a GPU machine without a network lacks: `make bench-gpu`, `make test-gpu`.

    python -m benchmarks.gpu_bundle gpu_bundle

The machine is taken to have PyTorch with transformers, accelerate and timm, and the usual numeric packages
(PRESENT): those alone are 121 MB (pyarrow 55, scipy 35, pandas 12, matplotlib 10, scikit-learn 9), and such
images have them. Where one is missing after all, the model's part runs without it, and the parts that
need it are left out and named. What is brought is pinned by constraints.txt, installed without its needs, and
so never replaces the machine's PyTorch.
"""

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MB = 60
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)] + ["manylinux2014_x86_64"]

PRESENT = frozenset(
    """
    accelerate aiohttp certifi charset-normalizer click contourpy cycler filelock fonttools fsspec
    h11 hf-xet httpcore httpx huggingface-hub idna jinja2 joblib kiwisolver markupsafe matplotlib
    mpmath narwhals networkx numpy packaging pandas pillow psutil pyarrow pygments pyparsing
    python-dateutil pyyaml regex requests rich safetensors scikit-learn scipy setuptools shellingham
    six sympy threadpoolctl timm tokenizers torch torchvision tqdm transformers triton typer tzdata
    urllib3 xxhash
    """.split()
)
"""Packages of the machine, with those that they need."""

OF_TESTS = ("jsonschema", "pydicom")
"""What `make test-gpu` imports beside the project's dependencies and pytest."""
PEERS = ("hiera-transformer", "hiera-optim")
NOT_NEEDED = frozenset({"optuna"})
"""Dependencies that no benchmark imports: the sweep's."""


def needs_of(name: str) -> list[str]:
    """What an installed package needs on the machine, by canonical name."""
    environment = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": ""}
    requirements = [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return [
        canonicalize_name(one.name)
        for one in requirements
        if one.marker is None or one.marker.evaluate(environment)
    ]


def missing_packages(wanted: Iterable[str]) -> list[str]:
    """Those of `wanted`, and all that they need, which the machine lacks; sorted.

    Args:
        wanted: canonical names, installed here or among PEERS.
    """
    missing: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name in PRESENT or name in NOT_NEEDED or name in missing:
            continue
        missing.add(name)
        if name not in PEERS:  # what those need, PyTorch, timm and triton, is there
            waiting += needs_of(name)
    return sorted(missing)


def project_packages() -> list[str]:
    """What the project depends on, by canonical name."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [canonicalize_name(Requirement(line).name) for line in content["project"]["dependencies"]]


def pinned(names: Iterable[str]) -> list[str]:
    """Names with their versions of constraints.txt.

    Raises:
        SystemExit: one is not pinned there.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    versions = {canonicalize_name(line.split("==")[0]): line for line in lines}
    absent = [name for name in names if name not in versions]
    if absent:
        raise SystemExit(f"constraints.txt pins no {', '.join(absent)}")
    return [versions[name] for name in names]


def main() -> None:
    """Download the wheels into a fresh folder and print their sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="its wheels are replaced")
    folder: Path = parser.parse_args().folder
    if folder.exists() and any(path.suffix != ".whl" for path in folder.iterdir()):
        raise SystemExit(f"{folder} holds something else than wheels; name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp", "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    names = missing_packages([*project_packages(), *PEERS, *OF_TESTS])
    subprocess.run([*command, *pinned(names)], check=True)
    sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(folder.iterdir())}
    for name, size in sizes.items():
        sys.stdout.write(f"{size:6.2f} MB  {name}\n")
    total = sum(sizes.values())
    sys.stdout.write(f"{total:6.2f} MB  in {folder}\n")
    if total > LIMIT_MB:
        raise SystemExit(f"more than {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
