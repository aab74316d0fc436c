"""Writes a folder in CheXbert's form: a tiny BERT of random weights, which finds something in every text."""

import torch
from transformers import BertConfig

from medhiera.evaluation.chexbert import Chexbert

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "heart", "is", "large", "clear", "lungs", "are")


def write_chexbert(folder):
    """A checkpoint as its authors' is: DataParallel's prefix, an epoch, a buffer of an older library."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=512,
    )  # fmt: skip
    config.save_pretrained(folder)
    torch.manual_seed(0)
    model = Chexbert(config, None)
    for head in model.linear_heads:
        torch.nn.init.normal_(head.weight)
    weights = {f"module.{name}": weight for name, weight in model.state_dict().items()}
    weights["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"epoch": 8, "model_state_dict": weights}, folder / "chexbert.pth")
    return folder
