"""The card's metadata are what the Hub reads; the committed examples are what is rendered."""

import contextlib
import io
import re
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from huggingface_hub import ModelCard
from page_fixtures import write_stage2
from PIL import Image
from stage_records import check_metadata, imagenet_record, pretraining_record
from transformers import pipeline

from medhiera.evaluation.results import Rescaling
from medhiera.hub.licences import code_licence_text, licence_text
from medhiera.hub.model_card import TEMPLATES, card_of, render_card
from medhiera.hub.operation import Operation
from medhiera.hub.record import read_record
from medhiera.hub.widget_examples import EXAMPLES, score_examples, write_examples
from medhiera.inference.classifier import Classifier


def test_the_metadata_fits_the_schema_and_damage_does_not(record):
    record.lineage.base_model = "facebook/hiera-tiny-224-mae-hf"
    card = render_card(record, [], ["examples/Phantom_one.png"])
    metadata = check_metadata(card)
    assert metadata["widget"] == [{"src": "examples/Phantom_one.png", "example_title": "Phantom one"}]
    assert metadata["base_model_relation"] == "finetune"
    assert metadata["model-index"][0]["results"] and "verified" not in card
    for right, wrong in (
        ("metrics:\n    - type: roc_auc", "metrics:\n    - verified: false\n      type: roc_auc"),
        ("base_model_relation: finetune\n", ""),
        ("license: cc-by-nc-4.0", "license: other"),
        ("- hiera\n", "- hiera\n- smoke-run\n"),  # whose numbers stand in no index
        ("pipeline_tag: image-classification", "pipeline_tag: x-ray-classification"),
        ("pipeline_tag: image-classification", "pipeline_tag: image-feature-extraction"),
        ("base_model: facebook/hiera-tiny-224-mae-hf", "base_model: /home/somebody/hiera"),
        ("license: cc-by-nc-4.0", "licence: cc-by-nc-4.0"),
        ("- alkzar90/NIH-Chest-X-ray-dataset", "- chestxray14"),
        ("src: examples/", "src: /tmp/"),
    ):
        assert right in card
        with pytest.raises(jsonschema.ValidationError):
            check_metadata(card.replace(right, wrong))


def test_an_example_carries_what_the_model_said(record):
    record.examples = {"Phantom_one": {"A": 0.2, "B": 0.91237, "C": 0.1, "D": 0.3, "E": 0.4, "F": 0.05}}
    [one, other] = check_metadata(
        render_card(record, [], ["examples/Phantom_one.png", "examples/Phantom_two.png"])
    )["widget"]
    likeliest = {"B": 0.9124, "E": 0.4, "D": 0.3, "A": 0.2, "C": 0.1}  # as many as the pipeline gives
    assert {row["label"]: row["score"] for row in one["output"]} == likeliest
    assert [row["label"] for row in one["output"]] == list(likeliest)
    assert "output" not in other


def test_a_model_of_one_channel_has_no_widget(record):
    record.preprocessing.channels = 1
    for one in (record, pretraining_record(preprocessing=record.preprocessing)):
        metadata = check_metadata(render_card(one, ["figures/roc.png"], ["examples/Phantom_one.png"]))
        assert metadata["inference"] is False and "widget" not in metadata


def test_recorded_examples_are_what_the_stock_pipeline_says(tmp_path):
    folder = write_stage2(tmp_path / "stage2")
    write_examples(folder / "examples")
    record = read_record(folder)
    record.examples = score_examples(folder / "examples", Classifier.from_pretrained(folder))
    record.write(folder)
    metadata = check_metadata(card_of(folder))
    assert len(metadata["widget"]) == len(EXAMPLES)
    classify = pipeline("image-classification", str(folder))
    for entry in metadata["widget"]:
        stock = {row["label"]: row["score"] for row in classify(str(folder / entry["src"]))}
        assert {row["label"]: row["score"] for row in entry["output"]} == pytest.approx(stock, abs=1e-4)


def test_a_number_without_a_hub_id_stands_in_the_text_alone(record):
    record.data.tested_on = {"RSNA Pneumonia": 100}
    card = ModelCard(render_card(record, []))
    assert card.data.eval_results is None and f"**{record.evaluation.mean_auroc:.3f}**" in card.text


def test_what_the_hub_expects_of_a_card(record):
    record.training.hardware = "2 × NVIDIA H100 80GB HBM3"
    card = render_card(record, [])
    for said in ("Hardware: 2 × NVIDIA H100 80GB HBM3.", "\nOut of scope: diagnosis", "## Contact",
                 "```bibtex\n@", "(https://arxiv.org/abs/2306.00989)", "eprint = {1705.02315}",
                 'trust_remote_code=True, revision="THIS_REVISION"\n)'):  # fmt: skip
        assert said in card, said
    record.data.trained_on = {"CheXpert": 1000}
    assert "1705.02315" not in render_card(record, [])
    imagenet = render_card(imagenet_record(), [])
    assert "## Contact" in imagenet and "Out of scope" in imagenet and "Hardware: none" in imagenet


def test_weights_under_other_names_are_a_conversion():
    record = imagenet_record()
    record.lineage.base_model = "facebook/hiera-tiny-224-mae-hf"
    assert check_metadata(render_card(record, []))["base_model_relation"] == "quantized"


def test_the_calibration_by_hand_is_what_the_record_gives(record, tmp_path, monkeypatch):
    fits = {"Edema": Rescaling(slope=2.0, intercept=-1.0), "No Finding": None}
    record.evaluation = replace(record.evaluation, rescaling=fits)
    record.write(tmp_path)
    card = render_card(record, [])
    [snippet] = [part for part in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "rescaling" in part]
    printed = io.StringIO()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names: str(tmp_path / names[-1]))
    with contextlib.redirect_stdout(printed):
        exec(snippet, {})
    operation = Operation.read(tmp_path)
    edema, nothing = operation.findings(["Edema", "No Finding"], [0.3, 0.3])
    first, second = printed.getvalue().splitlines()
    words = first.split()
    assert words[:2] == ["Edema", "calibrated:"] and float(words[2]) == pytest.approx(edema.calibrated)
    assert words[-1] == str(edema.is_above)
    assert second == f"No Finding calibrated: None is above: {nothing.is_above}"
    record.recipe["legacy_head"] = True
    assert "By hand" not in render_card(record, [])


def test_the_licences_of_weights_and_code_have_their_texts(record, root):
    assert (TEMPLATES / "licences" / "apache-2.0.txt").read_text() == (root / "LICENSE").read_text()
    assert code_licence_text() == (root / "LICENSE").read_text()
    record.lineage.license = "cc-by-nc-4.0"
    text = licence_text(record)
    assert text.startswith("The weights in this repository: cc-by-nc-4.0: inherited from the weights")
    assert "Attribution-NonCommercial 4.0 International Public License" in text
    record.lineage.license = None
    assert "nothing here grants you a right" in licence_text(record)
    record.lineage.license = "mit"
    text = licence_text(record)
    assert (
        "mit: inherited from the weights it started from" in text and "its LICENSE has the copyright" in text
    )
    assert (
        "Permission is hereby granted, free of charge" in text and 'THE SOFTWARE IS PROVIDED "AS IS"' in text
    )


def test_a_licence_whose_text_is_not_held_says_where_it_is(record):
    record.lineage = replace(record.lineage, license="cc-by-sa-4.0", started_from="some-lab/chest-hiera")
    where = "The text of the licence, cc-by-sa-4.0, stands in the repository of what they were made from: "
    assert f"{where}https://huggingface.co/some-lab/chest-hiera.\n" in licence_text(record)
    for licence, started_from in (("Ours", "the folder hiera"), ("mpl-2.0", "stage 1 (from a/b; 9 images)")):
        record.lineage = replace(record.lineage, license=licence, started_from=started_from)
        text = licence_text(record)
        assert f"is not here: it stands with what they were made from ({started_from})." in text
        assert "https://" not in text


@pytest.mark.parametrize(
    "stage",
    ["stage0", "stage1", "stage2", "stage2-reports", "small-result-stage1", "small-result-stage2"],
)
def test_the_committed_examples_are_what_is_rendered(stage):
    folder = TEMPLATES / "examples" / stage
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == card_of(folder), "render them anew: python -m medhiera.hub.model_card"
    assert "\\\\\n" not in card  # a shell line that goes on ends in one backslash
    metadata = check_metadata(card)
    assert ("Nobody's weights lie here" in card) == (stage == "stage0")  # rendered from random weights
    assert ("widget" in metadata) == (stage == "stage2")
    for line in card.splitlines():
        if line.startswith("!["):
            assert (folder / line.split("(")[-1].rstrip(")")).is_file()


def test_the_committed_example_images_are_what_is_drawn(tmp_path):
    write_examples(tmp_path)
    committed = TEMPLATES / "examples" / "stage2" / "examples"
    assert {path.stem for path in committed.iterdir()} == set(EXAMPLES)
    for path in tmp_path.iterdir():
        with Image.open(path) as drawn, Image.open(committed / path.name) as kept:
            difference = np.asarray(drawn, dtype=int) - np.asarray(kept, dtype=int)
        assert np.abs(difference).max() <= 1  # another machine's floating point
