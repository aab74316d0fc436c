"""A new run from a checkpoint of an unfinished one: normalization, lineage and averaged weights are kept."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from warm_python import warm_python

TINY = '{"embed_dim": 8, "depths": [1, 1, 1, 1]}'


def write_pictures(folder: Path, darker: int = 1) -> Path:
    folder.mkdir()
    splits = ["train"] * 8 + ["validation"] * 4 + ["test"] * 4
    for n in range(len(splits)):
        pixels = np.random.default_rng([n, darker]).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(pixels // darker).save(folder / f"{n}.png")
    rows = [f"{n}.png,{split},{n % 2}" for n, split in enumerate(splits)]
    (folder / "labels.csv").write_text("\n".join(["image,split,Edema", *rows]))
    return folder


def train(root: Path, data: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [
        "train_cls.py", "configs/cls_smoke.yaml", "--data_dir", str(data), "--output_dir", str(output),
        "--build_dir", str(output.parent / "build"), "--model_overrides", TINY, "--image_size", "64",
        "--use_cpu", "true", "--max_steps", "4", "--save_steps", "2", "--eval_steps", "2",
        "--save_total_limit", "5", "--bootstrap_resamples", "0", *more,
    ]  # fmt: skip
    return subprocess.run([warm_python(), *words], cwd=root, text=True, capture_output=True)


def normalization(folder: Path) -> list[float]:
    content = json.loads((folder / "preprocessor_config.json").read_text())
    return [content["image_mean"][0], content["image_std"][0]]


def test_a_checkpoint_brings_what_its_run_began_with(tmp_path: Path, root: Path) -> None:
    run = tmp_path / "run"
    done = train(root, write_pictures(tmp_path / "bright"), run, "--ema_decay", "0.9")
    assert done.returncode == 0, done.stderr
    expected = normalization(run)
    for name in ("metrics.json", "README.md", "model.safetensors", "preprocessor_config.json"):
        (run / name).unlink()  # as one that was killed
    dark = write_pictures(tmp_path / "dark", darker=4)
    done = train(root, dark, tmp_path / "next", "--model_name_or_path", str(run / "checkpoint-2"))
    assert done.returncode == 0, done.stderr
    assert "training starts from the averaged weights" in done.stderr
    assert normalization(tmp_path / "next") == expected
    lineage = json.loads((tmp_path / "next" / "metrics.json").read_text())["lineage"]
    assert lineage["started_from"].startswith("checkpoint-2 of stage 2 (from random weights; ")
    assert lineage["license"] == "apache-2.0"
    assert [before["stage"] for before in lineage["leakage_before"]] == [2]

    shutil.copytree(run / "checkpoint-2", tmp_path / "alone")
    done = train(root, dark, tmp_path / "other", "--model_name_or_path", str(tmp_path / "alone"))
    assert done.returncode != 0
    assert "is a checkpoint, and no run.json beside it" in done.stderr
