"""Stage folders to publish, and the project's commands run against the loopback Hub as processes."""

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loopback_hub import LoopbackHub
from PIL import Image
from stage_records import SOME_REPORT, classification_record, pretraining_record
from transformers import BitImageProcessor
from warm_python import warm_python

from medhiera.hub.published_files import MODEL_CODE, NOT_SHIPPED
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = ["Atelectasis", "Hernia", "No Finding"]
CODE = {path.name for path in MODEL_CODE.glob("*.py")} - set(NOT_SHIPPED)


def write_stage_folder(folder: Path, stage: int) -> Path:
    """A tiny model with random weights in a stage's folder, among the litter of a training run."""
    torch.manual_seed(0)
    geometry: dict[str, Any] = {
        "image_size": [64, 64],
        "embed_dim": 8,
        "num_heads": [1, 1, 2, 2],
        "depths": [1, 1, 1, 1],
        "decoder_hidden_size": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    }
    if stage == 2:
        labels = {
            "id2label": dict(enumerate(LABELS)),
            "label2id": {name: i for i, name in enumerate(LABELS)},
            "problem_type": MULTI_LABEL,  # as train_cls.py writes it
        }
        model: Any = HieraMAEForImageClassification(HieraMAEConfig.from_size("tiny", **geometry, **labels))
        with torch.no_grad():  # probabilities that differ, so that a mix-up shows
            model.classifier.weight.normal_(std=0.5)
    else:
        model = HieraMAEForPreTraining(HieraMAEConfig.from_size("tiny", **geometry))
    model.save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 72},
        crop_size={"height": 64, "width": 64},
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    ).save_pretrained(folder)
    record = classification_record(SOME_REPORT) if stage == 2 else pretraining_record()
    record.write(folder)
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n# A tiny model\n"
    )
    (folder / "figures").mkdir()
    for name in ("roc.png", "loss.png"):
        Image.fromarray(np.full((4, 4), len(name), np.uint8)).save(folder / "figures" / name)
    (folder / "training_args.bin").write_bytes(b"secret")
    (folder / "figures" / "notes.txt").write_text("mine")
    (folder / "checkpoint-10").mkdir()
    for name in ("optimizer.pt", "model.safetensors", "trainer_state.json"):
        (folder / "checkpoint-10" / name).write_bytes(b"state")
    return folder


def start(hub: LoopbackHub, home: Path, *arguments: str, cwd: Path = REPOSITORY) -> "subprocess.Popen[str]":
    environment = os.environ | hub.environment(str(home))
    return subprocess.Popen(
        [warm_python(), *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(hub: LoopbackHub, home: Path, *arguments: str, cwd: Path = REPOSITORY) -> str:
    process = start(hub, home, *arguments, cwd=cwd)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return output + errors
