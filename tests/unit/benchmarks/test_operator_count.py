"""What a training step costs a GPU, counted without one: a change that adds 5 % is seen."""

import pytest
import torch

from benchmarks.operator_count import count_step, model_and_graph

TODAY = {"autocast": (1229, 62.56), "bf16_weights": (715, 47.85)}
"""Operators and GB of a step of Hiera-T's MAE, 224 pixels, batch 128."""


@pytest.mark.parametrize("precision", TODAY)
def test_a_step_takes_the_operators_and_bytes_of_before(precision):
    """A heavier step is to be seen; of a lighter one, the figures here and in docs/performance.md."""
    count = count_step("tiny", 128, precision)
    operators, moved = TODAY[precision]
    assert count.kernels.total() == pytest.approx(operators, rel=0.05)
    assert count.bytes.total() / 1e9 == pytest.approx(moved, rel=0.05)
    # What must be there whatever the rest becomes, or the count misses a part of the step.
    assert count.kernels["attention"] == 2 * 20 and count.kernels["optimizer"] == 1
    assert count.bytes["products"] / 1e9 == pytest.approx(18.3, abs=1.0)


def test_the_bytes_are_those_of_the_operators_inputs_and_outputs():
    """Twice the batch: twice the activations; weights and optimizer, some 4 GB here, stay."""
    small, large = (count_step("tiny", batch, "autocast") for batch in (64, 128))
    assert small.kernels == large.kernels
    assert 1.8 < large.bytes.total() / small.bytes.total() < 2.0


@pytest.mark.parametrize("is_compiled", [False, True])
def test_the_traced_paths_are_those_of_training(is_compiled):
    """Weights that are no parameters, or no gradient, would take those of adapters and of inference."""
    _, graph = model_and_graph("tiny", 2, "bf16_weights", is_compiled=is_compiled)
    operators = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert torch.ops.aten.convolution.default not in operators and torch.ops.aten.bmm.default not in operators
    products = sum(
        target in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default) for target in operators
    )
    assert products == 4 * 20 + 3 + 1 + 5  # blocks, shortcuts, the last queries; patches, scales, decoder
