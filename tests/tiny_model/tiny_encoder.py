"""Makes a tiny BERT: its words are those of the tests' sentences, its weights trained on filling gaps in them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from tests.tiny_model import tasks

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
STEPS = 150


def make(folder: Path) -> Path:
    """Write the checkpoint (0.5 MB, some seconds); gives the folder."""
    texts = [row["text"] for row in tasks.sorts(400, seed=11)]
    tokenizer = _tokenizer(texts)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    _fill_gaps(model, tokenizer, texts)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    # The words as they are: WordPiece's own training gives another vocabulary each time, and so another model.
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    letters = sorted(set("".join(words)))
    pieces = dict.fromkeys([*SPECIALS, *letters, *(f"##{letter}" for letter in letters), *words])
    made = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def _fill_gaps(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    whole = tokenizer(texts, return_tensors="pt", padding=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(texts), (32,), generator=generator)
        ids, mask = whole["input_ids"][rows], whole["attention_mask"][rows]
        gaps = (torch.rand(ids.shape, generator=generator) < 0.2) & (ids >= len(SPECIALS))
        labels = ids.masked_fill(~gaps, -100)
        loss = model(input_ids=ids.masked_fill(gaps, 4), attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
