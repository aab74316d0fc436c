"""The step benchmark in high definition: its contenders hide the same share, and its ratio is by round."""

import pytest
import torch

from benchmarks.high_definition import MASK_RATIO, MODELS, REFERENCE, make_model, row


@pytest.mark.parametrize("name", MODELS)
def test_every_contender_is_of_one_channel_and_hides_the_same_share(name):
    with torch.device("meta"):
        model = make_model(name, 1280)
    assert model.config.num_channels == 1 and model.config.mask_ratio == MASK_RATIO
    tokens = {"vit-s": 64, "vit-l": 64, "ours, 16-px tokens": 16}.get(name, 32)
    head = (model.decoder.decoder_pred).out_features
    assert head == tokens**2


def test_the_papers_model_is_a_vit_l():
    with torch.device("meta"):
        parameters = sum(one.numel() for one in make_model(REFERENCE, 1280).vit.parameters())
    assert 300e6 < parameters < 310e6


def test_the_ratio_is_of_steps_in_the_same_round():
    seconds = {"ours, 32-px tokens": [1.0, 2.0, 4.0], REFERENCE: [2.0, 5.0, 6.0]}
    line = row("ours, 32-px tokens", seconds, 1280, 2, 1234.0)
    assert line.endswith("| 2 (1–4) | 1.00 | 2.00 (1.50–2.50) | 1,234 |")
