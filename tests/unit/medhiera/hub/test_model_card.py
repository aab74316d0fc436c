"""The card says what metrics.json says, and nothing it does not know."""

import contextlib
import io
import re
from dataclasses import replace

import jinja2
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from page_fixtures import phantom, write_stage1, write_stage2
from PIL import Image
from stage_records import check_metadata, classification_record, pretraining_record, some_report

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.checkpoint_selection import Selection
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.pointing_game import HitRate, LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import Rescaling
from medhiera.evaluation.tables import chance_warning, few_cases, format_table
from medhiera.formatting import threshold_text
from medhiera.hub.model_card import TEMPLATES, render_card
from medhiera.hub.record import StageLeakage
from medhiera.inference.classifier import Classifier
from modeling_hiera_mae import HieraMAEBackbone

NAMES = ["Edema", "Hernia", "No Finding"]


def cell(value):
    return f"{value:.3f}"


def test_numbers_reasons_and_metadata(record):
    evaluation = record.evaluation
    card = ModelCard(render_card(record, ["figures/roc.png"]))
    edema, hernia = evaluation.findings["Edema"], evaluation.findings["Hernia"]
    for value in (evaluation.mean_auroc, evaluation.diseases.mean_auroc):
        assert f"| **{cell(value)}** |" in card.text
    row = next(line for line in card.text.splitlines() if line.startswith("| Edema* |"))
    assert row.split(" | ")[1:] == [
        cell(edema.auroc), " to ".join(map(cell, edema.auroc_interval)), cell(edema.average_precision),
        " to ".join(map(cell, edema.average_precision_interval)), "8", "82 |",
    ]  # fmt: skip
    assert hernia.auroc is None
    assert "| Hernia | – | no positive image | – | – | 0 | 90 |" in card.text
    youden = evaluation.operating_points.findings["Edema"].youden
    assert f"| Edema* | {threshold_text(youden.threshold)} | {cell(youden.sensitivity)} (" in card.text
    assert "| Hernia | – | no positive image on validation |" in card.text
    points = evaluation.operating_points.findings["Edema"]
    point, ends = points.best_f1, lambda limits: " to ".join(map(cell, limits))
    assert (
        f"| Edema* | {threshold_text(point.threshold)} | "
        f"{cell(point.accuracy)} ({ends(point.accuracy_interval)}) | "
        f"{cell(82 / 90)} | {cell(point.f1)} ({ends(point.f1_interval)}) | {cell(16 / 98)} |\n"
    ) in card.text
    women = evaluation.subgroups["sex"].groups["F"]
    assert f"| F | 45 | 45 | {cell(women.mean_auroc)} |" in card.text
    assert "Age: the data says nothing about age." in card.text
    assert f"calibration error over findings {cell(evaluation.calibration.mean_ece)}" in card.text
    assert "Not scored: no image has a box." in card.text
    assert "commit `0123abc`" in card.text
    assert "![ROC curve of each finding on the test split](figures/roc.png)" in card.text
    assert "62 min" in card.text
    assert "| Edema* |" in card.text and "\\* Fewer than ten positive or negative images" in card.text
    few = "\n**Edema: fewer than 10 patients with a positive image, or with a negative one ("
    assert few in card.text and "too few for an interval worth reading" in card.text
    assert few_cases(evaluation)[0] in "\n".join(format_table(evaluation))
    assert "`sources`" not in card.text  # an unset field is not shown
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.eval_results[0].dataset_name == (
        "NIH ChestX-ray14, 214 images, not the official test list"
    )
    values = [result.metric_value for result in card.data.eval_results]
    assert values[0] == round(evaluation.mean_auroc, 4)
    assert values[2] == round(evaluation.mean_average_precision, 4)
    assert card.data.datasets == ["alkzar90/NIH-Chest-X-ray-dataset"]
    assert card.data.eval_results[0].dataset_type == "alkzar90/NIH-Chest-X-ray-dataset"
    assert "no trained model" not in card.text


@pytest.mark.parametrize("patients", [45, None])  # None: a record of an earlier version does not know
def test_patients_are_named_where_they_were_resampled(record, patients):
    alone = render_card(record, [])
    assert record.evaluation.patients == record.evaluation.images == 90
    assert "\nIntervals: patients resampled 20 times, of whom each has one image on this split.\n" in alone
    assert "| positive images | negative images |" in alone
    assert "patient of its own" not in alone, "the data named the patient of every image"
    record.data.images_without_patient = 90
    unknown = render_card(record, [])
    assert "of whom each has one image on this split. Of 90 of the images that it learned from" in unknown
    assert "each counts as a patient of its own: if some show the same person" in unknown
    record.data.images_without_patient = 0
    record.evaluation = replace(record.evaluation, patients=patients)
    card = render_card(record, [])
    assert "\nIntervals: patients resampled 20 times.\n" in card and "patient of its own" not in card
    assert "| positive images (patients) | negative images (patients) |" in card
    assert "| 0 (0) | 90 (90) |" in card and "\\* Fewer than ten patients with" in card


def test_no_sentence_ends_before_its_list(record):
    assert "- New in this stage: classifier.bias.\n" in render_card(record, [])
    record.lineage.new_weights = []
    assert "New in this stage" not in render_card(record, [])
    sex = record.evaluation.subgroups["sex"]
    sex = replace(sex, findings_in_mean=["No_Finding"], findings_left_out=["Edema", "Hernia"])
    subgroups = record.evaluation.subgroups | {"sex": sex}
    record.evaluation = replace(record.evaluation, subgroups=subgroups)
    assert "negative patients in every group (No Finding; left out: Edema, Hernia):" in render_card(
        record, []
    )


@pytest.mark.parametrize(
    ("leakage", "sentence"),
    [
        ({}, "436 training images were compared with the 305 held-out images by pixels and by name; the 25"),
        ({"protected": 1200}, "by name, and with 1,200 images that are held out elsewhere; the 25 that show"),
        ({"is_checked": False}, "Leakage: not checked"),
        ({"allowed": 25, "dropped": 0}, "Leakage: ALLOWED. 25 training images show a held-out"),
        (
            {"seen_before": {"validation": 76, "test": 1080}, "is_checked": False},
            "trained on 76 of the validation images and 1,080 of the test images; scores on these are too "
            "high. Among its own training images: not checked",
        ),
    ],
)
def test_leakage_is_stated(record, leakage, sentence):
    record.data.leakage = replace(record.data.leakage, **leakage)
    assert sentence in render_card(record, [])


def test_what_earlier_stages_saw_is_stated_and_cited(record):
    assert "which it started from" not in render_card(record, [])
    record.lineage.earlier_sources = ["BraTS 2020", "ChestX-ray14"]
    record.lineage.leakage_before = [
        StageLeakage(stage=1, is_checked=True, held_out=305, compared=436, allowed=25),
        StageLeakage(stage=2, is_checked=False),
    ]
    card = ModelCard(render_card(record, []))
    lines = card.text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("- Leakage: "))
    assert lines[at + 1].startswith(
        "- Leakage in stage 1, which it started from: ALLOWED. 25 training images"
    )
    assert lines[at + 2].startswith("- Leakage in stage 2, which it started from: not checked")
    assert lines[at + 3] == ""
    assert card.data.datasets == ["alkzar90/NIH-Chest-X-ray-dataset"]  # BraTS has no id
    assert (
        "Menze et al." in card.text
        and "ChestX-ray8" in card.text
        and "Chowdhury et al." not in card.text.split("```bibtex")[0]
    )
    record.data.is_phantom = True  # phantoms after real images: these are still named
    assert "Menze et al." in render_card(record, [])
    record.lineage.earlier_sources, record.lineage.leakage_before = [], None
    assert "- Leakage before this stage: not known; nothing is recorded" in render_card(record, [])
    assert "ChestX-ray8" not in render_card(record, [])


@pytest.mark.parametrize(
    ("licence", "field", "sentence"),
    [
        (
            "apache-2.0",
            "apache-2.0",
            "Apache-2.0, inherited from the weights it started from (stage 1 (facebook",
        ),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", "non-commercial use"),
        (None, "unknown", "of unknown licence: look it up first"),
        ("Some University's Licence 2.0", "other", "Some University's Licence 2.0: inherited"),
    ],
)
def test_licence_is_inherited(record, licence, field, sentence):
    record.lineage.license = licence
    card = ModelCard(render_card(record, []))
    assert card.data.license == field
    other = ("some-university-s-licence-2.0", "LICENSE") if field == "other" else (None, None)
    assert (card.data.get("license_name"), card.data.get("license_link")) == other
    check_metadata(str(card))
    assert sentence in card.text


def test_a_smoke_run_says_so_at_its_top(record):
    record.kind = "smoke"
    card = ModelCard(render_card(record, []))
    title, warning = card.text.strip().splitlines()[:3:2]
    assert title.endswith("(smoke run)")
    assert warning.startswith("> **This is no trained model.**")
    assert "smoke-run" in card.data.tags
    assert card.data.eval_results is None and "| **0." in card.text  # the number is in the text alone


@pytest.mark.parametrize("make", [pretraining_record, classification_record])
def test_so_does_a_whole_run_on_phantoms(make):
    record = make(is_phantom=True)
    card = ModelCard(render_card(record, []))
    title, warning = card.text.strip().splitlines()[:3:2]
    assert title.endswith("(on phantoms)")
    assert warning.startswith("> **This is no model of patients.** It was trained on synthetic phantom")
    assert "Its numbers say nothing about medicine." in card.text
    assert card.data.eval_results is None


def test_the_official_test_list_needs_no_count(record):
    record.data.tested_on = {"ChestX-ray14": 25_606}
    name = ModelCard(render_card(record, [])).data.eval_results[0].dataset_name
    assert name == "NIH ChestX-ray14, 25,606 images, not the official test list"
    record.data.tested_on = {"ChestX-ray14": 25_596}
    card = ModelCard(render_card(record, []))
    assert card.data.eval_results[0].dataset_name == "NIH ChestX-ray14"
    said = "official test list shows findings more often than validation does (Effusion in\n18.2 %"
    assert said in card.text
    record.data.tested_on = {"ChestX-ray14": 25_595}
    assert said not in ModelCard(render_card(record, [])).text


def test_which_weights_were_kept_and_by_what_they_were_chosen(record):
    assert "\nThe checkpoint was chosen on validation (step 5).\n" in render_card(record, [])
    record.training.selection = Selection(["Edema", "Pleural_Thickening"], "some diseases")
    assert (
        "was chosen on validation (step 5), by the mean AUROC of some diseases: Edema, Pleural Thickening.\n"
    ) in render_card(record, [])
    record.training.best_step = None
    card = render_card(record, [])
    assert "\nThe last weights were kept (step 10).\n" in card
    assert "chosen on validation (" not in card


def test_what_was_not_tested_is_not_said_to_be(record):
    tested = render_card(record, [])
    assert "Tested on: ChestX-ray14 214 images; this run scored them once, when training had ended." in tested
    assert "on the test split | mean AUROC" in tested
    untested = classification_record(some_report("validation"))
    card = ModelCard(render_card(untested, []))
    assert "Tested on nothing: this run did not read the test split." in card.text
    assert "on the validation split | mean AUROC" in card.text
    assert "**These numbers are of the same validation images**, so they are too high; the test" in card.text
    untested.training.best_step = None
    last = (
        "The last weights were kept (step 10). These numbers are of the validation images; the test split was"
    )
    assert last in render_card(untested, [])  # none of them chose anything
    assert card.data.eval_results is None
    figure = render_card(untested, ["figures/roc.png"])
    assert "![ROC curve of each finding on the validation split](figures/roc.png)" in figure


def test_few_validation_patients_show(record):
    points = dict(record.evaluation.operating_points.findings)
    points["Edema"] = replace(points["Edema"], positive_patients=9)
    points["No Finding"] = replace(points["No Finding"], positive_patients=10)
    record.evaluation = replace(
        record.evaluation, operating_points=replace(record.evaluation.operating_points, findings=points)
    )
    table = render_card(record, []).split("### Operating points")[1].split("### Calibration")[0]
    assert "\n| Edema* |" in table and "\n| No Finding |" in table and "\n| Hernia |" in table
    assert "\\* Chosen on fewer than ten validation patients with the finding" in table
    fit = Rescaling(slope=1.0, intercept=0.0)
    rescaling = {"Edema": fit, "Hernia": None, "No Finding": fit}
    record.evaluation = replace(record.evaluation, rescaling=rescaling)
    assert "each of the 2 of 3 findings that validation allowed, fitted there: 0." in render_card(record, [])
    record.evaluation = replace(record.evaluation, rescaling=dict.fromkeys(NAMES))
    assert "Nothing is rescaled" in render_card(record, [])


def test_a_record_without_accuracy_and_f1_has_no_such_table(record):
    assert "| finding | largest F1 | accuracy |" in render_card(record, [])
    earlier = replace(record.evaluation.operating_points)
    points = {
        name: replace(entry, best_f1=None, accuracy_of_none=None, f1_of_all=None)
        for name, entry in earlier.findings.items()
    }
    means = {rule: mean for rule, mean in earlier.means.items() if rule != "best_f1"}
    record.evaluation = replace(
        record.evaluation, operating_points=replace(earlier, findings=points, means=means)
    )
    card = render_card(record, [])
    assert "largest F1" not in card and "\n\\* Chosen on fewer than ten" in card


def test_a_missing_field_is_an_error_not_a_blank(record):
    del record.training.steps
    with pytest.raises(jinja2.UndefinedError, match="steps"):
        render_card(record, [])


def test_a_test_split_without_an_answer_is_stated(record):
    def card(**changes):
        record.evaluation = replace(record.evaluation, **changes)
        return ModelCard(render_card(record, []))

    assert "No interval was computed." in card(mean_auroc_interval=None, bootstrap_resamples=0).text
    game = LocalizationReport(hit_rate=0.25, chance=0.1, center=0.0, interval=[0.2, 0.3], pairs=40)
    text = card(pointing_game=game).text
    assert "of the finding in 25 % of 40 cases\n(95 % interval 20 % to 30 %); a random" in text
    text = card(pointing_game=replace(game, interval=None)).text
    assert "(no interval was computed); a random" in text
    nothing = card(
        mean_auroc=None, mean_average_precision=None, findings_in_mean=[],
        diseases=replace(record.evaluation.diseases, mean_auroc=None),
    )  # fmt: skip
    assert "No AUROC: no finding has both" in nothing.text
    assert nothing.data.eval_results is None


def test_a_card_says_why_a_perfect_ranking_has_no_interval(record):
    names = ["Edema", "Mass"]
    labels = np.repeat(np.eye(2), 20, axis=0)
    ranked = rank_findings(Predictions(labels, labels, names), Bootstrap(20))
    assert (ranked.mean_auroc, ranked.mean_auroc_interval) == (1.0, None)
    before = render_card(record, [])
    record.evaluation = replace(record.evaluation, **vars(ranked))
    text = render_card(record, [])
    said = "\nNo interval: every resample gives the same value, which does not make it certain.\n"
    assert said in text and said not in before and "Intervals: patients resampled 20 times" in text
    assert "| Edema | 1.000 | – | 1.000 | – |" in text and "1.000 to 1.000" not in text
    assert chance_warning(record.evaluation, "There") == []


def test_the_card_says_whether_heat_maps_may_be_believed(record):
    def card(game):
        record.evaluation = replace(record.evaluation, pointing_game=game)
        return render_card(record, ["figures/auroc.png", "figures/heat_maps.png"])

    first, second, *others = record.evaluation.findings
    numbers = {"interval": [0.2, 0.3], "center": 0.0, "pairs": 40}
    good = HitRate(**numbers, hit_rate=0.25, chance=0.1, above_chance_interval=[0.1, 0.2], patients=30)
    bad = HitRate(**numbers, hit_rate=0.25, chance=0.2, above_chance_interval=[-0.01, 0.1], patients=30)
    few = HitRate(**numbers, hit_rate=0.25, chance=0.1, above_chance_interval=[0.1, 0.2], patients=9)

    text = card(LocalizationReport(**vars(good), method="a method", findings={first: good, second: bad}))
    assert "The highest point of the heat map (a method) lies in" in text
    assert (
        "Hit rate minus chance: 95 % interval 10 % to 20 %. Not better than chance, and not shown, for "
        in text
    )
    assert f"not shown, for {second.replace('_', ' ')}. Unchecked" in text
    assert all(name.replace("_", " ") in text.split("Unchecked, for want of boxes")[1] for name in others)
    assert "heat_maps.png" in text
    text = card(LocalizationReport(**vars(bad), findings={first: good}))
    assert "interval -1 % to 10 %. **Not better than chance: do not use this model's heat maps.**" in text
    assert "heat_maps.png" not in text and "auroc.png" in text
    text = card(LocalizationReport(**vars(few)))
    assert "(fewer than 10 patients): **the heat maps of this model are unchecked.**" in text
    text = card(LocalizationReport(reason="no image has a box"))
    assert "Not scored: no image has a box. **The heat maps of this model are unchecked.**" in text


def snippets(card):
    found = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return [snippet for snippet in found if "hf_hub_download" not in snippet]  # e2e/test_seen_images.py


def test_the_snippets_run_and_agree(record, tmp_path, monkeypatch):
    folder = write_stage2(tmp_path / "stage2")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(phantom()).save("chest.png")
    classifier = Classifier.from_pretrained(folder)
    [wanted] = classifier.probabilities([Image.fromarray(phantom())]).tolist()
    wanted = dict(zip(classifier.names, wanted, strict=True))
    card = render_card(record, [])
    ours, fast = (snippet.replace("THIS_REVISION", "main") for snippet in snippets(card))
    for snippet in (ours.replace("top_k=3", "top_k=4"), fast):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(snippet.replace("THIS_FOLDER", str(folder)), {})
        found = yaml.safe_load(printed.getvalue())
        found = {row["label"]: row["score"] for row in found} if isinstance(found, list) else found
        assert found == pytest.approx(wanted, abs=1e-4)
    assert "16-bit PNG, DICOM and MONOCHROME1 need windowing or inversion" in card
    for stage in (0, 1):
        card = (TEMPLATES / "examples" / f"stage{stage}" / "README.md").read_text(encoding="utf-8")
        for snippet in snippets(card):
            exec(snippet.replace("THIS_FOLDER", str(write_stage1(tmp_path / "stage1"))), {})


@pytest.mark.parametrize("stage", ["stage0", "stage1", "stage2"])
def test_the_cards_say_whose_backbone_gives_maps(stage, tmp_path):
    card = (TEMPLATES / "examples" / stage / "README.md").read_text(encoding="utf-8")
    assert (
        "stock's `HieraBackbone`" in card and '`AutoBackbone.from_pretrained("THIS_FOLDER", trust_re' in card
    )
    [code] = re.findall(r"`(HieraMAEBackbone\.from_pretrained\(.*?\))`", card)
    write = write_stage2 if stage == "stage2" else write_stage1
    folder = write(tmp_path / stage)
    backbone = eval(code.replace("THIS_FOLDER", str(folder)), {"HieraMAEBackbone": HieraMAEBackbone})
    assert backbone(torch.zeros(1, 3, 64, 64)).feature_maps[0].shape == (1, 64, 2, 2)
