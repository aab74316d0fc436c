"""Each file of configs/accelerate is read by accelerate itself, and says what its name says."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

import modeling_hiera_mae

FOLDER = Path(__file__).parents[3] / "configs" / "accelerate"
NAMES = ["cpu_2ranks", "ddp_8gpu", "fsdp2", "one_gpu", "two_nodes"]


def test_all_are_here():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    expected = {"one_gpu": 1, "two_nodes": 16, "cpu_2ranks": 2}.get(name, 8)
    assert config.num_processes == expected
    assert config.num_machines == (2 if name == "two_nodes" else 1)
    assert config.mixed_precision == "no"


def test_fsdp_wraps_our_block():
    fsdp = load_config_from_file(str(FOLDER / "fsdp2.yaml")).fsdp_config
    assert fsdp["fsdp_transformer_layer_cls_to_wrap"] in modeling_hiera_mae.HieraMAEModel._no_split_modules
    assert fsdp["fsdp_version"] == 2


def test_two_cpu_ranks_are_launched_as_two():
    words = ["--config_file", str(FOLDER / "cpu_2ranks.yaml"), "train_mae.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert args.num_processes == 2 and args.multi_gpu and not args.cpu


def test_no_key_is_misspelt():
    for name in NAMES:
        content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        known = set(vars(load_config_from_file(str(FOLDER / f"{name}.yaml"))))
        assert set(content) <= known, name
