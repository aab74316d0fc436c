"""The bundle holds what the project needs and a bare GPU machine lacks; nothing else is imported there."""

import os
import re
import subprocess
import sys
from importlib.metadata import requires

from bare_machine import ROOT, bare_environment, hidden_modules
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu_bundle import NOT_NEEDED, PEERS, PRESENT, missing_packages, pinned, project_packages


def test_what_a_bare_machine_lacks_is_brought_and_its_pytorch_is_not():
    names = missing_packages([*project_packages(), *PEERS])
    assert {"datasets", "evaluate", "nibabel", "hiera-transformer", "hiera-optim"} <= set(names)
    assert not PRESENT & set(names) and len(set(names)) == len(names)
    assert {line.split("==")[0].lower().replace("_", "-") for line in pinned(names)} == set(names)


def test_whatever_a_brought_package_needs_is_there_or_brought():
    names = set(missing_packages(project_packages()))
    for name in names:
        for line in requires(name) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"python_version": "3.12", "extra": ""}):
                assert canonicalize_name(need.name) in names | PRESENT | NOT_NEEDED, f"{name} needs {need}"


def test_the_tests_and_benchmarks_of_a_gpu_ask_for_nothing_else(tmp_path):
    assert {"mypy", "hypothesis", "xdist"} <= hidden_modules()
    assert not {"torch", "datasets", "nibabel", "timm", "matplotlib", "pytest"} & hidden_modules()
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()]
    options = ["-p", "no:cacheprovider", "--collect-only", "-q", "-m", "gpu", *map(str, files)]
    modules = ("benchmarks.data_throughput", "benchmarks.short_attention", "benchmarks.trainer_overhead")
    program = f"import {', '.join(modules)}, pytest, sys; sys.exit(pytest.main({options!r}))"
    environment = os.environ | bare_environment(tmp_path)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    collected = re.search(r"(\d+)/\d+ tests collected", done.stdout)
    assert collected and int(collected[1]) > 20
