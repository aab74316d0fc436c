"""Texts of reports → token ids and back: tokenizers that are trained on the training split, offline.

Beside report_dataset.py. Both kinds are `tokenizers` objects that stock transformers opens by AutoTokenizer.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from medhiera.errors import UserError, one_line

PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"

SMALLEST_VOCABULARY = 256 + 3
"""Every byte and the special tokens: what an exact round trip takes."""

R2GEN_THRESHOLDS = {"iu": 3, "mimic": 10}
"""A word of R2Gen's vocabulary stands so often in the training reports, at least: by how they are cleaned."""


def train_byte_tokenizer(reports: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Byte-level byte pair encoding: whatever a report holds comes back exactly.

    Args:
        reports: of the training split.
        vocabulary_size: tokens, the three special ones and the 256 bytes among them; few reports give fewer.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(reports, trainer)
    return _wrap(tokenizer, START, END, PAD)


def train_word_tokenizer(
    reports: Iterable[str], threshold: int = R2GEN_THRESHOLDS["iu"]
) -> PreTrainedTokenizerFast:
    """R2Gen's word level: words that stand in training often enough, and `<unk>` for all others.

    Args:
        reports: of the training split, cleaned as R2Gen does (report_cleaning.py).
        threshold: how often, at least.

    Source: R2Gen (Chen et al. 2020, arXiv:2010.16056), modules/tokenizers.py, run_mimic_cxr.sh.
    """
    counts = Counter(word for report in reports for word in report.split())
    words = sorted(word for word, count in counts.items() if count >= threshold)
    vocabulary = {word: number for number, word in enumerate([PAD, START, END, UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(tokenizer, START, END, PAD)


def _wrap(
    tokenizer: Tokenizer, start: str, end: str, pad: str, unknown: str | None = None
) -> PreTrainedTokenizerFast:
    """The same tokens in the class that is opened as it was saved: others make a prompt of their own then.

    The unknown token is special no longer: stock leaves special ones out of what it decodes, and without
    `<unk>` a sentence would read well and say something else.
    """
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] &= token["content"] != unknown or unknown in (start, end, pad)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        clean_up_tokenization_spaces=False,
    )
    # Every text begins with the start token: of an empty one the stock pipeline then makes the prompt.
    wrapped.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, wrapped.bos_token_id)]
    )
    return wrapped


def open_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder or Hub id, its own code never run.

    Raises:
        UserError: there is none, or it has no end token.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        is_fast = bool(getattr(tokenizer, "is_fast", False))
    except Exception as error:  # whatever a damaged file makes the library raise
        raise UserError(
            f"{source} has no usable tokenizer ({type(error).__name__}: {one_line(error)}); name a language "
            "model's folder or Hub id, with its tokenizer.json"
        ) from error
    if not is_fast or tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {source} ({type(tokenizer).__name__}) "
            + ("has no end token" if is_fast else "is none of the library `tokenizers`")
            + "; name a language model whose tokenizer.json has one, such as distilgpt2"
        )
    end = tokenizer.eos_token
    start, pad = tokenizer.bos_token or end, tokenizer.pad_token or end  # GPT-2 has none; labels' is -100
    return _wrap(tokenizer.backend_tokenizer, start, end, pad, tokenizer.unk_token)


def encode_report(tokenizer: PreTrainedTokenizerFast, report: str, max_tokens: int) -> list[int]:
    """The tokens that a model learns to write: those of the report and the end token.

    Args:
        tokenizer: of the model.
        report: any text; one that spells a special token ("</s>") is read letter by letter where the
            vocabulary allows it, and loses it else.
        max_tokens: a longer report is cut there, and then has no end.
    """
    tokens = tokenizer(report, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    special = set(tokenizer.all_special_ids)  # a unigram model finds "</s>" among its words all the same
    return [*(token for token in tokens if token not in special), tokenizer.eos_token_id][:max_tokens]


def digest_tokens(tokenizer: PreTrainedTokenizerFast, tokens: Iterable[Sequence[int]]) -> str:
    """Sixteen hexadecimal digits of what is learned of some reports, and of what each token stands for.

    Args:
        tokenizer: of the model; another vocabulary gives other digits.
        tokens: of each report, from encode_report.
    """
    digest = blake2b(json.dumps(sorted(tokenizer.get_vocab().items())).encode(), digest_size=8)
    for line in tokens:
        digest.update(json.dumps(list(line)).encode())
    return digest.hexdigest()


def decode_reports(tokenizer: PreTrainedTokenizerFast, written: Any) -> list[str]:
    """Texts of token ids, without special tokens and white space at their ends, as stock decodes them.

    Args:
        tokenizer: of the model.
        written: (studies, tokens).
    """
    rows = [[int(token) for token in row] for row in written]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]
