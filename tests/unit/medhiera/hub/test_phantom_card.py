"""Cards say of each image whether it is drawn or of a patient, and of names that they may not be told."""

from stage_records import classification_record, pretraining_record, some_report

from medhiera.hub.lineage import lineage_of
from medhiera.hub.model_card import render_card

CHEST, BRAIN = "ChestX-ray14", "BraTS 2020"
BOTH = {CHEST: 1000, BRAIN: 200}


def test_phantoms_among_real_images_are_named_and_counted_for_no_data_set(tmp_path):
    record = pretraining_record(trained_on=BOTH)
    record.data.phantom_sources = [BRAIN]
    card = render_card(record, [])
    assert "Synthetic phantoms are among these: the images of BraTS 2020, none of them of a patient." in card
    assert "no model of patients" not in card and "(on phantoms)" not in card
    assert "- chestxray14\n" in card and "brats-2020" not in card and "Menze" not in card
    assert "Names that begin with `phantom`" in card
    record.write(tmp_path)
    lineage = lineage_of(str(tmp_path), [])
    assert lineage.earlier_sources == [CHEST]
    assert "ChestX-ray14 1,000, phantoms of BraTS 2020 200 images" in lineage.started_from


def test_results_on_phantoms_are_no_results_on_the_set(tmp_path):
    """Trained on patients' films, tested on drawn ones: as on the whole official list, by their number."""
    record = classification_record(some_report(), trained_on=BOTH, tested_on={CHEST: 25_596})
    assert "name: NIH ChestX-ray14" in render_card(record, [])
    record.data.phantom_sources = [CHEST]
    card = render_card(record, [])
    assert "name: NIH ChestX-ray14" not in card and "name: Phantom chest radiographs\n" in card
    record.data.tested_on = {CHEST: 10, "CheXpert": 10}
    assert "name: Phantom chest radiographs among real ones" in render_card(record, [])


def test_whose_images_are_not_named():
    trained_on = {CHEST: 5, "MIMIC-CXR": 5, "image folder": 5}
    card = render_card(pretraining_record(trained_on=trained_on), [])
    assert "Images of MIMIC-CXR, image folder may not be named: their `image_id` is `blake2b:`" in card
    assert "may not be named" not in render_card(pretraining_record(trained_on=BOTH), [])
