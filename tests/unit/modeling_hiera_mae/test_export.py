"""torch.export of encoder, classifier and backbone: one graph for any batch, of torch's own operators."""

import pytest
import torch
from model_configs import TINY, tiny_classifier, tiny_config
from torch.export import Dim

from modeling_hiera_mae import HieraMAEBackbone, HieraMAEBackboneConfig, HieraMAEModel

MODELS = {
    "encoder": lambda: HieraMAEModel(tiny_config()),
    "classifier": lambda: tiny_classifier(depths=[1, 1, 1, 1]),
    "backbone": lambda: HieraMAEBackbone(HieraMAEBackboneConfig(**TINY, out_features=["stage1", "stage4"])),
}


def tensors(output):
    """The tensors of a model's output, maps of a tuple one by one."""
    return [
        tensor
        for value in output.values()
        for tensor in (value if isinstance(value, tuple) else (value,))
        if isinstance(tensor, torch.Tensor)
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "classifier",
        pytest.param("encoder", marks=pytest.mark.slow),
        pytest.param("backbone", marks=pytest.mark.slow),
    ],
)
def test_an_exported_model_takes_any_batch(kind, tmp_path):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        program = torch.export.export(
            model, (torch.randn(2, 3, 64, 64),), dynamic_shapes={"pixel_values": {0: Dim("batch")}}
        )
        assert "mkldnn" not in str(program.graph)
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        for batch in (1, 2, 5):
            images = torch.randn(batch, 3, 64, 64)
            for found, wanted in zip(tensors(loaded(images)), tensors(model(images)), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
