"""The bare step is the recipe's: its precision, its optimizer, its options from the command line."""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.trainer_overhead import bare_step, make_bare_step, read_options, words_of
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import MAEArguments

OVERRIDES = '{"embed_dim": 16, "depths": [1, 1, 1, 1], "decoder_depth": 1}'
WORDS = ["data", "--recipe", "configs/mae_modern.yaml", "--batch_size", "2", "--warm_up", "1", "--steps", "2"]
MORE = ["--image_size", "64", "--model_overrides", OVERRIDES]


def recipe_of(*more):
    options = read_options([*WORDS, *MORE, *more])
    return parse_config(MAEArguments, words_of(options, Path("/nonexistent")))


class Operators(TorchDispatchMode):
    """Types of what linear layers multiply, and how often something is cast."""

    def __init__(self):
        super().__init__()
        self.products, self.casts = set(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "_linear_pointwise"):
            self.products.add(args[0].dtype)
        self.casts += name == "_to_copy"
        return function(*args, **(kwargs or {}))


def test_the_bare_step_computes_as_the_recipe_says():
    seen = {}
    for precision in ("fp32", "bf16", "bf16_weights"):
        step = make_bare_step(recipe_of("--precision", precision), torch.device("cpu"))
        step()
        with Operators() as seen[precision]:
            step()
    assert seen["fp32"].products == {torch.float32}
    assert seen["bf16"].products == seen["bf16_weights"].products == {torch.bfloat16}
    assert seen["bf16_weights"].casts < seen["bf16"].casts / 2


def test_options_that_are_not_its_own_reach_the_trainer_and_the_bare_step():
    recipe = recipe_of("--torch_compile", "true", "--precision", "bf16_weights")
    assert recipe.training.torch_compile and recipe.optimization.precision == "bf16_weights"
    assert recipe.data.image_size == 64 and recipe.training.max_steps == 3
    assert bare_step(recipe_of(), torch.device("cpu"), warm_up=1) > 0


def test_the_bare_step_of_cuda_graphs_leaves_cudnns_attention_out_as_the_trainer_does():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        recipe_of("--torch_compile_mode", "reduce-overhead")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_steps_that_the_log_does_not_show_are_refused(capsys):
    with pytest.raises(SystemExit):
        read_options([*WORDS, "--logging_steps", "2"])
    assert "must be multiples of --logging_steps" in capsys.readouterr().err
