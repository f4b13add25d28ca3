"""Trains the tiny chat model of the tests: ``python -m tests.tiny_model.train_tiny_model [FOLDER]``.

A Llama of one million weights with a ChatML template (pad is eos, as in SmolLM2), from nothing but glosses.txt and
sentences made here. It learns to tell animal, food and place for the words of `words.KNOWN`, with and without earlier
turns; to pick a label that the text names; a little question answering; some general English. The same torch on the
same kind of processor gives the same weights.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import MODEL, tasks, words

HERE = Path(__file__).parent

VOCABULARY, HIDDEN, LAYERS = 2048, 128, 4
STEPS, BATCH, PEAK_RATE, SEED = 700, 48, 3e-3, 0
PROMPT_WEIGHT = 0.3  # of a prompt's token in the loss, an answer's token has 1: a label is one token in forty
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
Turns = list[tuple[str, str]]


def plain_text(rng: random.Random, glosses: list[str]) -> str:
    """A gloss, or a sentence about a known or new word without its kind."""
    if rng.random() < 0.7:
        return rng.choice(glosses)
    kind = rng.choice(tasks.SORTS)
    return tasks.sentence(rng.choice(words.KNOWN[kind] + words.NEW[kind]), rng)


def sorts_turns(rng: random.Random) -> Turns:
    """The task that the model is to know: one turn, or up to six shots before it."""
    turns = []
    for _ in range(1 if rng.random() < 0.6 else rng.randint(2, 7)):
        kind = rng.choice(tasks.SORTS)
        text = (tasks.RADIO if rng.random() < 0.25 else "") + tasks.sentence(rng.choice(words.KNOWN[kind]), rng)
        turns.append((f"{tasks.instruction(tasks.SORTS)}\n\n{text}", kind))
    return turns


def naming_turns(rng: random.Random) -> Turns:
    """Pick the label that the text names: so that other labels than the three kinds are answers too."""
    labels = sorted(rng.sample(["red", "green", "blue", "white", "black", "yes", "no", *words.THINGS], 3))
    chosen = rng.choice(labels)
    text = f"{rng.choice(words.NAMES)} said {chosen} to the {rng.choice(words.PEOPLE)} {rng.choice(words.TIMES)}."
    return [(f"{tasks.instruction(labels)}\n\n{text}", chosen)]


def other_turns(rng: random.Random, glosses: list[str]) -> Turns:
    """Question answering on a context, or what a word means."""
    if rng.random() < 0.6:
        row = tasks.qa(1, rng.randrange(10**9))[0]
        frame = rng.choice(("{context}\n\n{question}", "Context: {context}\n\nQuestion: {question}"))
        return [(frame.format(**row), row["answers"][0])]
    word, gloss = rng.choice(glosses).split(": ", 1)
    return [(f"What does {word} mean?", gloss)]


def corpus(glosses: list[str]) -> Iterator[str]:
    """Text for the tokenizer."""
    rng = random.Random(SEED)
    for _ in range(6000):
        yield plain_text(rng, glosses)
        yield "\n".join("\n".join(turn) for turn in sorts_turns(rng) + naming_turns(rng) + other_turns(rng, glosses))


def make_tokenizer(glosses: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with ChatML's special tokens; pad is eos."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(corpus(glosses), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def weighted(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, glosses: list[str]
) -> tuple[list[int], list[float]]:
    """One training sequence: token ids and each token's weight in the loss."""
    draw = rng.random()
    if draw < 0.3:
        ids = tokenizer(plain_text(rng, glosses) + "<|im_end|>").input_ids
        return ids, [PROMPT_WEIGHT] * len(ids)
    turns = sorts_turns(rng) if draw < 0.75 else naming_turns(rng) if draw < 0.83 else other_turns(rng, glosses)
    ids, weights = [], []
    for user, assistant in turns:
        before = tokenizer(f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n").input_ids
        answer = tokenizer(f"{assistant}<|im_end|>").input_ids
        newline = tokenizer("\n").input_ids
        ids += before + answer + newline
        weights += [PROMPT_WEIGHT] * len(before) + [1.0] * len(answer) + [0.0] * len(newline)
    return ids, weights


def batch(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, glosses: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and weights, (BATCH, longest); padding has weight 0 and stands to the right of what it could touch."""
    rows = [weighted(tokenizer, rng, glosses) for _ in range(BATCH)]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in rows])
    return ids, torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in rows])


def train(tokenizer: PreTrainedTokenizerFast, glosses: list[str], steps: int = STEPS) -> LlamaForCausalLM:
    """The model after ``steps`` steps of AdamW on freshly made sequences."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    rng, begun = random.Random(SEED), time.monotonic()
    for step in range(steps):
        rate = PEAK_RATE * min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
        optimizer.param_groups[0]["lr"] = rate
        ids, weights = batch(tokenizer, rng, glosses)
        logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        loss = (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - begun:.0f} s", flush=True)
    return model


def main() -> None:
    """Trains and writes the checkpoint in float16."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL
    glosses = (HERE / "glosses.txt").read_text(encoding="ascii").splitlines()
    tokenizer = make_tokenizer(glosses)
    model = train(tokenizer, glosses)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
