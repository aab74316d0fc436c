"""The benchmark runs, compares losses first, and writes its JSON."""

import json
import subprocess
from pathlib import Path

import pytest
from warm_python import warm_python

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_benchmark_compares_then_times(tmp_path):
    options = ["--sizes", "tiny@64", "--batch-sizes", "1", "--precisions", "fp32", "--repeats", "1"]
    process = subprocess.run(
        [
            warm_python(),
            "-W",
            "ignore",
            "-m",
            "benchmarks.model_throughput",
            *options,
            "--json",
            str(tmp_path / "out"),
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    content = json.loads((tmp_path / "out").read_text())
    losses = {
        result["model"]: result["check"][0]
        for result in content["results"]
        if result["case"]["task"] == "train"
    }
    assert {"ours", "transformers"} <= losses.keys()
    assert max(losses.values()) - min(losses.values()) < 1e-4
    assert "| train tiny 64 ×1 fp32 eager | ours |" in process.stdout
