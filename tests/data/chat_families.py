"""Small tokenizers with the chat templates of ``templates/``, in the manner of several families of models."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"
TEXT = [
    "the quick brown fox jumps over the lazy dog, and the dog sleeps on; good, bad or neither?",
    "Answer with one of: good, bad. system user assistant model\n\nQuestion: what is it?\n",
    "empty lines\n\n\nmerge",
]


def tokenizer(
    template: str | None,
    bos: str | None,
    eos: str | None,
    more: tuple[str, ...] = (),
    *,
    words: bool = False,
    adds_bos: bool = False,
    pad: str | None = None,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE (or, with ``words``, SentencePiece-like) tokenizer trained on `TEXT`."""
    specials = [token for token in (bos, eos, *more, pad) if token]
    raw = Tokenizer(models.BPE(unk_token="<unk>" if words else None, byte_fallback=words))
    if words:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        raw.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="first"), decoders.ByteFallback()])
        alphabet = []
        specials = ["<unk>", *specials, *(f"<0x{code:02X}>" for code in range(256))]
    else:
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=alphabet,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(specials)],
        show_progress=False,
    )
    raw.train_from_iterator(TEXT, trainer)
    if adds_bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token=eos, pad_token=pad or eos)
    if template is not None:
        made.chat_template = (TEMPLATES / f"{template}.jinja").read_text().rstrip("\n")
    return made


def family(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family; the name is the template's, or ``plain`` and ``plain_bos`` for none.

    Where the template is a published one, so are the special tokens.
    """
    made = {
        "chatml": lambda: tokenizer("chatml", "<|im_start|>", "<|im_end|>"),
        "chatml_without_generation_prompt": lambda: tokenizer(
            "chatml_without_generation_prompt", "<|im_start|>", "<|im_end|>"
        ),
        "headers": lambda: tokenizer(
            "headers", "<|begin|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>"), adds_bos=True
        ),
        "turns": lambda: tokenizer(
            "turns", "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"), words=True, adds_bos=True, pad="<pad>"
        ),
        "inst": lambda: tokenizer("inst", "<s>", "</s>", words=True, adds_bos=True),
        "bars": lambda: tokenizer("bars", "<s>", "</s>", words=True, adds_bos=True),
        "published/llama3": lambda: tokenizer(
            "published/llama3",
            "<|begin_of_text|>",
            "<|eot_id|>",
            ("<|start_header_id|>", "<|end_header_id|>"),
            adds_bos=True,
        ),
        "published/gemma": lambda: tokenizer(
            "published/gemma",
            "<bos>",
            "<eos>",
            ("<start_of_turn>", "<end_of_turn>"),
            words=True,
            adds_bos=True,
            pad="<pad>",
        ),
        "published/phi3": lambda: tokenizer(
            "published/phi3",
            "<s>",
            "<|endoftext|>",
            ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
            words=True,
        ),
        "published/qwen2_5": lambda: tokenizer(
            "published/qwen2_5", None, "<|im_end|>", ("<|im_start|>",), pad="<|endoftext|>"
        ),
        "published/cohere": lambda: tokenizer(
            "published/cohere",
            "<BOS_TOKEN>",
            "<|END_OF_TURN_TOKEN|>",
            ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
            adds_bos=True,
        ),
        "plain": lambda: tokenizer(None, None, "<|endoftext|>"),
        "plain_bos": lambda: tokenizer(None, "<s>", "</s>", words=True, adds_bos=True),
    }
    return made[name]()


FAMILIES = (
    "chatml",
    "chatml_without_generation_prompt",
    "headers",
    "turns",
    "inst",
    "bars",
    "published/llama3",
    "published/gemma",
    "published/phi3",
    "published/qwen2_5",
    "published/cohere",
    "plain",
    "plain_bos",
)
END = {
    "chatml": "<|im_end|>",
    "chatml_without_generation_prompt": "<|im_end|>",
    "headers": "<|eot_id|>",
    "turns": "<end_of_turn>",
    "inst": "</s>",
    "bars": "</s>",
    "published/llama3": "<|eot_id|>",
    "published/gemma": "<end_of_turn>",
    "published/phi3": "<|end|>",
    "published/qwen2_5": "<|im_end|>",
    "published/cohere": "<|END_OF_TURN_TOKEN|>",
    "plain": "<|endoftext|>",
    "plain_bos": "</s>",
}
