"""A run resumes with the images and labels that it began with, whatever their number."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from warm_python import warm_python

TINY = '{"embed_dim": 8, "depths": [1, 1, 1, 1]}'


def write_table(folder: Path, splits: list[str], flip: int = 0) -> None:
    rows = [f"{n}.png,{split},{(n + flip) % 2}" for n, split in enumerate(splits)]
    (folder / "labels.csv").write_text("\n".join(["image,split,Edema", *rows]))


def train(root: Path, folder: Path, kind: str, *more: str) -> str:
    """What a training command says at its end: nothing, or why it is refused."""
    words = [
        f"train_{kind}.py", f"configs/{kind}_smoke.yaml", "--data_dir", str(folder), "--output_dir",
        str(folder.parent / kind), "--build_dir", str(folder.parent / "build"), "--model_overrides", TINY,
        "--image_size", "64", "--use_cpu", "true", "--max_steps", "4", "--save_steps", "2",
        "--eval_steps", "2", "--save_total_limit", "5", *more,
    ]  # fmt: skip
    done = subprocess.run([warm_python(), *words], cwd=root, text=True, capture_output=True)
    return "" if done.returncode == 0 else done.stderr


def test_other_images_or_labels_in_the_same_number_are_refused(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    splits = ["train"] * 16 + ["validation"] * 8 + ["test"] * 8
    for n in range(len(splits)):
        pixels = np.random.default_rng(n).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    write_table(folder, splits)
    for kind in ("cls", "mae"):
        assert train(root, folder, kind) == ""
        shutil.rmtree(tmp_path / kind / "checkpoint-4")  # as one that was killed
        (tmp_path / kind / "metrics.json").unlink()
    resumed = ("--resume_from_checkpoint", "true")
    write_table(folder, splits[8:16] + splits[24:] + splits[16:24] + splits[:8])
    assert "digest of the train rows (image_id) was" in train(root, folder, "mae", *resumed)
    assert "digest of the train rows (image_id, labels) was" in train(root, folder, "cls", *resumed)
    write_table(folder, splits, flip=1)
    assert train(root, folder, "mae", *resumed) == ""  # learns of no label
    assert "digest of the validation rows (image_id, labels) was" in train(root, folder, "cls", *resumed)
    write_table(folder, splits)
    assert "checkpoint-2 is of a run with other settings (image_size was 64, now 96" in train(
        root, folder, "cls", *resumed, "--image_size", "96"
    )
    assert train(root, folder, "cls", *resumed) == ""
