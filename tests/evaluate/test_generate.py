"""Generated answers and the forgetting loss are those of plain transformers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from training_image.evaluate.forgetting import general_loss, general_text
from training_image.evaluate.generate import generate

QUESTIONS = ("Where does Tom keep the lamp?", "Say where it is.", "Answer with one of: animal, food, place.\n\nA dog.")


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[list[int]]:
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"] for chat in chats
    ]


def alone(model: Any, prompt: list[int], stops: list[int]) -> list[int]:
    found = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=stops[0],
    )[0, len(prompt) :].tolist()
    return found[: next((i for i, token in enumerate(found) if token in stops), len(found))]


@pytest.mark.parametrize("rows", [1, 2, None])
def test_batched_answers_are_those_of_single_rows(
    model: Any, tokenizer: Any, prompts: list[list[int]], rows: int | None
) -> None:
    stops = [tokenizer.eos_token_id]
    assert generate(model, prompts, stops, 12, rows=rows) == [alone(model, prompt, stops) for prompt in prompts]


def test_a_sliding_window_sees_no_padding() -> None:
    torch.manual_seed(0)
    settings = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(**settings, vocab_size=200, num_key_value_heads=4, sliding_window=16, initializer_range=0.3)
    model = MistralForCausalLM(config).eval()
    draw = random.Random(0)
    beginning = [draw.randrange(1, 190) for _ in range(6)]
    rows = [[*beginning, *(draw.randrange(1, 190) for _ in range(length))] for length in (4, 40, 40, 30)]
    assert generate(model, rows, [199], 10) == generate(model, rows, [199], 10, rows=1)


def test_every_stop_token_ends_an_answer(model: Any, tokenizer: Any, prompts: list[list[int]]) -> None:
    free = generate(model, prompts, [tokenizer.eos_token_id], 12)
    longest = max(free, key=len)
    assert len(longest) > 1
    stop = longest[-1]
    for cut, whole in zip(generate(model, prompts, [tokenizer.eos_token_id, stop], 12), free, strict=True):
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)


def test_the_forgetting_loss_is_the_models_own(model: Any, tokenizer: Any) -> None:
    ids = tokenizer(general_text(), return_tensors="pt")["input_ids"][0]
    total, count = 0.0, 0
    with torch.no_grad():
        for window in ids.split(512):
            if len(window) > 1:
                total += float(model(input_ids=window[None], labels=window[None]).loss) * (len(window) - 1)
                count += len(window) - 1
    assert general_loss(model, tokenizer) == pytest.approx(total / count, rel=1e-4)
