"""The recipe parser: file and command line, and what it refuses."""

from pathlib import Path

import pytest

from medhiera.recipe import ClassifierOptions, MAEOptions, RecipeError, read_recipe

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def write(tmp_path):
    def write_yaml(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return [str(path), "--data_dir", "data", "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]

    return write_yaml


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_read(path, tmp_path):
    stage = MAEOptions if path.stem.startswith("mae") else ClassifierOptions
    recipe = read_recipe(
        stage, [str(path), "--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    )
    assert recipe.data.image_size % 32 == 0
    assert recipe.training.learning_rate > 0


def test_command_line_overrides_file(write):
    recipe = read_recipe(
        MAEOptions, [*write("mask_ratio: 0.7\nlearning_rate: 3.0e-4"), "--mask_ratio", "0.8"]
    )
    assert recipe.stage.mask_ratio == 0.8
    assert recipe.training.learning_rate == 3e-4


def test_exponent_without_dot_is_a_number(write):
    assert read_recipe(MAEOptions, write("learning_rate: 1e-4")).training.learning_rate == 1e-4


def test_mapping_and_list_reach_their_fields(write):
    recipe = read_recipe(MAEOptions, write("model_overrides: {depths: [1, 1, 1, 1]}\nsources: [a b, c]"))
    assert recipe.model.overrides() == {"depths": [1, 1, 1, 1]}
    assert recipe.data.sources == ["a b", "c"]


def test_weights_come_from_the_file_or_the_command_line(write):
    from_file = read_recipe(MAEOptions, write("mixing: {ChestX-ray14: 0.5, BraTS 2020: 1}"))
    assert from_file.data.weights() == {"ChestX-ray14": 0.5, "BraTS 2020": 1}
    typed = read_recipe(MAEOptions, [*write("seed: 1"), "--mixing", '{"ChestX-ray14": 2}'])
    assert typed.data.weights() == {"ChestX-ray14": 2}
    assert read_recipe(MAEOptions, write("seed: 1")).data.weights() == {}


def test_weights_are_for_stage_1(write):
    with pytest.raises(RecipeError, match="mixing is for stage 1"):
        read_recipe(ClassifierOptions, write("mixing: {ChestX-ray14: 1}"))


def test_resize_follows_image_size_as_in_the_paper(write):
    assert read_recipe(MAEOptions, write("image_size: 224")).data.resize_size == 256


@pytest.mark.parametrize(
    ("text", "extra", "message"),
    [
        ("mask_ration: 0.6", [], "unknown key 'mask_ration'; did you mean 'mask_ratio'"),
        ("mask_ratio: 0.6", ["--mask_rat", "0.7"], "unknown key 'mask_rat'; did you mean 'mask_ratio'"),
        ("mask_ratio: 0.6", ["--zzzz", "1"], "unknown key 'zzzz'; see --help"),
        ("mask_ratio: many", [], "cannot be read"),
        ("[1, 2]", [], "holds list; wanted one mapping"),
        ("a: [", [], "is not YAML"),
        ("model_size: giant", [], "cannot be read"),
        ("model_overrides: tiny", [], "model_overrides is not a mapping"),
        ("mixing: much", [], "mixing is not a mapping"),
        ("mixing: [ChestX-ray14, 1]", [], "cannot be read|unrecognized|unknown key|not a mapping"),
        ("mixing: {}", [], "mixing is empty; wanted source: weight"),
        ("mixing: {a: 0, b: 1}", [], "mixing gives 'a' the weight 0; wanted a positive number"),
        ("mixing: {a: -1}", [], "mixing gives 'a' the weight -1"),
        ("mixing: {a: lots}", [], "mixing gives 'a' the weight 'lots'"),
        ("mixing: {a: .inf}", [], "mixing gives 'a' the weight inf"),
        ("mixing: {a: 1, b: 1}\nsources: [a]", [], r"mixing names \['b'\], which `sources` leaves out"),
        ("resize_size: 100", [], "below image_size"),
        ("precision: bf16\nbf16: true", [], "set precision alone"),
    ],
)
def test_faults_are_named(write, text, extra, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(MAEOptions, [*write(text), *extra])


def test_all_faults_at_once(write):
    with pytest.raises(RecipeError) as caught:
        read_recipe(MAEOptions, write("image_size: 100\nmask_ratio: 1.5\neval_mask_ratio: 0"))
    message = str(caught.value)
    assert "image_size is 100; wanted a multiple of 32, such as 96 or 128" in message
    assert "mask_ratio is 1.5" in message
    assert "eval_mask_ratio is 0" in message


def test_missing_file_says_where_recipes_lie():
    with pytest.raises(RecipeError, match="configs/"):
        read_recipe(MAEOptions, ["nowhere.yaml"])


def test_a_stage_1_key_is_unknown_in_stage_2(write):
    with pytest.raises(RecipeError, match="unknown key 'mask_ratio'"):
        read_recipe(ClassifierOptions, write("mask_ratio: 0.6"))


def test_no_path_of_the_user_is_recorded(write, tmp_path):
    recipe = read_recipe(MAEOptions, [*write("seed: 3"), "--model_name_or_path", str(tmp_path)])
    assert str(tmp_path) not in str(recipe.as_json())
