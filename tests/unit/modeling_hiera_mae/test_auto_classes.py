"""transformers' Auto classes know our configurations; our import does not change what a folder opens as."""

import inspect
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from model_configs import TINY, tiny_classifier, tiny_config, tiny_mae
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    HieraConfig,
)

import modeling_hiera_mae as package
from medhiera.hub.published_files import AUTO_MAP, MODEL_CODE, NOT_SHIPPED


def describe(folder):
    """What transformers makes of a folder; runs in another process too, from its source."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    models = {"config": config}
    for name in ("AutoModel", "AutoModelForPreTraining", "AutoModelForImageClassification"):
        auto = getattr(transformers, name)
        models |= {f"{name} folder": auto.from_pretrained(folder), f"{name} config": auto.from_config(config)}
    models["AutoBackbone config"] = transformers.AutoBackbone.from_config(config)
    images = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    logits = models["AutoModelForImageClassification folder"](images).logits.tolist()
    return {
        name: f"{type(model).__module__}.{type(model).__name__}" for name, model in models.items()
    }, logits


AUTO = {
    AutoModel: package.HieraMAEModel,
    AutoModelForPreTraining: package.HieraMAEForPreTraining,
    AutoModelForImageClassification: package.HieraMAEForImageClassification,
    AutoBackbone: package.HieraMAEBackbone,
}


@pytest.mark.parametrize("auto", AUTO, ids=lambda auto: auto.__name__)
def test_our_configuration_gives_our_class(auto):
    assert type(auto.from_config(tiny_config())) is AUTO[auto]


@pytest.mark.parametrize("auto", AUTO, ids=lambda auto: auto.__name__)
def test_stocks_configuration_gives_stocks_class(auto):
    assert (
        type(auto.from_config(HieraConfig(**TINY))).__module__ == "transformers.models.hiera.modeling_hiera"
    )


def test_a_folder_with_our_configuration_gives_our_class(tmp_path):
    trained = tiny_classifier()
    trained.save_pretrained(tmp_path)
    config = package.HieraMAEConfig.from_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, config=config)
    assert type(model) is package.HieraMAEForImageClassification
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(images).logits, trained(images).logits)


def test_the_backbones_model_type_is_known(tmp_path):
    made = AutoConfig.for_model("hiera_mae_backbone", **TINY, out_features=["stage2"])
    assert type(made) is package.HieraMAEBackboneConfig
    made.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is package.HieraMAEBackboneConfig and again.out_features == ["stage2"]
    assert type(AutoBackbone.from_config(again)) is package.HieraMAEBackbone


def test_folders_open_as_the_same_stock_classes_with_and_without_our_import(tmp_path):
    tiny_classifier().save_pretrained(tmp_path)
    script = f"import json, sys\n{inspect.getsource(describe)}\nprint('ANSWER', json.dumps(describe('.')))"
    script += "\nassert 'modeling_hiera_mae' not in sys.modules"
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    classes, logits = json.loads(done.stdout.split("ANSWER")[1])
    assert classes["AutoModel folder"] == "transformers.models.hiera.modeling_hiera.HieraModel"
    assert all(name.startswith("transformers.models.hiera.") for name in classes.values())
    here, logits_here = describe(tmp_path)  # where our package is imported
    assert here == classes
    torch.testing.assert_close(torch.tensor(logits_here), torch.tensor(logits))


def test_an_mae_is_saved_under_stocks_names(tmp_path):
    tiny_mae().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model_type"] == "hiera" and content["architectures"] == ["HieraForPreTraining"]


SAVE_AGAIN = """
import json, sys
from pathlib import Path
from transformers import AutoModelForImageClassification as Auto
published, remote, ours = map(Path, sys.argv[1:])
Auto.from_pretrained(published, trust_remote_code=True).save_pretrained(remote)
for name, code in json.loads((remote / "config.json").read_text())["auto_map"].items():
    assert (remote / (code.split(".")[0] + ".py")).is_file(), name
again = Auto.from_pretrained(remote, trust_remote_code=True)
assert type(again).__module__.startswith("transformers_modules."), type(again)
assert type(Auto.from_pretrained(ours, trust_remote_code=True)).__name__ == "HieraForImageClassification"
"""


def test_what_was_published_opens_with_remote_code_when_it_is_saved_again(tmp_path):
    """A config.json names code that lies beside it; our own class writes none."""
    published, ours = tmp_path / "published", tmp_path / "ours"
    tiny_classifier().save_pretrained(published)
    for file in MODEL_CODE.glob("*.py"):
        if file.name not in NOT_SHIPPED:
            shutil.copy(file, published)
    content = json.loads((published / "config.json").read_text()) | {"auto_map": AUTO_MAP}
    (published / "config.json").write_text(json.dumps(content))
    model = package.HieraMAEForImageClassification.from_pretrained(published)
    model.save_pretrained(ours)
    assert "auto_map" not in json.loads((ours / "config.json").read_text())
    assert model.config.auto_map == AUTO_MAP
    model.save_pretrained(published)  # the code is there
    assert json.loads((published / "config.json").read_text())["auto_map"] == AUTO_MAP
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAVE_AGAIN, published, tmp_path / "remote", ours], check=True,
        cwd=tmp_path, env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""},
    )  # fmt: skip
