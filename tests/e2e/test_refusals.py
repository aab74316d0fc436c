"""Wrong input is refused at once with one clear message, or counted, named and left out."""

import json
import shutil

import pytest

import train_cls
import train_mae
from dataset_scripts import ChestXray14
from dataset_scripts.errors import DataLayoutError, LabelFileError
from medhiera.errors import UserError


def mae(workshop, output, *words):
    config = str(workshop.configs["train_mae.py"])
    train_mae.main([config, "--data_dir", str(workshop.raw), "--build_dir", str(workshop.folder / "built"),
                    "--output_dir", str(output), "--use_cpu", "true", *words])  # fmt: skip


def test_data_without_any_source(workshop, tmp_path):
    (tmp_path / "data" / "holiday").mkdir(parents=True)
    with pytest.raises(DataLayoutError, match=r"none of the sources.*holiday.*ChestXray-NIHCC"):
        mae(workshop, tmp_path / "out", "--data_dir", str(tmp_path / "data"))


def test_data_that_is_nowhere(workshop, tmp_path):
    with pytest.raises(
        UserError, match="no such folder: there is no such folder; the nearest that exists is"
    ):
        mae(workshop, tmp_path / "out", "--data_dir", str(tmp_path / "no such folder"))


def test_label_file_without_a_column(workshop, tmp_path):
    shutil.copytree(workshop.raw / "ChestXray-NIHCC", tmp_path / "ChestXray-NIHCC")
    table = tmp_path / "ChestXray-NIHCC" / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace("Finding Labels", "Labels", 1))
    with pytest.raises(LabelFileError, match="Finding Labels"):
        builder = ChestXray14(data_dir=tmp_path / "ChestXray-NIHCC", build_dir=tmp_path / "cache")
        builder.download_and_prepare()


def test_absent_and_truncated_images_are_named_and_the_rest_is_built(workshop, tmp_path):
    source = tmp_path / "ChestXray-NIHCC"
    shutil.copytree(workshop.raw / "ChestXray-NIHCC", source)
    absent, cut = sorted((source / "images").iterdir())[:2]
    count = len(list((source / "images").iterdir()))
    absent.unlink()
    cut.write_bytes(cut.read_bytes()[:-2000])
    builder = ChestXray14(data_dir=source, build_dir=tmp_path / "cache")
    builder.download_and_prepare(num_proc=2)
    report = json.loads((tmp_path / "cache").rglob("build_report.json").__next__().read_text())
    named = {(problem["kind"], problem["name"].split("/")[-1]) for problem in report["problems"]}
    assert ("absent", absent.name) in named
    assert cut.name in {name for kind, name in named if kind != "absent"}
    assert sum(len(split) for split in builder.as_dataset().values()) == count - 2


def test_unknown_key_names_the_nearest(workshop, tmp_path):
    with pytest.raises(UserError, match="unknown key 'mask_ratios'; did you mean 'mask_ratio'"):
        mae(workshop, tmp_path, "--mask_ratios", "0.7")


def test_checkpoint_of_another_architecture(workshop, tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    tiny = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ViTForImageClassification(tiny).save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="model of type 'vit'; wanted 'hiera'"):
        mae(workshop, tmp_path / "out", "--model_name_or_path", str(tmp_path / "vit"))


def test_folder_of_another_run_is_not_mixed_up(workshop, stage1, tmp_path):
    with pytest.raises(UserError, match="already holds a finished stage"):
        mae(workshop, stage1)
    shutil.copytree(stage1 / "checkpoint-6", tmp_path / "checkpoint-6")
    with pytest.raises(UserError, match="already holds checkpoint-6 of a run that has not ended"):
        mae(workshop, tmp_path)


def test_a_stage_whose_list_of_images_is_gone_is_no_start(workshop, stage1, tmp_path):
    """Known before any data is built; with leakage allowed the new list would still vouch for too little."""
    shutil.copytree(stage1, tmp_path / "stage1", ignore=shutil.ignore_patterns("*.parquet", "checkpoint-*"))
    words = ["--model_name_or_path", str(tmp_path / "stage1"), "--build_dir", str(tmp_path / "built")]
    with pytest.raises(UserError, match=r"was trained on \d+ images, and no training_images.parquet is to"):
        mae(workshop, tmp_path / "out", *words, "--model_overrides", "{}", "--allow_leakage", "true")
    assert not (tmp_path / "built").exists()


def test_a_run_goes_on_with_its_own_recipe(workshop, stage1, tmp_path):
    """Options at their defaults before, and one that no training step depends on."""
    shutil.copytree(stage1 / "checkpoint-3", tmp_path / "checkpoint-3")
    changed = ("--mask_ratio", "0.5", "--random_crop_scale", "0.5", "--drop_path_rate", "0.2")
    with pytest.raises(UserError) as caught:
        mae(workshop, tmp_path, "--resume_from_checkpoint", "true", *changed, "--reconstruction_rows", "1")
    message = str(caught.value)
    assert (
        "drop_path_rate was 0.0, now 0.2; random_crop_scale was 0.0, now 0.5; mask_ratio was 0.6" in message
    )
    assert "reconstruction_rows" not in message


def test_nothing_to_resume(workshop, tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        mae(workshop, tmp_path, "--resume_from_checkpoint", "true")


def test_a_source_that_is_not_there(workshop, tmp_path):
    with pytest.raises(UserError, match=r"which no split holds; the data holds \['BraTS 2020'"):
        mae(workshop, tmp_path, "--sources", "CheXpert")


def test_validation_without_two_label_values_is_refused_before_training(workshop, tmp_path):
    config = str(workshop.configs["train_cls.py"])
    with pytest.raises(UserError, match="no finding has both"):
        train_cls.main([config, "--data_dir", str(workshop.raw), "--output_dir", str(tmp_path),
                        "--build_dir", str(workshop.folder / "built"), "--use_cpu", "true",
                        "--max_eval_images", "1"])  # fmt: skip


def test_the_script_ends_with_one_message_not_a_trace(workshop, tmp_path):
    done = workshop.run("train_mae.py", tmp_path / "out", "--mask_ratio", "1.5")
    assert done.returncode != 0
    assert "mask_ratio is 1.5; wanted a share between 0 and 1" in done.stdout
    assert 'File "' not in done.stdout.split("mask_ratio is 1.5")[0]
