"""Mistyped names: which are refused without asking the Hub, and what is suggested for them."""

from pathlib import Path

import pytest

from dataset_scripts.mistyped import did_you_mean, folder_fault, is_repository, no_folder


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A current folder with data/chest_xray, runs/stage2 and a file."""
    for name in ("data/chest_xray", "runs/stage2", "beans"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "chest.png").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data/chest_xry", "did you mean data/chest_xray?"),
        ("data/CHEST_XRAYS", "did you mean data/chest_xray?"),
        ("dta/chest_xray", "did you mean data/chest_xray?"),  # no parent, but nearly all of it is here
        ("./run/stage_2", "did you mean runs/stage2?"),
        ("runs/stage2/model", "the nearest that exists is runs/stage2"),
        ("a/b/c", "there is no such folder in "),
        ("~/no such folder at home", "there is no such folder; the nearest that exists is "),
        ("data/chest.png/x", "the nearest that exists is data"),
        ("bean", "did you mean beans?"),
    ],
)
def test_what_looks_like_a_path_is_refused_with_the_nearest_folder(name, said):
    assert said in folder_fault(name)


def test_a_whole_path_is_followed_from_its_first_wrong_part(place):
    typed = place / "dat" / "chestxray"
    assert folder_fault(str(typed)) == f"there is no such folder; did you mean {place}/data/chest_xray?"


@pytest.mark.parametrize(
    "name",
    [
        "data",
        "data/chest_xray",
        "data/chest.png",
        "data/mnist",
        "facebook/hiera-tiny-224-hf",
        "mnist",
        "ylecun/mnist",
    ],
)
def test_what_exists_or_may_be_a_hub_id_is_not_refused(name):
    assert folder_fault(name) is None


@pytest.mark.parametrize("name", ["meta/hiera-base-224-hf", "meta/hiera-tiny-448-hf", "runs/stage3", "runs2"])
def test_a_repository_beside_a_mirror_of_its_sibling_is_not_refused(place, name):
    (place / "meta" / "hiera-tiny-224-hf").mkdir(parents=True)
    assert folder_fault(name) is None


def test_a_file_is_suggested_where_one_may_be_meant():
    assert no_folder(Path("data/chets.png"), or_file=True) == (
        "there is no such file or folder; did you mean data/chest.png?"
    )
    assert "data/chest.png" not in no_folder(Path("data/chets.png"))


def test_a_word_is_suggested_only_where_one_is_like_it():
    words = ["predict", "train-cls", "publish"]
    assert did_you_mean("predct", words) == "; did you mean 'predict'?"
    assert did_you_mean("train_cls", words) == "; did you mean 'train-cls'?"
    assert did_you_mean("pub", words) == "; did you mean 'publish'?"
    assert did_you_mean("p", words) == "; did you mean 'predict' or 'publish'?"
    assert did_you_mean("xyz", words) == "" == did_you_mean("", words)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("hf://some-lab/chest-hiera", "some-lab/chest-hiera"),
        ("hf://datasets/some-lab/chest", "some-lab/chest"),
        ("https://example.org/some-lab/chest-hiera/tree/main", "some-lab/chest-hiera"),
        ("https://example.org/datasets/some-lab/chest", "some-lab/chest"),
    ],
)
def test_an_address_is_answered_with_the_id_in_it(address, wanted):
    assert folder_fault(address).endswith(f"an id on the Hub, NAME/REPOSITORY: give {wanted}")
    assert folder_fault("s3://bucket").endswith("an id on the Hub, NAME/REPOSITORY")


@pytest.mark.parametrize("name", ["ORG/data-v1.0", "me/model", "my_org/x-ray.2"])
def test_a_hub_id_may_hold_a_dot_but_is_no_name_of_a_file_here(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_repository(name)
    (tmp_path / name).mkdir(parents=True)
    assert not is_repository(name)


@pytest.mark.parametrize(
    "name", ["data", "~/data", "./data", "/data", "a/b/c", "a file / mine", "hf://a/b", ""]
)
def test_what_is_no_hub_id(name):
    assert not is_repository(name)
