"""Every name that `attn_implementation` is given takes effect, or is refused in words; by every door."""

import pytest
import torch
from model_configs import tiny_classifier, tiny_config, tiny_mae
from transformers import AttentionInterface, AutoModelForImageClassification

from modeling_hiera_mae import HieraMAEForImageClassification

DOORS = {
    "configuration": lambda name, folder: tiny_classifier(attn_implementation=name),
    "from_config": lambda name, folder: AutoModelForImageClassification.from_config(
        tiny_config(num_labels=3), attn_implementation=name
    ),
    "from_pretrained": lambda name, folder: HieraMAEForImageClassification.from_pretrained(
        folder, attn_implementation=name
    ),
    "set_attn_implementation": lambda name, folder: set_later(name),
}
EVERY_DOOR = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


def set_later(name):
    model = tiny_classifier()
    model.set_attn_implementation(name)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("classifier")
    tiny_classifier().save_pretrained(place)
    return place


@pytest.fixture
def registered():
    """A name of ours in transformers' AttentionInterface, and the calls that it got."""
    calls = []

    def attend(module, query, key, value, attention_mask, scaling, dropout, is_causal, **options):
        calls.append((query.shape[2], key.shape[2]))
        weights = (query @ key.transpose(-1, -2) * scaling).softmax(-1)
        return (weights @ value).transpose(1, 2), None

    AttentionInterface.register("counting", attend)
    yield calls
    AttentionInterface._global_mapping.pop("counting")  # there is no public way back


@EVERY_DOOR
def test_a_registered_function_attends(registered, folder, door):
    model = door("counting", folder).eval()
    images = torch.randn(2, 3, 64, 64)
    logits = model(images).logits
    assert len(registered) == sum(model.config.depths)
    assert (16, 64) in registered  # pooled queries
    model.set_attn_implementation("eager")
    torch.testing.assert_close(logits, model(images).logits)


def test_the_decoder_attends_by_it_too(registered):
    model, inputs = tiny_mae(), {"pixel_values": torch.randn(2, 3, 64, 64), "noise": torch.rand(2, 4)}
    wanted = model(**inputs).loss
    model.set_attn_implementation("counting")
    torch.testing.assert_close(model(**inputs).loss, wanted)
    torch.testing.assert_close(model.train()(**inputs).loss, wanted)  # its last block: masked queries alone
    layers = sum(model.config.depths) + model.config.decoder_depth
    assert len(registered) == 2 * layers


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_flex_attention_attends():
    model, images = tiny_classifier(embed_dim=16), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(images).logits
        model.set_attn_implementation("flex_attention")
        with torch.compiler.set_stance("force_eager"):  # compiling takes two minutes on a CPU, and agrees
            torch.testing.assert_close(model(images).logits, wanted)


@EVERY_DOOR
def test_an_unknown_name_is_refused(folder, door):
    with pytest.raises(ValueError, match="attn_implementation is 'nonsense'; wanted 'eager'"):
        door("nonsense", folder)
    with pytest.raises(ValueError, match=r"attn_implementation is 'paged\|eager'; wanted"):
        door("paged|eager", folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it may be installed there")
@EVERY_DOOR
def test_flash_attention_that_is_not_installed_is_refused(folder, door):
    with pytest.raises(ImportError, match="FlashAttention2 has been toggled on, but it cannot be used"):
        door("flash_attention_2", folder)


def test_weights_are_asked_for_in_vain_of_any_fused_function(registered):
    model = tiny_classifier(attn_implementation="counting")
    with pytest.raises(ValueError, match="'counting', which gives no weights.*attn_implementation='eager'"):
        model(torch.zeros(1, 3, 64, 64), output_attentions=True)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flash_attention_2", "flex_attention"])
@pytest.mark.filterwarnings("default")
def test_on_a_gpu_they_agree_with_torchs(name):
    if name == "flash_attention_2":
        pytest.importorskip("flash_attn")
    model = tiny_classifier(embed_dim=16).cuda().bfloat16()
    images = torch.randn(2, 3, 64, 64, device="cuda", dtype=torch.bfloat16)
    results = []
    for implementation in ("sdpa", name):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        logits = model.train()(images).logits
        logits.float().square().sum().backward()
        results.append([logits, model.hiera.embeddings.position_embeddings.grad])
    for wanted, found in zip(*results, strict=True):
        scale = float(wanted.detach().abs().max())
        torch.testing.assert_close(found, wanted, rtol=0, atol=3e-2 * scale)
