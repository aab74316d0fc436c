"""Tokenizers of reports: an exact round trip, R2Gen's vocabulary, and folders that AutoTokenizer opens."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    GPT2Tokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from medhiera.data.report_tokenizer import (
    SMALLEST_VOCABULARY,
    decode_reports,
    digest_tokens,
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


def hub_tokenizer(kind):
    """A tokenizer of a class that makes its own prompt when it is opened, and marks `<unk>` as special."""
    if kind is BertTokenizer:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "left", "lungs", "[", "]", "sep"]
        return kind(vocab={word: n for n, word in enumerate(words)}, bos_token="[CLS]", eos_token="[SEP]")
    if kind is XLMRobertaTokenizer:
        words = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁no", "▁left", "▁lungs"]
        return kind(vocab=[(word, -float(n)) for n, word in enumerate(words)])
    first = ["<|endoftext|>"] if kind is GPT2Tokenizer else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [*first, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return kind(vocab={word: number for number, word in enumerate(words)}, merges=[])


@pytest.mark.parametrize("kind", [RobertaTokenizer, BertTokenizer, XLMRobertaTokenizer])
def test_stock_reads_and_begins_as_we_do_whatever_class_the_decoders_tokenizer_has(tmp_path, kind):
    hub_tokenizer(kind).save_pretrained(tmp_path)
    tokenizer = open_tokenizer(str(tmp_path))
    tokenizer.save_pretrained(tmp_path / "published")
    stock = AutoTokenizer.from_pretrained(tmp_path / "published")
    again = open_tokenizer(str(tmp_path / "published"))
    assert stock("")["input_ids"] == again("")["input_ids"] == [tokenizer.bos_token_id]
    for report in ("no left lungs", "no 肺 left"):
        tokens = encode_report(tokenizer, report, 100)
        assert encode_report(again, report, 100) == tokens
        [text] = decode_reports(again, [[tokenizer.bos_token_id, *tokens, tokenizer.pad_token_id]])
        assert stock.decode(tokens, skip_special_tokens=True).strip() == text
        assert text.split()[0] == "no" and len(text.split()) == 3  # `<unk>` stays: it stands for a word


@pytest.mark.parametrize("kind", [None, GPT2Tokenizer, RobertaTokenizer, BertTokenizer, XLMRobertaTokenizer])
def test_a_report_that_spells_a_special_token_has_one_end(tmp_path, kind):
    if kind is None:
        tokenizer = train_byte_tokenizer(REPORTS, 300)
    else:
        hub_tokenizer(kind).save_pretrained(tmp_path)
        tokenizer = open_tokenizer(str(tmp_path))
    for name in ("bos_token", "eos_token", "pad_token"):
        report = f"no {getattr(tokenizer, name)} left"
        tokens = encode_report(tokenizer, report, 100)
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        assert special & set(tokens[:-1]) == set() and tokens[-1] == tokenizer.eos_token_id
        if kind in (None, GPT2Tokenizer, RobertaTokenizer):
            assert decode_reports(tokenizer, [tokens]) == [report]


def test_stock_keeps_what_the_words_do_not_hold(tmp_path):
    words = train_word_tokenizer(["no left effusion ."] * 3)
    words.save_pretrained(tmp_path)
    tokens = encode_report(words, "no left small effusion .", 60)
    written = AutoTokenizer.from_pretrained(tmp_path).decode(tokens, skip_special_tokens=True)
    assert [written] == decode_reports(words, [tokens]) == ["no left <unk> effusion ."]


def test_a_digest_is_of_what_is_learned_and_how_it_is_read_back():
    tokenizer, other = (train_byte_tokenizer(REPORTS, size) for size in (300, 280))
    tokens, others = ([encode_report(one, text, 60) for text in REPORTS] for one in (tokenizer, other))
    same = digest_tokens(train_byte_tokenizer(REPORTS, 300), [list(line) for line in tokens])
    assert digest_tokens(tokenizer, tokens) == same and len(same) == 16
    assert same not in (
        digest_tokens(other, tokens),
        digest_tokens(tokenizer, others),
        digest_tokens(tokenizer, tokens[1:]),
    )


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
