"""Rows of built data with reports, in memory: bars on one side, and texts that say so; a tiny writer."""

import io

import datasets
import numpy as np
import torch
from PIL import Image

from dataset_scripts.findings import make_features
from medhiera.config.report_arguments import ReportArguments
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.report_tokenizer import encode_report, train_byte_tokenizer
from medhiera.inference.report_writer import ReportWriter
from medhiera.training.report_model import start_report_model
from modeling_hiera_mae import HieraMAEConfig, HieraMAEModel


def bar_picture(side, height, size=72, view=0):
    """A gray picture with a bright bar on one side, its length by `height`; the second view is darker."""
    generator = np.random.default_rng([height, view, side == "left"])
    pixels = generator.integers(60, 80, (size, size)).astype(np.uint8)
    if side:
        left = 6 if side == "right" else size - 22  # a patient's right is on the picture's left
        pixels[size - 8 - height : size - 8, left : left + 16] = 200 - 60 * view
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def bar_report(side, height):
    if not side:
        return "The lungs are clear. No pleural effusion."
    size = "Small" if height < 20 else "Large"
    return f"{size} {side} pleural effusion. The heart is normal."


def report_rows(studies, split, views=2, seed=0):
    """`studies` studies, each of `views` views or one; every third is normal."""
    generator = np.random.default_rng([seed, len(split)])
    rows = []
    for number in range(studies):
        side = ["left", "right", ""][number % 3]
        height = int(generator.integers(10, 34))
        for view in range(views if number % 4 else 1):
            rows.append(
                {
                    "image": bar_picture(side, height, view=view),
                    "image_id": f"{split}-{number}-{view}",
                    "source": "IU X-Ray",
                    "patient_id": f"{split}-{number}",
                    "labels": [float("nan")] * 15,
                    "findings": [],
                    "age_years": float("nan"),
                    "sex": "",
                    "view": "lateral" if view else "PA",
                    "nih_image": "",
                    "rsna_image": "",
                    "is_phantom": False,
                    "boxes": [],
                    "study_id": f"{number}",
                    "report_findings": bar_report(side, height),
                    "report_impression": "Effusion." if side else "",
                    "report_indication": "",
                }
            )
            rows[-1]["labels"][10] = float(not side)
    texts = ("study_id", "report_findings", "report_impression", "report_indication")
    features = datasets.Features(make_features() | {name: datasets.Value("string") for name in texts})
    return datasets.Dataset.from_list(rows, features=features, split=datasets.NamedSplit(split))


def write_report_folder(folder, report="The heart is normal.", views=2):
    """A tiny model that has learned one text by heart, saved as train_report.py saves one."""
    torch.manual_seed(0)
    tokenizer = train_byte_tokenizer([report] * 3, 300)
    options = ReportArguments(
        views=views, decoder_layers=1, decoder_width=16, decoder_heads=2, max_tokens=32, num_beams=2,
        decoder_dropout=0.0,
    )  # fmt: skip
    config = HieraMAEConfig.from_size("tiny", embed_dim=8, depths=[1, 1, 1, 1], image_size=[64, 64])
    model = start_report_model(HieraMAEModel(config), tokenizer, options)
    labels = torch.tensor([encode_report(tokenizer, report, 32)] * 2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        model(torch.randn(2, views, 3, 64, 64), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    writer = ReportWriter(model.eval(), tokenizer, Preprocessing(64, 72, 0.45, 0.28))
    writer.save(folder)
    return writer
