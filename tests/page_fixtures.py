"""A phantom as the files people bring, a tiny model's folder, and the page that serves it."""

import os
import shutil
import socket
import subprocess
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from stage_records import SOME_REPORT, classification_record, pretraining_record
from warm_python import warm_python

from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.findings import draw_radiograph
from medhiera.data.preprocessing import Preprocessing
from medhiera.evaluation.results import OperatingPoints
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

NOT_CALIBRATED = replace(
    SOME_REPORT, rescaling={}, operating_points=OperatingPoints(findings={}, reason="no validation split")
)
NAMES = ["Edema", "Mass", "No Finding", "Pleural_Thickening"]
PREPROCESSING = Preprocessing(image_size=64, resize_size=72, mean=0.45, std=0.28)


def phantom(side=160):
    random = np.random.default_rng(3)
    return draw_radiograph(draw_body(random, is_female=True), ["Effusion"], side, random).pixels


def write_dicom(path, pixels, **elements):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in ({"Modality": "DX", "BodyPartExamined": "CHEST"} | elements).items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def photograph(width=200, height=150):
    """Sky, hill and a red house."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:] = (110, 160, 230)
    picture[height // 2 :] = (70, 140, 60)
    picture[height // 3 : 2 * height // 3, width // 3 : width // 2] = (190, 40, 30)
    return Image.fromarray(picture)


def write_stage(folder, model_class, record):
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size(
        "tiny", embed_dim=8, depths=[1, 1, 2, 1], image_size=[64, 64], decoder_hidden_size=16,
        decoder_depth=1, decoder_num_heads=2, num_labels=len(NAMES),
        num_channels=record.preprocessing.channels,
    )  # fmt: skip
    config.id2label = dict(enumerate(NAMES))
    config.label2id = {name: index for index, name in enumerate(NAMES)}
    model = model_class(config)
    if model_class is HieraMAEForImageClassification:
        model.classifier.weight.data.normal_()
        model.config.problem_type = MULTI_LABEL  # as train_cls.py writes it
    model.save_pretrained(folder)
    PREPROCESSING.to_processor().save_pretrained(folder)
    record.write(folder)
    return folder


def write_stage2(folder, kind="smoke", is_phantom=True, evaluation=NOT_CALIBRATED, **facts):
    """A classifier's folder; `evaluation` holds thresholds and rescaling."""
    record = classification_record(evaluation, kind=kind, is_phantom=is_phantom, **facts)
    return write_stage(folder, HieraMAEForImageClassification, record)


def write_sibling(folder, stage2, seed=7, names=None):
    """Another classifier of the same findings: other weights, outputs in the order of `names`."""
    shutil.copytree(stage2, folder)
    model = HieraMAEForImageClassification.from_pretrained(stage2)
    model.classifier.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
    names = names or NAMES
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    model.save_pretrained(folder)
    return folder


def write_stage1(folder):
    return write_stage(folder, HieraMAEForPreTraining, pretraining_record(kind="smoke", is_phantom=True))


class Site:
    """The page served by a process of its own, whose temporary files all lie in one folder."""

    def __init__(self, root, model, folder, script="medhiera/space/app.py"):
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/"
        self.command = [warm_python(), str(script), str(model), "--port", str(port)]
        self.root = root
        self.start()

    def start(self):
        """Serve it, at the same address as before."""
        places = {"TMPDIR": str(self.temporary), "PYTHONPATH": str(self.root)}
        self.process = subprocess.Popen(
            self.command, cwd=self.root, text=True, stderr=subprocess.PIPE,
            env=os.environ | places | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        for line in self.process.stderr:
            if self.address in line:
                return
        raise AssertionError("the page did not start")

    def kept(self):
        """Files with something in them, but for the examples."""
        files = [path for path in self.temporary.rglob("*") if path.is_file() and path.stat().st_size]
        return [path for path in files if path.name != "image.png"]

    def end(self):
        self.process.terminate()
        self.process.communicate(timeout=30)


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(phantom()).save(file, "png")
    return path
