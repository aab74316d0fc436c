"""What a stage starts from."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file, save_file
from stage_records import SOME_REPORT, classification_record, facts, imagenet_record, pretraining_record

from dataset_scripts import write_phantom_cohort
from medhiera.config.arguments import ModelArguments
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import MAEArguments
from medhiera.data.cocktail import lies_in_data
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.training_images import list_images, write_training_images
from medhiera.errors import UserError
from medhiera.hub.beginning import write_beginning
from medhiera.hub.data_record import PreprocessingRecord
from medhiera.hub.lineage import lineage_of, teacher_record
from medhiera.hub.model_card import render_card
from medhiera.hub.normalization import choose_preprocessing
from medhiera.hub.record import BegunRecord
from medhiera.inference.classifier import Classifier
from medhiera.run import Run, begin_run, parse_run_config
from medhiera.stages import CLASSIFICATION, PRETRAINING
from medhiera.training.model import check_source, set_prior_bias, start_model
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining

TINY = {"embed_dim": 8, "depths": [1, 1, 1, 1], "decoder_hidden_size": 16, "decoder_depth": 1}


@pytest.fixture
def mae_folder(tmp_path):
    model, new_weights = start_model(
        HieraMAEForPreTraining, ModelArguments(model_overrides=TINY), image_size=[64, 64], decoder_num_heads=2
    )
    assert new_weights == "all"
    model.save_pretrained(tmp_path / "mae")
    return tmp_path / "mae"


def test_a_new_head_predicts_the_share_of_each_finding():
    labels = torch.tensor([[1.0, 0.0, float("nan")], [0.0, 0.0, 1.0], [0.0, 0.0, float("nan")]])
    head = torch.nn.Linear(4, 3)
    set_prior_bias(head, labels)
    torch.testing.assert_close(head.bias.sigmoid(), torch.tensor([1.5 / 4, 0.5 / 4, 1.5 / 2]))


def test_stage_2_keeps_the_encoder_and_names_what_is_new(mae_folder):
    model, new_weights = start_model(
        HieraMAEForImageClassification,
        ModelArguments(model_name_or_path=str(mae_folder)),
        image_size=[64, 64],
        id2label={0: "a", 1: "b"},
        label2id={"a": 0, "b": 1},
    )
    assert model.config.num_query_pool == 3
    assert new_weights == [
        "classifier.bias", "classifier.weight",
        "hiera.pooler.layernorm.bias", "hiera.pooler.layernorm.weight",
    ]  # fmt: skip
    encoder = HieraMAEForPreTraining.from_pretrained(mae_folder).hiera.state_dict()
    for name, weight in model.hiera.state_dict().items():
        if not name.startswith("pooler."):
            assert torch.equal(weight, encoder[name]), name


def test_no_checkpoint_there_is_one_message(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be loaded"):
        start_model(HieraMAEForPreTraining, ModelArguments(model_name_or_path=str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/stage 1/x", "there is no such folder"),
        (
            "nobody/nothing",
            ".a stage of yours is trained first., and the Hub gave no such model .HF_HUB_OFFLINE is set.*: "
            "unset it, or run `hf download nobody/nothing` first",
        ),
        ("EMPTY", "config.json"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_refused_before_any_data_is_read(tmp_path, name, message):
    source = str(tmp_path) if name == "EMPTY" else name
    with pytest.raises(UserError, match=f"--model_name_or_path.*{message}"):
        check_source(ModelArguments(model_name_or_path=source), is_mae=True)
    check_source(ModelArguments(), is_mae=True)


def test_normalization_is_inherited_from_a_stage_alone(mae_folder):
    Preprocessing(64, 73, 0.4, 0.3).to_processor().save_pretrained(mae_folder)
    imagenet_record().write(mae_folder)
    of_data = choose_preprocessing(str(mae_folder), 64, 73, 0.5, 0.2)
    assert (of_data.mean, of_data.std) == (0.5, 0.2)  # an ImageNet checkpoint's own numbers are not used
    for record in (pretraining_record(), classification_record(SOME_REPORT)):
        record.write(mae_folder)
        inherited = choose_preprocessing(str(mae_folder), 96, 110, 0.5, 0.2)
        assert inherited == Preprocessing(96, 110, 0.4, 0.3)


def test_a_checkpoint_keeps_the_normalization_and_lineage_of_its_run(mae_folder):
    checkpoint = mae_folder / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / "complete.json").write_text("{}")
    with pytest.raises(UserError, match=r"is a checkpoint, and no run\.json beside it .* resume it"):
        choose_preprocessing(str(checkpoint), 64, 73, 0.5, 0.2)
    of_run = PreprocessingRecord(64, 73, 0.4, 0.3)
    write_beginning(BegunRecord(stage=1, **facts(preprocessing=of_run)), mae_folder)
    for _ in range(2):
        assert choose_preprocessing(str(checkpoint), 96, 110, 0.5, 0.2) == Preprocessing(96, 110, 0.4, 0.3)
        lineage = lineage_of(str(checkpoint), [])
        history = "from random weights; ChestX-ray14 1,000 images"
        assert lineage.started_from == f"checkpoint-4 of stage 1 ({history})"
        assert lineage.earlier_sources == ["ChestX-ray14"] and lineage.license == "apache-2.0"
        assert [one.stage for one in lineage.leakage_before] == [1]
        pretraining_record(preprocessing=of_run).write(mae_folder)  # the finished run's, of earlier versions
        (mae_folder / "run.json").unlink(missing_ok=True)
    (mae_folder / "metrics.json").unlink()
    (checkpoint / "complete.json").unlink()
    (mae_folder / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json is not the record of a stage"):
        choose_preprocessing(str(checkpoint), 64, 73, 0.5, 0.2)


@pytest.mark.parametrize("is_finished", [False, True])
def test_raw_weights_keep_the_normalization_and_lineage_of_their_stage(mae_folder, is_finished):
    """Of a run with ema_decay; they have no processor of their own."""
    raw = mae_folder / "raw"
    raw.mkdir()
    (raw / "config.json").write_bytes((mae_folder / "config.json").read_bytes())
    of_run = PreprocessingRecord(64, 73, 0.4, 0.3)
    if is_finished:  # also by an earlier version, which wrote no run.json
        pretraining_record(preprocessing=of_run).write(mae_folder)
    else:
        write_beginning(BegunRecord(stage=1, **facts(preprocessing=of_run)), mae_folder)
    assert choose_preprocessing(str(raw), 96, 110, 0.5, 0.2) == Preprocessing(96, 110, 0.4, 0.3)
    lineage = lineage_of(str(raw), [])
    assert lineage.started_from == "raw of stage 1 (from random weights; ChestX-ray14 1,000 images)"
    assert lineage.earlier_sources == ["ChestX-ray14"] and lineage.license == "apache-2.0"
    assert teacher_record(str(raw), "hiera", "0").datasets == ["ChestX-ray14"]


def test_the_folder_of_a_run_that_has_not_finished_is_no_start(mae_folder):
    """Ended between the weights and the record, it would be taken for weights of others."""
    write_beginning(BegunRecord(stage=1, **facts()), mae_folder)
    with pytest.raises(UserError, match=r"of a run that has not finished its stage: resume that"):
        lineage_of(str(mae_folder), [])


@pytest.mark.parametrize("reset_decoder", [False, True])
def test_a_checkpoint_with_an_average_starts_from_it(reset_decoder, mae_folder):
    """The finished stage holds the averaged weights; model.safetensors of a checkpoint are the raw ones."""
    raw = load_file(mae_folder / "model.safetensors")
    average = {name: value + 1 for name, value in raw.items()}
    save_file(average, mae_folder / "ema.safetensors")
    options = ModelArguments(model_name_or_path=str(mae_folder), reset_decoder=reset_decoder)
    model, _ = start_model(HieraMAEForPreTraining, options, image_size=[64, 64])
    name = "hiera.encoder.stages.0.layers.0.mlp.fc1.weight"
    assert torch.equal(model.state_dict()[name], average[name])
    (mae_folder / "ema.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"--model_name_or_path .*ema\.safetensors"):
        check_source(options, is_mae=True)


@pytest.fixture
def classifier_folder(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "classifier"
    torch.manual_seed(0)
    labels = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    model, _ = start_model(
        HieraMAEForImageClassification, ModelArguments(model_overrides=TINY), image_size=[64, 64], **labels
    )
    model.classifier.weight.data *= 50  # untrained scores hardly depend on the image
    model.save_pretrained(folder)
    Preprocessing(64, 72, 0.4, 0.3).to_processor().save_pretrained(folder)
    return folder


def test_a_classifier_goes_on_at_a_larger_size(classifier_folder):
    """224 → 512 in small: every weight is kept, the position embeddings are stretched."""
    small = HieraMAEForImageClassification.from_pretrained(classifier_folder)
    large, new_weights = start_model(
        HieraMAEForImageClassification, ModelArguments(model_name_or_path=str(classifier_folder)),
        image_size=[160, 160], id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}, drop_path_rate=0.3,
    )  # fmt: skip
    assert new_weights == []
    assert large.hiera.encoder.stages[3].layers[0].drop_path == pytest.approx(0.3)
    for name, weight in large.state_dict().items():
        if name.endswith("position_embeddings"):
            assert weight.shape[1] == 40 * 40
        else:
            assert torch.equal(weight, small.state_dict()[name]), name
    assert large(torch.zeros(1, 3, 160, 160)).logits.isfinite().all()


def test_flipping_averages_the_probabilities_of_both_views(classifier_folder):
    classifier = Classifier.from_pretrained(classifier_folder)
    image = Image.linear_gradient("L").rotate(90).resize((72, 72))  # a crop that is the same from both sides
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    views = classifier.probabilities([image, mirrored])
    assert not torch.allclose(views[0], views[1])
    both = classifier.score(classifier.pixel_values([classifier.preprocessing.pixels(image)]), with_flip=True)
    torch.testing.assert_close(both[0], views.mean(dim=0), atol=1e-5, rtol=0)


def test_a_supervised_checkpoint_starts_with_a_new_head_where_asked(tmp_path):
    labels = {"id2label": dict(enumerate("abc")), "label2id": {name: i for i, name in enumerate("abc")}}
    geometry = {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1, 1]}
    HieraMAEForImageClassification._from_config(
        HieraMAEConfig.from_size("tiny", **geometry, id2label=dict(enumerate("vwxyz")))
    ).save_pretrained(tmp_path / "five")
    source = str(tmp_path / "five")
    with pytest.raises(UserError, match=r"classifies into 5 labels; wanted 3.*reset_head: true"):
        start_model(HieraMAEForImageClassification, ModelArguments(model_name_or_path=source), **labels)
    options = ModelArguments(model_name_or_path=source, reset_head=True)
    model, new_weights = start_model(HieraMAEForImageClassification, options, **labels)
    assert model.classifier.weight.shape[0] == 3 and model.classifier.weight.std() > 0
    assert new_weights == ["classifier.bias", "classifier.weight"]


def test_a_new_head_forgets_a_head_of_the_same_size(tmp_path):
    geometry = {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1, 1]}
    old = HieraMAEForImageClassification._from_config(
        HieraMAEConfig.from_size("tiny", **geometry, id2label=dict(enumerate("xyz")))
    )
    with torch.no_grad():
        old.classifier.weight.fill_(3.0)
    old.save_pretrained(tmp_path / "three")
    labels = {"id2label": dict(enumerate("abc")), "label2id": {name: i for i, name in enumerate("abc")}}
    options = ModelArguments(model_name_or_path=str(tmp_path / "three"), reset_head=True)
    model, new_weights = start_model(HieraMAEForImageClassification, options, **labels)
    assert model.classifier.weight.abs().max() < 1
    assert "classifier.weight" in new_weights


def test_a_record_that_cannot_be_read_is_refused_before_any_data_is_opened(mae_folder, tmp_path):
    (tmp_path / "data").mkdir()
    (mae_folder / "metrics.json").write_text('{"stage": 1, "lineage": {}}')
    args = ["--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match="metrics.json is not the record of a stage"):
        begin_run(CLASSIFICATION, [*args, "--model_name_or_path", str(mae_folder), "--use_cpu", "true"])


def test_a_teacher_may_not_have_learned_from_what_is_held_out(tmp_path):
    pictures = [Image.new("L", (64, 64))] * 3
    rows = Dataset.from_dict({"image_id": ["a", "b", "c"], "source": ["s"] * 3, "image": pictures})
    write_training_images(tmp_path, list_images(rows.select([2]), "train"))
    words = ["--target", "features", "--teacher", str(tmp_path), "--data_dir", "d", "--use_cpu", "true"]
    config = parse_config(MAEArguments, [*words, "--output_dir", str(tmp_path / "out")])
    data = SimpleNamespace(is_exported=False)
    run = Run(PRETRAINING, config, None, data, Preprocessing(64, 64, 0.5, 0.25), teacher=str(tmp_path))
    with pytest.raises(UserError, match="was trained on 1 of the 1 validation images, such as 'c'"):
        run.describe(trained_on=rows.select([0, 1]), validated_on=rows.select([2]))


def test_held_out_images_that_the_stage_before_trained_on_are_counted_where_allowed(
    mae_folder, tmp_path, caplog
):
    write_phantom_cohort(tmp_path / "raw", patients=30, image_size=64)
    words = ["--data_dir", str(tmp_path / "raw"), "--image_size", "64", "--use_cpu", "true"]
    words += ["--build_dir", str(tmp_path / "built"), "--model_name_or_path", str(mae_folder)]
    run = begin_run(
        CLASSIFICATION, [*words, "--output_dir", str(tmp_path / "out"), "--allow_leakage", "true"]
    )
    splits = {f"{use}ed_on": run.data.split(name) for use, name in
              (("train", "train"), ("validat", "validation"), ("test", "test"))}  # fmt: skip
    held_out = len(splits["tested_on"])
    write_training_images(mae_folder, list_images(splits["tested_on"], "train"))
    run.describe(**splits)
    leakage = run.facts["data"].leakage
    assert leakage.seen_before == {"test": held_out} and leakage.is_checked
    assert f"was trained on {held_out} of the {held_out} test images, as allowed" in caplog.text
    assert (
        f"ALLOWED. The weights it started from, or its teacher, had been trained on {held_out} of the test"
        in (render_card(classification_record(SOME_REPORT, **run.facts), []))
    )
    run.config.data.allow_leakage = False
    with pytest.raises(UserError, match=f"was trained on {held_out} of the {held_out} test images"):
        run.describe(**splits)


def test_a_folder_is_not_trained_over_itself_nor_over_another_stage(mae_folder, tmp_path):
    data = ["--data_dir", str(tmp_path / "data"), "--use_cpu", "true"]
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="is the folder that training starts from: its weights"):
        begin_run(
            CLASSIFICATION, [*data, "--output_dir", str(mae_folder), "--model_name_or_path", str(mae_folder)]
        )
    linked = tmp_path / "link"
    linked.symlink_to(mae_folder)
    with pytest.raises(UserError, match="is the folder that training starts from"):
        begin_run(
            CLASSIFICATION, [*data, "--output_dir", str(linked), "--model_name_or_path", str(mae_folder)]
        )
    pretraining_record().write(mae_folder)
    for resume in ([], ["--resume_from_checkpoint", "true"]):
        (mae_folder / "checkpoint-1").mkdir(exist_ok=True)
        (mae_folder / "checkpoint-1" / "complete.json").write_text("{}")
        with pytest.raises(
            UserError, match="holds stage 1, whose weights and record|already holds checkpoint"
        ):
            begin_run(CLASSIFICATION, [*data, "--output_dir", str(mae_folder), *resume])
    assert json.loads((mae_folder / "metrics.json").read_text())["stage"] == 1


@pytest.mark.parametrize(
    ("folders", "output", "is_refused"),
    [
        ([], ".", True),
        ([], "NORMAL", True),
        ([], "runs/1", True),
        ([], "../runs", False),
        (["ChestXray-NIHCC"], ".", True),
        (["ChestXray-NIHCC"], "ChestXray-NIHCC/run", True),
        (["ChestXray-NIHCC"], "runs/1", False),  # no image is looked for there
    ],
)
def test_a_run_does_not_write_among_the_images(folders, output, is_refused, tmp_path):
    data = tmp_path / "data"
    for name in ("NORMAL", *folders):
        (data / name).mkdir(parents=True)
    assert lies_in_data(data / output, data) == is_refused
    words = ["--data_dir", str(data), "--output_dir", str(data / output), "--use_cpu", "true"]
    refused = pytest.raises(UserError, match="or lies among its images") if is_refused else nullcontext()
    with refused:
        parse_run_config(PRETRAINING, words)


def test_the_papers_code_normalizes_by_the_mean_of_the_images_own_deviations(tmp_path):
    write_phantom_cohort(tmp_path / "raw", patients=12, image_size=64)
    words = ["--data_dir", str(tmp_path / "raw"), "--image_size", "64", "--use_cpu", "true"]
    words += ["--build_dir", str(tmp_path / "built")]
    stds = []
    for is_on in ("false", "true"):
        run = begin_run(PRETRAINING, [*words, "--output_dir", str(tmp_path / is_on), "--legacy_std", is_on])
        stds.append(run.preprocessing.std)
    [file] = (tmp_path / "built").rglob("pixel_statistics.json")
    statistics = json.loads(file.read_text())
    assert stds == [statistics["std"], statistics["mean_of_stds"]] and stds[0] > stds[1] > 0
