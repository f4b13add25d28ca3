"""Label likelihoods: the packed way gives what the plain way gives, whatever the batch, the order or the attention."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from training_image.evaluate import score

tokens = st.lists(st.integers(5, 200), min_size=1, max_size=9)
requests = st.tuples(
    st.lists(st.integers(5, 200), max_size=6),
    st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=3)), min_size=1, max_size=5),
)
SLOW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reference(model: Any, prompts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
    """One sequence at a time, by the model's own logits."""
    import torch

    scores = []
    for prompt, some in zip(prompts, continuations, strict=True):
        scores.append([])
        for answer in some:
            with torch.no_grad():
                logs = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            scores[-1].append(sum(float(logs[place, token]) for place, token in zip(places, answer, strict=True)))
    return scores


def close(one: list[list[float]], two: list[list[float]]) -> bool:
    return all(
        x == pytest.approx(y, abs=1e-4) for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True)
    )


@SLOW
@given(requests, st.sampled_from([1, 8, 40, 512]))
def test_packed_is_one_by_one(model: Any, request_: Any, size: int) -> None:
    prefix, rows = request_
    prompts = [[*prefix, *rest] for rest, _ in rows]
    continuations = [some for _, some in rows]
    shared = score.common_prefix(prompts)
    with score.evaluating(model):
        cache = score.prefix_cache(model, prompts[0][:shared])
        assert cache is not None
        packed = score._packed(model, prompts, continuations, cache, shared, size)
    wanted = reference(model, prompts, continuations)
    assert close(packed, wanted)
    assert close(score.plain_log_likelihoods(model, prompts, continuations, batch_tokens=size), wanted)


def test_no_pass_has_more_logits_than_allowed(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[7, 8, *range(20, 20 + n)] for n in (3, 9, 5, 1, 7)]
    continuations = [[[30, 31]], [[*range(40, 60)]], [[33] * 9, [34] * 3], [[*range(60, 90)]], [[35]]]
    wanted, seen = reference(model, prompts, continuations), []
    monkeypatch.setattr(score, "_LOGIT_CELLS", 12 * model.config.vocab_size)
    handle = model.register_forward_hook(lambda _, __, made: seen.append(made.logits.shape[:2].numel()))
    try:
        assert close(score.plain_log_likelihoods(model, prompts, continuations), wanted)
    finally:
        handle.remove()
    assert max(seen) <= 12


PROMPTS = [[7, 8, 9, *range(20, 20 + n)] for n in (3, 9, 5, 1, 7)]
CONTINUATIONS = [[[30], [31, 32], [33, 34, 35]]] * len(PROMPTS)


def test_eager_attention_gives_the_same(model: Any) -> None:
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    assert close(
        score.log_likelihoods(eager, PROMPTS, CONTINUATIONS), score.log_likelihoods(model, PROMPTS, CONTINUATIONS)
    )


def test_the_order_of_rows_and_labels_changes_nothing(model: Any) -> None:
    straight = score.log_likelihoods(model, PROMPTS, CONTINUATIONS)
    turned = score.log_likelihoods(model, PROMPTS[::-1], [some[::-1] for some in CONTINUATIONS])
    assert close([row[::-1] for row in turned[::-1]], straight)


def test_a_model_that_ignores_the_mask_is_scored_one_by_one(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    deaf = copy.deepcopy(model)
    forward = deaf.forward

    def without_mask(*arguments: Any, attention_mask: Tensor | None = None, **more: Any) -> Any:
        mask = attention_mask if attention_mask is None or attention_mask.dim() == 2 else None
        return forward(*arguments, attention_mask=mask, **more)

    deaf.forward = without_mask
    found = score.log_likelihoods(deaf, PROMPTS, CONTINUATIONS)
    assert "one by one" in capsys.readouterr().out
    assert close(found, reference(model, PROMPTS, CONTINUATIONS))


def test_the_common_prefix_leaves_each_prompt_a_token() -> None:
    assert score.common_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert score.common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert score.common_prefix([[1, 2], [3, 4]]) == 0


def test_no_prompts_no_scores(model: Any) -> None:
    assert score.log_likelihoods(model, [], []) == []
