"""A folder's card and publication show the pictures of its own run, and a new run removes the others."""

import pytest
from page_fixtures import write_stage1, write_stage2
from stage_records import SOME_REPORT, pretraining_record
from test_probe_card import probe

from medhiera.evaluation.results import ReconstructionReport
from medhiera.hub.model_card import card_of, render_card
from medhiera.hub.pictures import CAPTIONS, remove_pictures
from medhiera.hub.published_files import collect_files
from medhiera.hub.widget_examples import EXAMPLES
from medhiera.stages import STAGES

SCORES = {"roc", "auroc", "reliability", "subgroups", "heat_maps"}
EXAMPLE = f"{next(iter(EXAMPLES))}.png"


def draw_all(folder):
    """Every figure that any run draws, one of the owner's, and examples of both kinds."""
    for name in ("figures/steps", "examples"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    names = [f"figures/{name}.png" for name in (*CAPTIONS, "mine")]
    names += ["figures/steps/reconstructions-0000003.png", f"examples/{EXAMPLE}", "examples/mine.png"]
    for name in names:
        (folder / name).write_bytes(b"")
    return set(names)


def shown(folder, record):
    """Of our figures those that the folder's card has; publishing sends the same."""
    record.write(folder)
    card = card_of(folder)
    (folder / "README.md").write_text(card)
    sent = collect_files(folder, "me/x", STAGES[record.key], record)
    found = {name for name in CAPTIONS if f"(figures/{name}.png)" in card}
    assert found == {name for name in CAPTIONS if f"figures/{name}.png" in sent}
    assert "(figures/mine.png)" in card and "figures/mine.png" in sent and "examples/mine.png" in sent
    return found


def test_a_card_shows_the_figures_of_its_own_record(tmp_path):
    folder = write_stage1(tmp_path)
    draw_all(folder)
    record = pretraining_record()
    assert shown(folder, record) == {"loss", "reconstructions"}
    record.recipe["mask_region"] = "none"
    assert shown(folder, record) == {"loss", "reconstructions"}
    record.recipe["mask_region"] = "rectangle"
    assert shown(folder, record) == {"loss", "reconstructions", "masks"}
    record.probe = probe()
    assert shown(folder, record) - {"loss", "reconstructions", "masks"} == {"label_efficiency", "few_shots"}
    taught = pretraining_record(evaluation=ReconstructionReport(1.2, 0.8, 0.6, target="features"))
    assert shown(folder, taught) == {"loss"}


def test_a_classifiers_card_shows_no_figure_of_a_pretraining(tmp_path):
    folder = write_stage2(tmp_path, evaluation=SOME_REPORT)
    draw_all(folder)
    (folder / "figures" / "heat_maps.png").unlink()
    card = card_of(folder)
    assert {name for name in CAPTIONS if f"(figures/{name}.png)" in card} == SCORES - {"heat_maps"} | {"loss"}


def left(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_a_new_run_removes_what_an_earlier_one_drew(tmp_path):
    folder = tmp_path / "run"
    remove_pictures(folder, None)  # nothing is there
    draw_all(folder)
    remove_pictures(folder, None)
    assert left(folder) == {"figures/mine.png", "examples/mine.png"}


def test_a_resumed_run_keeps_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    everything = draw_all(folder)
    remove_pictures(folder, str(folder / "checkpoint-4"))
    monkeypatch.chdir(tmp_path)
    remove_pictures(folder, "run/checkpoint-4")
    assert left(folder) == everything
    remove_pictures(folder, str(tmp_path / "other" / "checkpoint-4"))  # of another folder
    assert left(folder) == {"figures/mine.png", "examples/mine.png"}


@pytest.mark.parametrize(("is_fixed", "said"), [(None, "fixed masks"), (True, "fixed masks"),
                                                (False, "masks drawn anew at each evaluation")])  # fmt: skip
def test_the_card_says_which_masks_the_loss_has(is_fixed, said):
    record = pretraining_record()
    if is_fixed is not None:
        record.recipe["fixed_eval_masks"] = is_fixed
    assert f"loss on validation images, {said}, 60 % hidden:" in render_card(record, [])
