"""ONNX: onnxruntime gives PyTorch's probabilities at any batch, and the file says what it is."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from stage_records import SOME_REPORT, classification_record
from tiny_training import tiny_config, tiny_mae
from transformers import BitImageProcessor, HieraConfig, HieraForImageClassification, pipeline

from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.evaluation.results import FindingOperatingPoints, OperatingPoint, OperatingPoints, Rescaling
from medhiera.inference import onnx_export as export
from medhiera.inference.classifier import Classifier
from medhiera.inference.onnx_export import TOLERANCE, export_onnx, largest_difference
from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

PREPROCESSING = Preprocessing(image_size=128, resize_size=144, mean=0.5, std=0.25)
NAMES = ["Edema", "Mass", "Pleural_Thickening"]
SIDE = 128
"""Large enough that on a CPU the model takes oneDNN's products, which a graph must not hold."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("stage2")
    torch.manual_seed(0)
    config = tiny_config(image_size=[SIDE, SIDE], id2label=dict(enumerate(NAMES)), problem_type=MULTI_LABEL)
    model = HieraMAEForImageClassification(config)
    model.classifier.weight.data.normal_(std=2.0)  # probabilities far from one half
    model.save_pretrained(place)
    PREPROCESSING.to_processor().save_pretrained(place)
    point = OperatingPoint(threshold=0.25, sensitivity=0.8, sensitivity_interval=None, specificity=0.7,
                           specificity_interval=None)  # fmt: skip
    one = FindingOperatingPoints(youden=point, sensitivity_90=None, positives=40, positive_patients=40)
    points = OperatingPoints(findings={NAMES[0]: one}, validation_images=90)
    fits = {NAMES[0]: Rescaling(slope=2.0, intercept=-1.0), NAMES[1]: None}
    classification_record(replace(SOME_REPORT, operating_points=points, rescaling=fits)).write(place)
    return place


@pytest.fixture(scope="module")
def exported(folder):
    file = folder.parent / "onnx" / "model.onnx"
    export.main([str(folder), str(file)])
    return file


@pytest.fixture(scope="module")
def classifier(folder):
    return Classifier.from_pretrained(folder)


def pictures(count):
    generator = np.random.default_rng(count)
    return [Image.fromarray(generator.integers(0, 256, (150, 170), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_same_probabilities_at_every_batch(exported, classifier, batch):
    images = pictures(batch)
    wanted = classifier.probabilities(images).numpy()
    pixels = classifier.preprocessing.normalize(
        torch.stack([classifier.preprocessing.pixels(i) for i in images])
    )
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"pixel_values": pixels.contiguous().numpy()})
    assert found.shape == (batch, len(NAMES))
    assert np.abs(found - wanted).max() <= TOLERANCE
    assert wanted.std() > 0.05  # a graph that gave one half for everything would not pass


def test_a_graph_of_a_fixed_batch_is_refused(classifier, tmp_path):
    file = tmp_path / "fixed.onnx"
    module = export._Probabilities(classifier.model, "sigmoid").eval()
    with torch.no_grad():
        program = torch.onnx.export(
            module, (torch.zeros(2, 3, SIDE, SIDE),), dynamo=True, verbose=False,
            input_names=["pixel_values"], output_names=["probabilities"],
        )  # fmt: skip
    program.save(file)
    assert largest_difference(classifier.model, "sigmoid", file, batches=[2]) <= TOLERANCE
    with pytest.raises(UserError, match="does not run at batch 1"):
        largest_difference(classifier.model, "sigmoid", file)


def test_the_graph_is_plain_onnx_with_a_free_batch(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""}
    [given], [taken] = model.graph.output, model.graph.input
    first = [value.type.tensor_type.shape.dim[0] for value in (given, taken)]
    assert all(dimension.dim_param and not dimension.dim_value for dimension in first)
    assert [dimension.dim_value for dimension in taken.type.tensor_type.shape.dim[1:]] == [3, SIDE, SIDE]


def test_the_file_says_what_it_takes_and_gives(exported, folder):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == NAMES
    assert metadata["activation"] == "sigmoid"
    assert metadata["model"] == folder.name
    assert "clinical" in metadata["notice"]
    assert "own" in metadata["reading"]
    assert json.loads(metadata["thresholds"]) == {NAMES[0]: 0.25} | dict.fromkeys(NAMES[1:])
    fits = {NAMES[0]: {"slope": 2.0, "intercept": -1.0}}
    assert json.loads(metadata["calibration"]) == fits | dict.fromkeys(NAMES[1:])
    stored = json.loads(metadata["preprocessing"])
    assert BitImageProcessor(**stored).to_dict() == PREPROCESSING.to_processor().to_dict()
    content = exported.read_bytes()  # the exporter notes each node's source lines, with this machine's paths
    assert b".py" not in content
    assert str(folder.parent).encode() not in content


def test_a_stock_checkpoint_gets_what_the_stock_pipeline_applies(tmp_path):
    torch.manual_seed(0)
    config = HieraConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], image_size=[64, 64],
                         id2label={0: "cat", 1: "dog", 2: "hen"})  # fmt: skip
    model = HieraForImageClassification(config)
    model.classifier.weight.data.normal_(std=2.0)
    model.save_pretrained(tmp_path / "stock")
    processor = BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path / "stock")
    export_onnx(tmp_path / "stock", tmp_path / "stock.onnx")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    wanted = {
        row["label"]: row["score"] for row in pipeline("image-classification", str(tmp_path / "stock"))(image)
    }
    session = onnxruntime.InferenceSession(tmp_path / "stock.onnx", providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"pixel_values": processor(image, return_tensors="np")["pixel_values"]})
    assert dict(zip(["cat", "dog", "hen"], found[0].tolist(), strict=True)) == pytest.approx(
        wanted, abs=TOLERANCE
    )
    assert found.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("position_interpolation", ["bicubic", "windowed"])
def test_the_graph_has_the_size_that_its_preprocessing_gives(position_interpolation, folder, tmp_path):
    """A processor may crop to another size than config.json's: what the classifier computes counts."""
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    model = HieraMAEForImageClassification.from_pretrained(folder)
    model.config.position_interpolation = position_interpolation
    model.save_pretrained(source)
    Preprocessing(image_size=96, resize_size=112, mean=0.5, std=0.25).to_processor().save_pretrained(source)
    assert export_onnx(source, tmp_path / "cropped.onnx") <= TOLERANCE
    images = pictures(2)
    classifier = Classifier.from_pretrained(source)
    pixels = classifier.pixel_values([classifier.preprocessing.pixels(image) for image in images])
    session = onnxruntime.InferenceSession(tmp_path / "cropped.onnx", providers=["CPUExecutionProvider"])
    stored = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert session.get_inputs()[0].shape[2:] == [96, 96] == list(stored["crop_size"].values())
    [found] = session.run(None, {"pixel_values": pixels.contiguous().numpy()})
    assert np.abs(found - classifier.probabilities(images).numpy()).max() <= TOLERANCE


def test_refusals_say_what_to_do(folder, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="there is no such folder"):
        export_onnx(tmp_path / "nowhere", tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"does not end in \.onnx"):
        export_onnx(folder, tmp_path / "a.bin")
    (tmp_path / "there.onnx").write_bytes(b"kept")
    with pytest.raises(UserError, match="exists"):
        export_onnx(folder, tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"kept"

    tiny_mae().save_pretrained(tmp_path / "stage1")
    PREPROCESSING.to_processor().save_pretrained(tmp_path / "stage1")
    with pytest.raises(UserError, match="no trained classifier.*`medhiera train-cls` makes"):
        export_onnx(tmp_path / "stage1", tmp_path / "a.onnx")

    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"preprocessor_config\.json"):
        export_onnx(tmp_path / "bare", tmp_path / "a.onnx")

    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        export.main([str(folder), str(tmp_path / "a.onnx")])
    assert end.value.code == 1
    assert "pip install '.[onnx]'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["there.onnx"]
    assert not list(tmp_path.glob(".export-*"))


def test_nan_weights_are_refused_by_name(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["classifier.bias"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"classifier\.bias holds 3 values that are NaN or infinite"):
        export_onnx(broken, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == [broken]


def test_a_graph_whose_probabilities_are_nan_differs(folder, exported):
    """A NaN equals nothing, on either side: it is no difference of 0.0."""
    model = Classifier.from_pretrained(folder).model
    assert largest_difference(model, "sigmoid", exported) <= TOLERANCE
    model.classifier.bias.data[1] = float("nan")
    assert not largest_difference(model, "sigmoid", exported) <= TOLERANCE


def test_half_precision_weights_are_exported_in_single_precision(folder, exported, tmp_path):
    half = tmp_path / "half"
    model = HieraMAEForImageClassification.from_pretrained(folder).half()
    model.save_pretrained(half)
    assert json.loads((half / "config.json").read_text())["dtype"] == "float16"
    PREPROCESSING.to_processor().save_pretrained(half)
    assert export_onnx(half, tmp_path / "half.onnx") <= TOLERANCE
    [first, *_] = onnx.load(tmp_path / "half.onnx").graph.output
    assert first.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
