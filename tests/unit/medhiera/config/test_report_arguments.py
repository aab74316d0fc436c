"""Recipes of stage 2 for reports: those we ship are read, and what would make reports lie is refused."""

import pytest

from medhiera.config.parser import parse_config
from medhiera.config.report_arguments import ReportArguments
from medhiera.errors import UserError


def parse(root, recipe, *words):
    own = ["--data_dir", "data", "--output_dir", "runs/report", "--use_cpu", "true"]
    return parse_config(ReportArguments, [str(root / "configs" / f"report_{recipe}.yaml"), *own, *words])


@pytest.mark.parametrize(
    ("recipe", "tokens", "beams", "metric"),
    [("r2gen", 60, 3, "bleu_4"), ("modern", 128, 4, "cider"), ("smoke", None, 1, "cider")],
)
def test_our_recipes_are_read(root, recipe, tokens, beams, metric):
    config = parse(root, recipe)
    assert config.training.metric_for_best_model == metric and config.training.greater_is_better
    assert config.stage.num_beams == beams and tokens in (None, config.stage.max_tokens)
    assert not config.augmentation.horizontal_flip
    if recipe == "modern":
        assert config.training.learning_rate * config.stage.encoder_rate == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--horizontal_flip true",
            "horizontal_flip mirrors pictures and not reports, so `left` would be a lie",
        ),
        ("--rand_augment true", "rand_augment moves what a report places"),
        ("--lora_rank 4", "lora_rank is for a pre-trained decoder"),
        ('--model_overrides {"num_query_pool":2}', "cannot set num_query_pool: a report's decoder reads one"),
        (
            '--model_overrides {"num_channels":1}',
            "cannot set num_channels: stock transformers gives a model of reports three",
        ),
        ("--max_train_images 5", "would part the views of a study; set max_train_studies"),
        ("--label_smoothing_factor 0.1", "label_smoothing_factor is not taken"),
        ("--legacy_vocabulary true --clean none", "leave clean: none out"),
        ("--legacy_vocabulary true --decoder_name_or_path x", "has its own vocabulary"),
        ("--decoder_width 100 --decoder_heads 8", "does not divide among decoder_heads 8"),
        ("--metric_for_best_model mean_auroc", "wanted one of cider, bleu_4, rouge_l, loss"),
        ("--report_section findngs", "report_section"),
        ("--num_beams 0", "num_beams is 0; wanted a whole number from 1 to 64"),
    ],
)
def test_what_cannot_be_is_refused_in_words(root, words, said):
    with pytest.raises(UserError, match=said):
        parse(root, "modern", *words.split())


def test_a_record_names_no_folder_of_this_machine(root, tmp_path):
    """A published recipe of a decoder from a folder: its path would be refused when the folder is pushed."""
    recipe = parse(
        root, "modern", "--decoder_name_or_path", str(tmp_path), "--chexbert", str(tmp_path)
    ).as_json()
    assert recipe["decoder_name_or_path"] == tmp_path.name and "chexbert" not in recipe
    of_hub = parse(root, "modern", "--decoder_name_or_path", "some-org/gpt2").as_json()
    assert of_hub["decoder_name_or_path"] == "some-org/gpt2"
