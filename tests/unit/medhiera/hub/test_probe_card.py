"""Stage 1's card shows how to get features, and a probe where one is recorded."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from page_fixtures import phantom, write_stage1
from PIL import Image
from stage_records import SOME_REPORT, pretraining_record
from transformers import AutoModel

from medhiera import Encoder
from medhiera.errors import UserError
from medhiera.evaluation.probe_results import FewLabels, FindingOverDraws, ProbeFit
from medhiera.hub.model_card import add_probe, card_of, check_probe_fits, main, render_card
from medhiera.hub.probe_record import ProbeRecord, ranking_of
from medhiera.hub.record import read_record

ONE = FewLabels(
    mean_auroc=0.6, mean_auroc_interval=[0.55, 0.66], mean_average_precision=0.4,
    mean_average_precision_interval=[0.3, 0.5], findings_in_mean=["Edema"], shots=5, train_images=[10, 10],
    penalties=[100.0], draw_aurocs=[0.58, 0.62], findings={"Edema": FindingOverDraws(auroc=0.6)},
)  # fmt: skip
NONE = FewLabels(
    mean_auroc=None, mean_auroc_interval=None, mean_average_precision=None,
    mean_average_precision_interval=None, findings_in_mean=[], share=0.01, reason="1 % of 9 is none",
)  # fmt: skip
FIT = ProbeFit(
    penalty=0.01, chosen_on="validation", train_images=1234, train_patients=567, shared_patients=3,
    few_labels=[ONE, NONE],
)  # fmt: skip


def probe(**changes):
    facts = {
        "split": "test", "split_scheme": "official", "is_phantom": False, "tested_on": {"ChestX-ray14": 90},
        "fit": FIT, "ranking": ranking_of(SOME_REPORT),
    }  # fmt: skip
    return ProbeRecord(**facts | changes)


def test_the_five_lines_and_the_pipeline_give_the_encoders_features(tmp_path, monkeypatch):
    folder = write_stage1(tmp_path / "stage1")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(phantom(150)).save("chest.png")
    expected = Encoder.from_pretrained(folder).features(["chest.png"])
    card = card_of(folder)
    lines, pipeline = (part.split("```")[0] for part in card.split("```python\n")[1:3])
    assert "AutoModel" in lines and 'pipeline("image-feature-extraction"' in pipeline
    for code in (lines, pipeline):
        names = {}
        exec(code.replace("THIS_FOLDER", str(folder)), names)
        found = torch.as_tensor(names["features"]).detach()
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_loading_report_names_what_the_card_explains_and_nothing_else(tmp_path):
    folder = write_stage1(tmp_path / "stage1")
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    card = card_of(folder)
    for names, explained in (
        (info["unexpected_keys"], ("decoder.", "multiscale_fusion.", "encoder_norm.")),
        (info["missing_keys"], ("pooler.layernorm.",)),
    ):
        assert names and all(name.startswith(explained) for name in names)
        assert all(f"`{prefix}*`" in card for prefix in explained)
    assert logging.getLogger("transformers").level != logging.CRITICAL


def test_the_card_says_what_the_recorded_probe_says(tmp_path):
    record = pretraining_record()
    assert "### Linear probe" not in render_card(record, [])
    record.probe = probe()
    card = render_card(record, [])
    assert "1,234 training images of 567 patients" in card and "scored on the\ntest split" in card
    assert "Penalty C = 0.01, chosen on validation." in card and "**Patients leak**: 3 patients" in card
    edema = SOME_REPORT.findings["Edema"]
    assert f"| Edema* | {edema.auroc:.3f} |" in card and "| Hernia |" not in card
    assert (
        "| 5 patients with each finding, 5 without | 0.600 | 0.550 to 0.660 | 0.580 to 0.620 | 1 | 10 |"
        in card
    )
    assert "| 1 % | – | 1 % of 9 is none | – | – | – |" in card
    record.probe = probe(fit=replace(FIT, chosen_on="nothing", shared_patients=0, few_labels=[]))
    card = render_card(record, [])
    assert "by default, as no validation image decides" in card and "With few labels" not in card
    assert "Patients leak" not in card


def test_what_an_owner_added_to_a_card_is_not_lost(tmp_path):
    folder = write_stage1(tmp_path / "stage1")
    rendered = card_of(folder)
    readme = folder / "README.md"
    published = rendered.replace("THIS_FOLDER", "me/mae").replace("THIS_REVISION", "medhiera-0123abcdef01")
    assert published != rendered
    for untouched in (rendered, published):
        readme.write_text(untouched)
        check_probe_fits(folder)
    mine = f"{rendered}\nAsk me before you use it.\n"
    readme.write_text(mine)
    before = (folder / "metrics.json").read_text()
    for refused in (lambda: check_probe_fits(folder), lambda: add_probe(folder, probe(), tmp_path)):
        with pytest.raises(UserError, match=r"what was added there, .* Keep a copy, write the card anew"):
            refused()
    assert readme.read_text() == mine and (folder / "metrics.json").read_text() == before
    main([str(folder)])
    add_probe(folder, probe(), tmp_path)
    assert "### Linear probe" in readme.read_text()


def test_a_probe_goes_into_a_stages_record_and_card_and_comes_back(tmp_path):
    folder, figures = write_stage1(tmp_path / "stage1"), tmp_path / "figures"
    figures.mkdir()
    Image.new("L", (4, 4)).save(figures / "few_shots.png")
    Image.new("L", (4, 4)).save(figures / "roc.png")
    add_probe(folder, probe(), figures)
    assert read_record(folder).probe == probe()
    card = (folder / "README.md").read_text()
    assert card == card_of(folder) and "(figures/few_shots.png)" in card and "roc.png" not in card
    add_probe(folder, probe(is_phantom=True), tmp_path)  # another, without figures
    card = (folder / "README.md").read_text()
    assert "**synthetic phantoms**" in card and "few_shots.png" not in card
    with pytest.raises(UserError, match="is no folder of a finished stage 1"):
        add_probe(tmp_path, probe(), figures)
    written = json.loads((folder / "metrics.json").read_text())
    written["probe"]["fit"]["few_labels"][0]["mean_auroc"] = 1.5
    (folder / "metrics.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match=r"probe\.fit\.few_labels\.0\.mean_auroc is 1\.5"):
        read_record(folder)
