"""The decoder that a recipe asks for, its learning rates, and LoRA's changes melted in."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForCausalLM,
    TrainingArguments,
)

from medhiera.config.arguments import OptimizationArguments
from medhiera.config.report_arguments import ReportArguments
from medhiera.data.report_tokenizer import open_tokenizer, train_byte_tokenizer
from medhiera.errors import UserError
from medhiera.training.optimizers import build_optimizer
from medhiera.training.report_model import add_lora, merge_lora, open_decoder, start_report_model
from modeling_hiera_mae import HieraMAEConfig, HieraMAEModel

SMALL = {"decoder_layers": 1, "decoder_width": 16, "decoder_heads": 2, "max_tokens": 12, "num_beams": 2}


def tiny_encoder():
    torch.manual_seed(0)
    return HieraMAEModel(
        HieraMAEConfig.from_size("tiny", embed_dim=8, depths=[1, 1, 1, 1], image_size=[64, 64])
    )


@pytest.fixture(scope="module")
def hub_decoder(tmp_path_factory):
    """A language model's folder as the Hub has them: no padding token, head and embedding tied."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(1)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    ).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["left", "right", "lung", "<|endoftext|>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="lung"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


def test_a_new_decoder_is_of_the_size_asked_for():
    tokenizer = train_byte_tokenizer(["The lungs are clear."], 270)
    model = start_report_model(tiny_encoder(), tokenizer, ReportArguments(**SMALL))
    assert model.decoder.config.vocab_size == len(tokenizer) == model.decoder.lm_head.out_features
    written = model.eval().write(torch.randn(2, 2, 3, 64, 64))
    assert written.shape[0] == 2 and written.shape[1] <= 13
    assert (written[:, 0] == tokenizer.bos_token_id).all()
    assert "max_length" not in model.config.to_diff_dict()  # lengths are the generation config's
    r2gen = start_report_model(tiny_encoder(), tokenizer, ReportArguments())
    assert (r2gen.decoder.config.n_layer, r2gen.decoder.config.n_embd, r2gen.decoder.config.n_head) == (
        3,
        512,
        8,
    )


def test_a_decoder_of_the_hub_keeps_its_weights_and_tokenizer(hub_decoder):
    options = ReportArguments(decoder_name_or_path=str(hub_decoder), max_tokens=15)
    tokenizer = open_tokenizer(str(hub_decoder))
    model = start_report_model(tiny_encoder(), tokenizer, options)
    stored = GPT2LMHeadModel.from_pretrained(hub_decoder).state_dict()
    own = model.decoder.state_dict()
    assert all(torch.equal(own[name], value) for name, value in stored.items())
    assert any("crossattention" in name for name in own.keys() - stored.keys())
    loss = model(torch.randn(2, 3, 64, 64), labels=torch.tensor([[0, 1, 3], [1, 3, -100]])).loss
    loss.backward()
    assert model.generation_config.pad_token_id == 3
    assert str(hub_decoder) not in model.config.to_json_string()


def test_decoders_that_cannot_be_used_are_refused_in_words(tmp_path, hub_decoder):
    with pytest.raises(UserError, match="absent: there is no such folder; the nearest"):
        open_decoder(str(tmp_path / "absent"), ReportArguments())
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    with pytest.raises(UserError, match=r"LlamaForCausalLM, which has no cross-attention"):
        open_decoder(str(tmp_path / "llama"), ReportArguments())
    with pytest.raises(UserError, match="has 16 positions, and max_tokens is 16; set max_tokens to 15"):
        open_decoder(str(hub_decoder), ReportArguments(max_tokens=16))


def test_positions_behind_robertas_padding_are_none_to_write_at(tmp_path):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tokens = {"vocab_size": 50, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = RobertaConfig(**size, **tokens, max_position_embeddings=20, is_decoder=True)
    RobertaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has 18 positions, and max_tokens is 18; set max_tokens to 17"):
        open_decoder(str(tmp_path), ReportArguments(max_tokens=18))
    decoder, _ = open_decoder(str(tmp_path), ReportArguments(max_tokens=17))
    assert decoder(torch.full((1, 18), 5)).logits.shape == (1, 18, 50)
    with pytest.raises((IndexError, RuntimeError)):  # which, depends on transformers
        decoder(torch.full((1, 19), 5))


def test_a_tokenizer_of_more_tokens_than_the_decoder_is_refused_before_training(hub_decoder, tmp_path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(hub_decoder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens([f"more{number}" for number in range(300)])
    tokenizer.save_pretrained(tmp_path)
    options = ReportArguments(decoder_name_or_path=str(hub_decoder), max_tokens=15)
    with pytest.raises(UserError, match="tokenizer has 305 tokens, and its embedding 300; .*resize_token"):
        start_report_model(tiny_encoder(), open_tokenizer(str(tmp_path)), options)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_encoder_learns_at_its_own_rate(tmp_path, optimizer):
    tokenizer = train_byte_tokenizer(["The lungs are clear."], 270)
    model = start_report_model(tiny_encoder(), tokenizer, ReportArguments(**SMALL))
    decay = 0.5 if optimizer == "adamw" else 1.0
    options = OptimizationArguments(optimizer=optimizer, layer_decay=decay)
    training = TrainingArguments(str(tmp_path), learning_rate=1e-3, use_cpu=True)
    built = build_optimizer(model, options, training, 0.1)
    rates = {id(one): group["lr"] for group in built.param_groups for one in group["params"]}
    trained = {name: rates[id(one)] for name, one in model.named_parameters() if one.requires_grad}
    assert len(rates) == len(trained)
    assert {rate for name, rate in trained.items() if not name.startswith("encoder.")} == {1e-3}
    last = [rate for name, rate in trained.items() if name.startswith("encoder.encoder.stages.3")]
    first = [rate for name, rate in trained.items() if name.startswith("encoder.encoder.stages.0")]
    assert last == pytest.approx([1e-4 * decay] * len(last))
    assert first == pytest.approx([1e-4 * decay**4] * len(first))


def test_lora_without_peft_is_refused_in_words(hub_decoder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    decoder, new = open_decoder(str(hub_decoder), ReportArguments(max_tokens=15))
    with pytest.raises(UserError, match="lora_rank needs the package peft"):
        add_lora(decoder, 2, new)


def test_lora_changes_little_and_melts_into_the_weights(hub_decoder, tmp_path):
    pytest.importorskip("peft")
    options = ReportArguments(decoder_name_or_path=str(hub_decoder), max_tokens=15, lora_rank=2)
    model = start_report_model(tiny_encoder(), open_tokenizer(str(hub_decoder)), options)
    stored = GPT2LMHeadModel.from_pretrained(hub_decoder).state_dict()
    trained = [name for name, one in model.decoder.named_parameters() if one.requires_grad]
    assert trained and all("lora_" in name or "cross" in name for name in trained)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], 0.5)
    pictures, labels = torch.randn(2, 3, 64, 64), torch.tensor([[0, 1, 3], [1, 3, -100]])
    for _ in range(3):
        model(pictures, labels=labels).loss.backward()
        optimizer.step()
    model.eval()
    expected = model(pictures, labels=labels).logits
    merge_lora(model)
    torch.testing.assert_close(model(pictures, labels=labels).logits, expected)
    assert not any("lora_" in name for name in model.state_dict())
    assert not torch.equal(
        model.decoder.transformer.h[0].attn.c_attn.weight, stored["transformer.h.0.attn.c_attn.weight"]
    )
    model.save_finished(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(pictures, labels=labels).logits, expected)
