"""Stage 1 in high definition, small: masks that follow contours, one channel, tokens of 32 pixels."""

import json

import numpy as np
import pytest
import torch
from killed_runs import kill_after_checkpoint, logged, weights
from loopback_hub import LoopbackHub
from stage_folders import run

from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining

# huggingface_hub 2.4 uploads with an argument that its HTTP library has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

OVERRIDES = {
    "num_channels": 1, "num_query_pool": 3, "position_interpolation": "windowed", "embed_dim": 8,
    "depths": [1, 1, 1, 1], "decoder_hidden_size": 16, "decoder_depth": 1, "decoder_num_heads": 2,
}  # fmt: skip
HD = (
    "--image_size", "256", "--resize_size", "256", "--mask_ratio", "0.75", "--mask_region", "contour",
    "--model_overrides", json.dumps(OVERRIDES), "--gradient_checkpointing", "true",
    "--random_crop_scale", "0.5", "--horizontal_flip", "true", "--per_device_train_batch_size", "4",
    "--max_steps", "24", "--save_steps", "4", "--eval_steps", "4", "--logging_steps", "3",
    "--max_train_images", "64", "--max_eval_images", "16", "--dataloader_num_workers", "2",
)  # fmt: skip

# Runs where the repository is not seen.
LOAD_BACK = """
import importlib.util, json, torch
from transformers import AutoModelForPreTraining
assert importlib.util.find_spec("modeling_hiera_mae") is None
pixels = torch.linspace(-1, 1, 256 * 256).reshape(1, 1, 256, 256).sin()
losses = []
for flag in (False, True):
    model, info = AutoModelForPreTraining.from_pretrained(
        "tester/hd", trust_remote_code=flag, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    with torch.no_grad():
        losses.append(model.eval()(pixels, noise=torch.linspace(0, 1, 64)[None]).loss.item())
print("ANSWER" + json.dumps(losses))
"""


@pytest.mark.slow
def test_it_resumes_exactly_publishes_and_becomes_a_classifier(workshop, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = workshop.run("train_mae.py", whole, *HD)
    assert done.returncode == 0, done.stdout
    kill_after_checkpoint(workshop, "train_mae.py", killed, *HD)
    done = workshop.run("train_mae.py", killed, *HD, "--resume_from_checkpoint", "true")
    assert done.returncode == 0, done.stdout
    expected, found = weights(whole), weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(whole) == logged(killed)

    record = json.loads((whole / "metrics.json").read_text())
    assert record["preprocessing"]["channels"] == 1 and record["recipe"]["mask_region"] == "contour"
    assert np.isfinite(record["evaluation"]["recipe_masked_loss"])
    card = (whole / "README.md").read_text()
    assert "With masks drawn as in training" in card and "figures/masks.png" in card

    (tmp_path / "elsewhere").mkdir()
    with LoopbackHub() as hub:
        run(hub, tmp_path / "one", "-m", "medhiera.hub.publish", str(whole), "tester/hd")
        script = ("-I", "-W", "ignore", "-c", LOAD_BACK)
        said = run(hub, tmp_path / "two", *script, cwd=tmp_path / "elsewhere")
    stock, ours = json.loads(said.split("ANSWER")[1].splitlines()[0])
    pixels = torch.linspace(-1, 1, 256 * 256).reshape(1, 1, 256, 256).sin()
    with torch.no_grad():
        model = HieraMAEForPreTraining.from_pretrained(whole).eval()
        wanted = model(pixels, noise=torch.linspace(0, 1, 64)[None]).loss.item()
    assert stock == pytest.approx(wanted, abs=1e-5) and ours == pytest.approx(wanted, abs=1e-5)

    stage2 = tmp_path / "stage2"
    words = ("--model_name_or_path", str(whole), "--model_overrides", "{}", "--image_size", "256")
    done = workshop.run("train_cls.py", stage2, *words, "--max_train_images", "48", "--max_steps", "3")
    assert done.returncode == 0, done.stdout
    assert HieraMAEForImageClassification.from_pretrained(stage2).config.num_channels == 3
