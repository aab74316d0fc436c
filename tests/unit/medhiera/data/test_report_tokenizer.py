"""Tokenizers of reports: an exact round trip, R2Gen's vocabulary, and folders that AutoTokenizer opens."""

import json

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from medhiera.data.report_tokenizer import (
    SMALLEST_VOCABULARY,
    decode_reports,
    encode_report,
    open_tokenizer,
    train_byte_tokenizer,
    train_word_tokenizer,
)
from medhiera.errors import UserError
from medhiera.evaluation.report_cleaning import clean_iu

REPORTS = ["The heart is normal.", "Small LEFT pleural effusion, 2.5 cm.", "No pneumothorax."] * 3


def test_bytes_come_back_exactly_whatever_was_never_seen():
    tokenizer = train_byte_tokenizer(REPORTS, 300)
    assert len(tokenizer) == 300
    for report in ("  Größe 3×4 cm,\n\nXXXX — 胸\t.", "left", "", *REPORTS):
        tokens = encode_report(tokenizer, report, 1000)
        assert tokens[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(tokens, skip_special_tokens=True) == report
    assert len(encode_report(tokenizer, REPORTS[1], 1000)) < len(REPORTS[1])


def test_a_long_report_is_cut_and_has_no_end():
    tokenizer = train_byte_tokenizer(REPORTS, SMALLEST_VOCABULARY)
    assert len(encode_report(tokenizer, "x" * 50, 10)) == 10
    assert tokenizer.eos_token_id not in encode_report(tokenizer, "x" * 50, 10)
    assert encode_report(tokenizer, "x" * 9, 10)[-1] == tokenizer.eos_token_id


def test_the_word_level_is_r2gens():
    tokenizer = train_word_tokenizer(["heart normal .", "heart large .", "heart normal .", "lungs normal ."])
    assert sorted(tokenizer.get_vocab()) == [".", "</s>", "<pad>", "<s>", "<unk>", "heart", "normal"]
    tokens = encode_report(tokenizer, "heart is normal .", 60)
    assert tokenizer.decode(tokens) == "heart <unk> normal . </s>"
    written = [tokenizer.bos_token_id, *tokens, tokenizer.pad_token_id]
    assert decode_reports(tokenizer, [written]) == [
        "heart <unk> normal ."
    ]  # unseen, it would say something else


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_stock_opens_it_and_makes_the_prompt_of_an_empty_text(tmp_path, kind):
    made = train_byte_tokenizer(REPORTS, 300) if kind == "bytes" else train_word_tokenizer(REPORTS)
    made.save_pretrained(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    assert stock("")["input_ids"] == [stock.bos_token_id] == [made.bos_token_id]
    assert stock(REPORTS[1])["input_ids"] == made(REPORTS[1])["input_ids"]
    assert stock.decode(stock(REPORTS[0])["input_ids"], skip_special_tokens=True) == (
        REPORTS[0] if kind == "bytes" else "The heart is normal."
    )


def test_a_decoders_own_tokenizer_gets_what_gpt_2_lacks(tmp_path):
    vocabulary = {word: number for number, word in enumerate(["a", "b", "<|endoftext|>"])}
    GPT2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    tokenizer = open_tokenizer(str(tmp_path))
    assert tokenizer("")["input_ids"] == [2] and tokenizer.pad_token_id == 2
    assert encode_report(tokenizer, "ab", 10) == [0, 1, 2]


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no usable tokenizer"):
        open_tokenizer(str(tmp_path))
    endless = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    endless.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no end token"):
        open_tokenizer(str(tmp_path))


@pytest.mark.realdata
def test_on_r2gens_iu_x_ray(root):
    file = root.parent / "shared" / "reports" / "annotation.json"
    if not file.is_file():
        pytest.skip("no ../shared/reports/annotation.json")
    annotation = json.loads(file.read_text())
    training = [study["report"] for study in annotation["train"]]
    words = train_word_tokenizer([clean_iu(report) for report in training])
    assert len(words) - 3 == 760  # R2Gen counts the words and <unk>, and has 0 for start, end and padding
    tokenizer = train_byte_tokenizer(training, 2000)
    everything = [study["report"] for split in annotation.values() for study in split]
    tokens = [encode_report(tokenizer, report, 10_000) for report in everything]
    assert [tokenizer.decode(each, skip_special_tokens=True) for each in tokens] == everything
    assert len(tokenizer) == 2000 and sum(map(len, tokens)) / len(tokens) < 40
