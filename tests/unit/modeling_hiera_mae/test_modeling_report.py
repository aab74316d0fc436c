"""The model that writes reports: views and their mask, the loss, and a folder that stock opens."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, GenerationConfig, GPT2Config, GPT2LMHeadModel
from transformers.modeling_outputs import BaseModelOutput

from modeling_hiera_mae import HieraMAEConfig, HieraMAEModel
from modeling_hiera_mae.modeling_report import VIEWS_FILE, HieraMAEForReports

PAD, START, END, WORDS = 0, 1, 2, 40


def make_model(views=2, decoder_width=16, tie=False):
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size("tiny", embed_dim=8, depths=[1, 1, 1, 1], image_size=[64, 64])
    decoder = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS, n_positions=24, n_embd=decoder_width, n_layer=2, n_head=2, is_decoder=True,
            add_cross_attention=True, tie_word_embeddings=tie, bos_token_id=START, eos_token_id=END,
            pad_token_id=PAD,
        )
    )  # fmt: skip
    tokens = {
        "pad_token_id": PAD,
        "bos_token_id": START,
        "eos_token_id": END,
        "decoder_start_token_id": START,
    }
    model = HieraMAEForReports.join(HieraMAEModel(config), decoder, views=views, **tokens).eval()
    model.generation_config = GenerationConfig(max_new_tokens=12, num_beams=3, **tokens)
    if model.view_embeddings is not None:
        torch.nn.init.normal_(model.view_embeddings)
    return model


@pytest.fixture
def pictures():
    return torch.randn(3, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def labels_of(studies=3):
    labels = torch.randint(3, WORDS, (studies, 7), generator=torch.Generator().manual_seed(2))
    labels[1, 4:] = -100
    return labels


def test_a_study_of_one_view_is_what_stock_computes(tmp_path, pictures):
    model = make_model()
    model.save_finished(tmp_path)
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert type(stock).__name__ == "VisionEncoderDecoderModel"
    has_view = torch.tensor([[True, False]] * 3)
    with torch.no_grad():
        ours = model(pictures, has_view, labels=labels_of())
        theirs = stock(pictures[:, 0], labels=labels_of())
    is_token = labels_of() != -100  # stock looks at padding after a report's end, whose logits nobody reads
    torch.testing.assert_close(ours.logits[is_token], theirs.logits[is_token])
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert torch.equal(model.write(pictures, has_view), stock.generate(pictures[:, 0]))


def test_stock_writes_of_two_views_with_five_lines(tmp_path, pictures):
    model = make_model()
    model.save_finished(tmp_path)
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    embeddings = load_file(tmp_path / VIEWS_FILE)["view_embeddings"]
    for study in pictures:
        states = stock.encoder(study).last_hidden_state
        states[1:] += embeddings[:, None]
        written = stock.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.flatten(0, 1)[None])
        )
        assert torch.equal(written, model.write(study[None]))


def test_padding_changes_nothing(pictures):
    model = make_model()
    has_view = torch.tensor([[True, True], [True, False], [True, True]])
    with torch.no_grad():
        together = model(pictures, has_view, labels=labels_of()).logits
        for study in range(3):
            views = int(has_view[study].sum())
            alone = model(pictures[study : study + 1, :views], labels=labels_of()[study : study + 1]).logits
            torch.testing.assert_close(together[study : study + 1], alone)
    dark = pictures.clone()
    dark[1, 1] = 7.0
    assert torch.equal(model.write(pictures, has_view), model.write(dark, has_view))


def test_the_second_view_and_its_place_count(pictures):
    model = make_model()
    with torch.no_grad():
        both = model(pictures, labels=labels_of()).logits
        swapped = model(pictures.flip(1), labels=labels_of()).logits
        first = model(pictures[:, :1], labels=labels_of()).logits
    assert not torch.allclose(both, swapped)
    assert not torch.allclose(both, first)


def test_accumulated_batches_share_one_loss(pictures):
    model = make_model()
    labels = labels_of()
    count = (labels != -100).sum()
    whole = model(pictures, labels=labels).loss
    parts = [
        model(pictures[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=count).loss for i in range(3)
    ]
    torch.testing.assert_close(whole, sum(parts))


def test_configurations_may_ask_for_tuples(pictures):
    model = make_model()
    wanted = model(pictures, labels=labels_of())
    written = model.write(pictures)
    for part in (model, model.encoder, model.decoder):
        part.config.return_dict = False
    loss, logits, *_ = model(pictures, labels=labels_of())
    assert torch.equal(loss, wanted.loss) and torch.equal(logits, wanted.logits)
    assert torch.equal(model.write(pictures), written)


def test_label_smoothing_is_of_training_alone(pictures):
    model = make_model()
    model.decoder.eval()
    plain = model(pictures, labels=labels_of()).loss
    model.label_smoothing = 0.3
    assert model(pictures, labels=labels_of()).loss == plain
    model.training = True
    assert model(pictures, labels=labels_of()).loss != plain


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("width", [16, 64])  # with and without the projection between encoder and decoder
def test_every_trained_weight_has_a_gradient(pictures, views, width):
    model = make_model(views, width)
    assert hasattr(model, "enc_to_dec_proj") == (width == 16)
    model(pictures[:, :views], labels=labels_of()).loss.backward()
    without = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert without == []


def test_joining_leaves_both_parts_as_they_were():
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size("tiny", embed_dim=8, depths=[1, 1, 1, 1], image_size=[64, 64])
    encoder = HieraMAEModel(config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    decoder = make_model().decoder
    wte = decoder.get_input_embeddings().weight.clone()
    model = HieraMAEForReports.join(encoder, decoder, views=1, pad_token_id=0, decoder_start_token_id=1)
    assert all(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    assert torch.equal(model.decoder.get_input_embeddings().weight, wte)


@pytest.mark.parametrize("tie", [False, True])
def test_a_folder_and_a_checkpoint_come_back(tmp_path, pictures, tie):
    model = make_model(tie=tie)
    model.save_finished(tmp_path / "finished")
    model.save_pretrained(tmp_path / "checkpoint")
    expected = model.write(pictures)
    for folder in ("finished", "checkpoint"):
        again = HieraMAEForReports.from_pretrained(tmp_path / folder).eval()
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
        assert torch.equal(again.write(pictures), expected)
    config = json.loads((tmp_path / "finished" / "config.json").read_text())
    assert config["architectures"] == ["VisionEncoderDecoderModel"]
    assert config["encoder"]["model_type"] == "hiera"


def test_other_folders_are_refused(tmp_path, pictures):
    model = make_model()
    model.save_finished(tmp_path)
    (tmp_path / VIEWS_FILE).unlink()
    with pytest.raises(ValueError, match="view_embeddings"):
        HieraMAEForReports.from_pretrained(tmp_path)
    model.encoder.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="wanted a Hiera that writes reports"):
        HieraMAEForReports.from_pretrained(tmp_path / "encoder")
    (tmp_path / "absent").mkdir()
    with pytest.raises(OSError, match=r"no config\.json"):
        HieraMAEForReports.from_pretrained(tmp_path / "absent")
