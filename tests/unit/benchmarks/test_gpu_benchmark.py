"""The GPU benchmark's processes, budget and table; on a CPU, at a toy's size."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from bare_machine import bare_environment

from benchmarks import gpu_run
from benchmarks.gpu_plan import CPU, GPU, Group, groups
from benchmarks.gpu_report import by_round, goals, pick, render, share_of_products
from benchmarks.gpu_run import Run, Worker, run_group, run_module
from benchmarks.hiera_models import (
    BUILDERS,
    MODES,
    Case,
    checked_values,
    make_step,
    product_work,
    relative_difference,
)

ROOT = Path(__file__).parents[3]
CPU_DEVICE = torch.device("cpu")
TOY_STEP = Case("train", "toy", 64, 2, "bf16_weights", has_optimizer=True)


def entry(name, precision, mode, milliseconds, **fields):
    case = {
        "task": "train",
        "size": "tiny",
        "pixels": 224,
        "batch": 128,
        "precision": precision,
        "mode": mode,
    }
    measured = {"milliseconds": milliseconds, "gflop": 47.0, "difference": 0.0, "memory_gb": 8.0,
                "kernels": 800, "first_seconds": 60.0}  # fmt: skip
    return {"label": f"{name}, {mode}", "name": name, "case": case} | measured | fields


def content(**fields):
    train = [
        entry("ours", "bf16_weights", "reduce-overhead", [32.0, 16.0]),
        entry("hiera-optim", "bf16_weights", "reduce-overhead", [64.0, 16.0]),
        entry("hiera-optim", "bf16", "eager", [64.0, 64.0]),
        entry("ours", "bf16_weights", "eager", [32.0, 64.0]),
        entry("meta", "bf16", "eager", [96.0, 96.0]),
    ]
    return {
        "machine": {"name": "A card", "versions": {"torch": "2.11.0"}}, "command": "python", "seconds": 500.0,
        "square_tflops": {"bf16": 800.0, "tf32": 400.0, "fp32": 50.0}, "trainer": None, "loader": None,
        "groups": [{"key": "train", "title": "Training step", "contenders": train}], "left_out": [],
    } | fields  # fmt: skip


def test_the_goals_stand_beside_what_was_measured_by_round():
    rows = {what.split(",")[0] + what[-9:]: measured for what, _, measured in goals(content())}
    assert list(rows.values())[:5] == [
        "1.50 (1.00–2.00)",  # 64/32 and 16/16
        "1.50 (1.00–2.00)",  # 64/32 and 64/64
        "4.50 (3.00–6.00)",
        "31.3%",  # 128 images in 24 ms, 47 GFLOP each, of 800 TFLOP/s
        "not measured",
    ]
    trainer = {"images_per_second": [[4000.0, 3800.0], [4000.0, 3600.0]]}
    loader = {"mae_modern, ours, raw": {"both cores": [21000.0, 25000.0, 23000.0]}}
    assert [measured for _, _, measured in goals(content(trainer=trainer, loader=loader))[5:]] == [
        "0.93 (0.90–0.95)", "23000 (21000–25000)", "not measured"
    ]  # fmt: skip


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "gpu").glob("*.json")), ids=lambda file: file.stem)
def test_the_page_of_a_card_is_what_its_figures_say(file):
    page = file.with_suffix(".md").read_text(encoding="utf-8")
    assert page == render(json.loads(file.read_text(encoding="utf-8"))), (
        f"python -m benchmarks.gpu_report {file.relative_to(ROOT)} writes it anew"
    )


def test_a_model_that_computes_something_else_or_failed_wins_nothing_and_is_named():
    one = content()
    [group] = one["groups"]
    group["contenders"][0]["difference"] = 0.5
    failed = {"label": "ours, max-autotune", "fault": "ended with status -6: boom"}
    group["contenders"].append(failed | {"name": "ours", "case": asdict(TOY_STEP)})
    assert pick(group["contenders"], "ours")["case"]["mode"] == "eager"
    page = render(one)
    assert "ours, max-autotune: ended with status -6: boom" in page
    assert "computes something else: relative difference 5.0e-01" in page
    assert page.count("| ours | bf16_weights | reduce-overhead |") == 0


def test_other_batches_are_compared_by_images():
    small, large = entry("ours", "bf16", "eager", [10.0]), entry("ours", "bf16", "eager", [40.0])
    large["case"] = large["case"] | {"batch": 512}
    assert by_round(large, small) == [1.0]
    assert share_of_products(small, {"bf16": 800.0}) == share_of_products(large, {"bf16": 800.0})


def test_a_difference_is_relative_to_each_element():
    """Sums of 5e-6 once passed any bound of 3e-2."""
    assert relative_difference([5e-6], [4e-6]) == pytest.approx(0.25)
    assert relative_difference([1.0, 1e-9], [1.0, 0.0]) == pytest.approx(2**0.5 * 1e-9)
    assert relative_difference([1.0, 2.0], [1.0, float("nan")]) == float("inf")
    assert relative_difference([float("nan")], [1.0]) == float("inf")


@pytest.mark.parametrize("precision", ["bf16", "bf16_weights", "tf32"])
def test_libraries_compute_the_same_step(precision):
    found = {}
    for name in ("ours", "meta") + (("transformers",) if precision != "bf16_weights" else ()):
        case = Case("train", "toy", 64, 2, precision, has_optimizer=True)
        step = make_step(name, case, CPU_DEVICE)
        found[name] = [checked_values(step()), checked_values(step())]
    for name, (first, second) in found.items():
        assert relative_difference(first, found["ours"][0]) < 1e-2, name
        assert second[0] < first[0], f"{name}: its optimizer changes nothing"


def test_logits_are_large_enough_to_be_compared_and_depend_on_the_image():
    case = Case("infer", "toy", 64, 4, "fp32")
    values = {name: make_step(name, case, CPU_DEVICE)() for name in ("ours", "timm", "meta", "transformers")}
    assert values["ours"].std(0).mean() > 1
    for name, logits in values.items():
        assert relative_difference(checked_values(logits), checked_values(values["ours"])) < 2e-4, name


def test_each_model_is_measured_by_its_own_products():
    case = Case("train", "toy", 64, 8, "bf16_weights", "reduce-overhead", has_optimizer=True)
    work = {name: product_work(name, case, CPU_DEVICE) for name in ("ours", "meta")}
    assert work["ours"] < 0.95 * work["meta"]  # the last decoder block, head and loss on masked tokens alone


def test_what_runs_on_a_gpu_is_what_the_goals_compare():
    plan = {group.key: group for group in groups(GPU)}
    batches = {case.batch for group in plan.values() for _, case in group.contenders}
    modes = {case.mode for group in plan.values() for _, case in group.contenders}
    assert batches == {32, 64, 128, 256, 512} and modes == set(MODES)
    assert all(
        case.has_optimizer == (case.task == "train") for g in plan.values() for _, case in g.contenders
    )
    assert {name for group in plan.values() for name, _ in group.contenders} == set(BUILDERS)
    assert all(case.size == "toy" for group in groups(CPU) for _, case in group.contenders)


@pytest.mark.slow
def test_models_take_turns_in_processes_of_their_own_and_one_that_dies_does_not_end_the_rest(
    tmp_path, monkeypatch
):
    """With no other packages than a bare machine has."""
    for name, value in bare_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    case = Case("infer", "toy", 64, 2, "fp32")
    never = Case("infer", "no such size", 64, 2, "fp32")
    pair = Group("infer", "Classifier", [("ours", case), ("ours", never), ("hiera-optim", case)], 0)
    ours, failed, absent = run_group(pair, "cpu", 2, time.monotonic() + 300)
    assert len(ours["milliseconds"]) == 2 and ours["difference"] == 0 and ours["gflop"] > 0
    assert failed["fault"].startswith("ended with status 1: ") and "no such size" in failed["fault"]
    assert "takes Meta's MAE only" in absent["fault"]
    worker = Worker({"name": "ours", "case": asdict(case), "device": "cpu"})
    try:
        assert "values" in worker.answer(time.monotonic() + 300)
        os.kill(worker._process.pid, signal.SIGKILL)  # as the driver does after an illegal access
        assert worker.ask(1, time.monotonic() + 60)["fault"] == "ended with status -9: no message"
    finally:
        worker.end()


def test_a_model_that_is_not_ready_in_time_is_ended():
    pair = Group("infer", "Classifier", [("ours", Case("infer", "toy", 64, 1, "fp32"))], 0)
    [found] = run_group(pair, "cpu", 1, time.monotonic())
    assert found["fault"] == "not ready in time"


def test_what_the_budget_does_not_allow_for_is_left_out_and_said(tmp_path):
    options = argparse.Namespace(device="cpu", minutes=0.1, output=tmp_path)
    run = Run(options, ["--minutes", "0.1"])
    run.run(["train", "trainer", "loader"])
    [file] = tmp_path.glob("*.json")
    record = json.loads(file.read_text())
    assert record["groups"] == [] and record["command"].endswith("gpu_run --minutes 0.1")
    assert [part for part, _ in record["left_out"]] == ["train", "trainer", "loader"]
    assert "- train: 6 s were left, and it takes some 120" in file.with_suffix(".md").read_text()


def test_a_part_without_a_name_is_refused():
    with pytest.raises(SystemExit, match="no part is called nothing; there are infer, train"):
        gpu_run.main(["--device", "cpu", "--parts", "nothing"])


def test_a_part_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "failing.py").write_text("import no_such_package")
    (tmp_path / "endless.py").write_text("import time; time.sleep(100)")
    with pytest.raises(RuntimeError, match="^ModuleNotFoundError: No module named 'no_such_package'$"):
        run_module("failing", [], time.monotonic() + 60)
    with pytest.raises(RuntimeError, match="out of time"):
        run_module("endless", [], time.monotonic())


def test_make_asks_for_the_wheels():
    if shutil.which("make") is None:
        pytest.skip("no make")
    done = subprocess.run(
        ["make", "bench-gpu", f"PYTHON={sys.executable}"], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 2 and "make gpu-bundle writes gpu_bundle/" in done.stderr


@pytest.mark.gpu
@pytest.mark.slow
def test_the_first_comparison_on_a_gpu(tmp_path):
    gpu_run.main(["--minutes", "5", "--output", str(tmp_path), "--parts", "train"])
    [file] = tmp_path.glob("*.json")
    [group] = json.loads(file.read_text())["groups"]
    ours = [one for one in group["contenders"] if one["name"] == "ours"]
    assert all(
        one["kernels"] > 100 and one["memory_gb"] > 1 and len(one["milliseconds"]) == 5 for one in ours
    )
