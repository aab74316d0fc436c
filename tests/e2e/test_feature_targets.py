"""Stage 1 that predicts a teacher's features: trained, killed, resumed, refused, and fine-tuned from."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from killed_runs import kill_after_checkpoint, logged, weights
from teachers import write_card, write_resnet, write_vit
from transformers import AutoModelForPreTraining

from medhiera.data.training_images import list_images, read_training_images, unite, write_training_images

pytestmark = pytest.mark.slow

LONGER = ("--max_steps", "24", "--save_steps", "4", "--eval_steps", "4", "--logging_steps", "3")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    folder = write_vit(tmp_path_factory.mktemp("teachers") / "tiny-vit")
    return write_card(folder, license="cc-by-nc-4.0", datasets=["imagenet-1k"])


@pytest.fixture(scope="session")
def taught(workshop, teacher):
    """A finished stage of features alone."""
    output = workshop.folder / "taught"
    words = ["--target", "features", "--teacher", str(teacher), "--ema_decay", "0.5"]
    done = workshop.run("train_mae.py", output, *words, "--max_steps", "40", "--eval_steps", "20")
    assert done.returncode == 0, done.stdout
    (output / "printed.txt").write_text(done.stdout)
    return output


def test_the_loss_falls_and_the_card_names_the_teacher(taught):
    record = json.loads((taught / "metrics.json").read_text())
    evaluation, lineage = record["evaluation"], record["lineage"]
    assert evaluation["target"] == "features"
    assert evaluation["masked_loss"] < evaluation["masked_loss_before"]
    [teacher] = lineage["teachers"]
    assert teacher["name"] == "tiny-vit" and teacher["datasets"] == ["imagenet-1k"]
    assert lineage["license"] == "cc-by-nc-4.0" and not teacher["saw_test"]
    assert not (taught / "figures" / "reconstructions.png").exists()
    card = (taught / "README.md").read_text()
    assert "Masked-feature loss" in card and "`tiny-vit`" in card and "**not trained**" in card
    assert str(taught.parent) not in card + json.dumps(record)
    assert "license: cc-by-nc-4.0" in card


def test_stock_transformers_opens_it_and_nothing_is_left_over(taught):
    model, loading = AutoModelForPreTraining.from_pretrained(taught, output_loading_info=True)
    assert not loading["unexpected_keys"] and not loading["missing_keys"]
    assert "HieraForPreTraining" in type(model).__name__


def test_stage_2_starts_from_it_and_inherits_the_teacher(workshop, taught, tmp_path):
    done = workshop.run("train_cls.py", tmp_path / "stage2", "--model_name_or_path", str(taught))
    assert done.returncode == 0, done.stdout
    record = json.loads((tmp_path / "stage2" / "metrics.json").read_text())
    assert record["lineage"]["teachers"][0]["name"] == "tiny-vit"
    assert "`tiny-vit`" in (tmp_path / "stage2" / "README.md").read_text()


def test_a_teacher_that_saw_the_test_images_is_refused(workshop, tmp_path):
    leaky = write_vit(tmp_path / "rad-dino")
    words = ["--target", "features", "--teacher", str(leaky), "--max_steps", "2"]
    done = workshop.run("train_mae.py", tmp_path / "out", *words)
    assert done.returncode == 1 and "has seen ChestX-ray14's test images" in done.stdout, done.stdout
    allowed = workshop.run(
        "train_mae.py", tmp_path / "out", *words, "--allow_leakage", "true",
        "--build_dir", str(tmp_path / "built"),
    )  # fmt: skip
    assert allowed.returncode == 0, allowed.stdout
    assert "Leakage through the teacher" in (tmp_path / "out" / "README.md").read_text()


def test_the_images_of_a_stage_that_teaches_count_as_trained_on(workshop, taught, tmp_path):
    """A stage after this one may hold none of them out."""
    teacher = shutil.copytree(taught, tmp_path / "teacher", ignore=shutil.ignore_patterns("checkpoint-*"))
    more = Dataset.from_dict({"source": ["ChestX-ray14"], "image_id": ["ChestX-ray14/00030805_000.png"]})
    own = read_training_images(teacher)
    write_training_images(teacher, unite([own, list_images(more, "train")]))
    words = ["--target", "features", "--teacher", str(teacher), "--max_steps", "2"]
    done = workshop.run("train_mae.py", tmp_path / "out", *words)
    assert done.returncode == 0, done.stdout
    seen = read_training_images(tmp_path / "out")
    assert "ChestX-ray14/00030805_000.png" in set(seen["image_id"]) and len(seen) == len(own) + 1
    [record] = json.loads((tmp_path / "out" / "metrics.json").read_text())["lineage"]["teachers"]
    assert record["model_type"] == "hiera" and record["license"] == "cc-by-nc-4.0"
    assert record["datasets"] == ["imagenet-1k"]  # of its own teacher; phantoms are no data set


@pytest.mark.parametrize("ranks", [1, 2])
def test_kill_and_resume_gives_the_same_weights(ranks, workshop, teacher, tmp_path):
    """Both targets, the average, a crop and a convolutional teacher; and another teacher is refused."""
    resnet = write_resnet(tmp_path / "tiny-resnet")
    words = [*LONGER, "--target", "both" if ranks == 1 else "features", "--teacher", str(resnet)]
    words += ["--ema_decay", "0.9", "--random_crop_scale", "0.5", "--horizontal_flip", "true"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = workshop.run("train_mae.py", whole, *words, ranks=ranks)
    assert done.returncode == 0, done.stdout
    kill_after_checkpoint(workshop, "train_mae.py", killed, *words, step=8, ranks=ranks)
    again = [*words, "--resume_from_checkpoint", "true"]
    other = [str(teacher) if word == str(resnet) else word for word in again]
    refused = workshop.run("train_mae.py", killed, *other, ranks=ranks)
    assert refused.returncode != 0 and "teacher was" in refused.stdout, refused.stdout
    done = workshop.run("train_mae.py", killed, *again, ranks=ranks)
    assert done.returncode == 0, done.stdout
    for one, two in ((whole, killed), (whole / "raw", killed / "raw")):
        expected, found = weights(one), weights(two)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(whole) == logged(killed)
    if ranks == 1:
        evaluation = json.loads((killed / "metrics.json").read_text())["evaluation"]
        assert evaluation["pixel_losses"][1] < evaluation["pixel_losses"][0]
        assert evaluation["feature_losses"][1] < evaluation["feature_losses"][0]
        total = evaluation["pixel_losses"][1] + evaluation["feature_losses"][1]
        assert evaluation["masked_loss"] == pytest.approx(total, abs=1e-4)
