"""Rendering over several families of chat templates: masks, end of turn, BOS, cutting, shots."""

from __future__ import annotations

import pytest
from chat_families import END, FAMILIES, family, tokenizer

from training_image.data import IGNORED, Example, Message, Renderer
from training_image.data.render import TooLong
from training_image.data.template import TemplateError
from training_image.spec import Spec


def spec(type="classification", max_length=512, **task):
    return Spec.model_validate(
        {
            "schema": 1,
            "job": "j",
            "model": {"id": "m"},
            "data": {"train": "train.jsonl", "max_length": max_length},
            "task": {"type": type, **task},
        }
    )


def row(text="the quick dog", answer="good", system=None, instruction="Answer with one of: good, bad.", id="a"):
    turns = [Message(role="system", content=system)] if system else []
    turns.append(Message(role="user", content=f"{instruction}\n\n{text}"))
    return Example(id, 1, tuple(turns), answer, (answer,), text, {}, text)


def chat(*contents, system=None):
    roles = ["user", "assistant"] * len(contents)
    turns = [Message(role="system", content=system)] if system else []
    turns += [Message(role=role, content=content) for role, content in zip(roles, contents, strict=False)]
    return Example("c", 1, tuple(turns[:-1]), turns[-1]["content"], (turns[-1]["content"],), contents[0])


def parts(tok, sample):
    """The supervised stretches as text."""
    runs, run = [], []
    for token, label in zip(sample.input_ids, sample.labels, strict=True):
        assert label in (IGNORED, token)
        if label == IGNORED:
            runs += [run] if run else []
            run = []
        else:
            run.append(token)
    return [tok.decode(ids) for ids in (*runs, run) if ids]


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tok(name):
    return family(name)


def test_the_answer_and_its_end_are_supervised_and_nothing_else(name, tok):
    renderer = Renderer(tok, spec())
    sample = renderer.sample(row())
    assert [part.replace(" ", "") for part in parts(tok, sample)] == ["good" + END[name]]
    assert sample.labels[-1] == tok.convert_tokens_to_ids(END[name])
    assert sample.labels[-1] in renderer.end_ids


@pytest.mark.parametrize("type", ["classification", "qa", "instruction", "chat"])
@pytest.mark.parametrize("published", [name for name in FAMILIES if name.startswith("published/")])
def test_of_published_templates_the_supervised_text_is_the_answer_and_its_end_to_the_letter(published, type):
    tok = family(published)
    renderer, example = Renderer(tok, spec(type)), row(system="be brief", answer="good dog")
    sample, prompt = renderer.sample(example), renderer.prompt(example)
    assert sample.labels == [IGNORED] * len(prompt) + sample.input_ids[len(prompt) :]
    assert tok.decode(sample.input_ids[len(prompt) :]) == "good dog" + END[published]


def test_what_is_trained_is_what_is_asked(name, tok):
    renderer = Renderer(tok, spec(labels=["good", "bad"]))
    example = row(system="be brief")
    assert renderer.sample(example).input_ids == renderer.prompt(example) + renderer.answer("good")


def test_ids_are_those_of_the_rendered_text(name, tok):
    """The pieces put together are what the tokenizer makes of the whole text (no piece is encoded out of its place)."""
    renderer = Renderer(tok, spec())
    for answer in ("good", "the lazy dog", "42", "été"):
        ids = renderer.sample(row(answer=answer)).input_ids
        text = tok.decode(ids[:-1] if name.startswith("plain") else ids, skip_special_tokens=False)
        assert answer in text
        if tok.chat_template:
            whole = tok.apply_chat_template([*row().messages, {"role": "assistant", "content": answer}], tokenize=False)
            expected = tok(whole, add_special_tokens=False)["input_ids"]
            prompt = renderer.prompt(row())
            # Where the whole text would merge over the border, the prompt's ids stay those that are asked.
            if expected[: len(prompt)] == prompt:
                assert ids == expected[: len(ids)]
            else:
                assert tok.decode(ids) == tok.decode(expected)[: len(tok.decode(ids))]


def test_one_bos_at_most(name, tok):
    ids = Renderer(tok, spec()).sample(row()).input_ids
    if name in ("headers", "turns", "inst", "plain_bos", "published/llama3", "published/gemma", "published/cohere"):
        assert ids[0] == tok.bos_token_id
    if name not in ("chatml", "chatml_without_generation_prompt"):
        without = ("bars", "plain", "published/phi3", "published/qwen2_5")
        assert ids.count(tok.bos_token_id) == (0 if name in without else 1)


def test_the_system_turn_is_never_lost(name, tok):
    ids = Renderer(tok, spec()).prompt(row(system="jumps over"))
    assert "jumps over" in tok.decode(ids)


def test_every_turn_of_the_assistant_is_supervised(name, tok):
    sample = Renderer(tok, spec("chat")).sample(chat("the dog?", "good dog", "the fox?", "bad fox", system="be brief"))
    end = END[name].replace(" ", "")
    assert [part.replace(" ", "") for part in parts(tok, sample)] == ["gooddog" + end, "badfox" + end]
    assert sample.labels[-1] != IGNORED


def test_the_same_words_in_the_users_turn_stay_masked(name, tok):
    sample = Renderer(tok, spec("chat")).sample(chat("good", "good", "good", "good"))
    assert len(parts(tok, sample)) == 2


def test_a_long_prompt_loses_its_middle_and_nothing_else(name, tok):
    text = "first " + "quick brown fox " * 400 + "last"
    renderer = Renderer(tok, spec(max_length=160, labels=["good", "bad"]))
    sample = renderer.sample(row(text))
    assert 145 <= len(sample.input_ids) <= 160
    assert sample.cut > 100
    shown = tok.decode(sample.input_ids)
    for kept in ("Answer with one of: good, bad.", "first", "last", "…"):
        assert kept in shown
    assert [part.replace(" ", "") for part in parts(tok, sample)] == ["good" + END[name]]
    assert sample.input_ids[: -len(renderer.answer("good"))] == renderer.prompt(row(text))


@pytest.mark.parametrize("answer", ["good", "good dog " * 20])
def test_a_cut_prompt_is_asked_as_it_is_trained_with_room_for_an_answer(name, tok, answer):
    renderer = Renderer(tok, spec("instruction", max_length=160, max_new_tokens=40))
    long = row("quick brown fox " * 400, answer.strip())
    sample, prompt = renderer.sample(long), renderer.prompt(long)
    assert sample.cut > 100
    assert sample.input_ids == prompt + renderer.answer(long.answer)
    assert len(prompt) + 40 <= 160
    assert len(sample.input_ids) <= 160


def test_a_long_chat_loses_text_of_the_user_only(name, tok):
    sample = Renderer(tok, spec("chat", max_length=160)).sample(chat("fox " * 300, "good dog", "short?", "bad"))
    assert len(sample.input_ids) <= 160
    assert len(parts(tok, sample)) == 2
    assert "short?" in tok.decode(sample.input_ids)


def test_what_may_not_be_cut_is_refused(name, tok):
    with pytest.raises(TooLong):
        Renderer(tok, spec(max_length=48)).sample(row(answer="good " * 100))


def test_shots_are_earlier_turns_and_fit(name, tok):
    shots = [row("the dog", "good", id="1"), row("a fox", "bad", id="2")]
    whole = Renderer(tok, spec(max_length=1000, labels=["good", "bad"]))
    ids = whole.prompt(row("what is it"), shots)
    shown = tok.decode(ids)
    assert shown.index("the dog") < shown.index("a fox") < shown.index("what is it")
    assert shown.count(END[name]) >= 2 or name in ("headers", "turns")
    tight = Renderer(tok, spec(max_length=len(ids) + 1, labels=["good", "bad"]))
    assert tight.prompt(row("what is it"), shots) == tight.prompt(row("what is it"))
    two_sets = Renderer(tok, spec(max_length=len(ids) + 10, labels=["good", "bad"]))
    far = [row("far dog", "bad", id="3"), row("far fox", "good", id="4")]
    assert two_sets.prompt(row("what is it"), [*far, *shots]) == ids


def test_plain_completion_is_supervised_but_for_its_first_token(name, tok):
    example = Example("a", 1, (), "the dog", ("the dog",), "the dog")
    renderer = Renderer(tok, spec("completion"))
    sample = renderer.sample(example)
    assert sample.labels[0] == IGNORED
    assert IGNORED not in sample.labels[1:]
    assert sample.input_ids[-1] == tok.eos_token_id
    assert sample.input_ids == renderer.prompt(example) + renderer.answer("the dog")


def test_an_answer_that_would_merge_with_the_prompt():
    """The prompt ends with a line break: two of them are one token, but the prompt's ids must stay as asked."""
    tok = family("plain")
    assert len(tok("\n\n\nthe", add_special_tokens=False)["input_ids"]) == len(
        tok("\n\nthe", add_special_tokens=False)["input_ids"]
    )
    renderer = Renderer(tok, spec())
    for answer in ("\n\nthe dog", "\nfox", " good"):
        sample = renderer.sample(row(answer=answer))
        assert sample.input_ids == renderer.prompt(row()) + renderer.answer(answer)
        assert tok.decode(renderer.answer(answer)[:-1]) == answer


def test_a_generation_prompt_that_is_no_beginning_of_the_turn_is_refused():
    with pytest.raises(TemplateError, match="generation prompt"):
        Renderer(tokenizer("thinking", "<|im_start|>", "<|im_end|>"), spec())


def test_messages_that_the_template_refuses_are_named():
    renderer = Renderer(family("turns"), spec("chat"))
    turns = (Message(role="user", content="the dog"), Message(role="user", content="the fox"))
    with pytest.raises(TemplateError, match="roles must alternate"):
        renderer.sample(Example("a", 1, turns, "good", ("good",), "the dog"))


def test_control_tokens_in_a_row_are_found():
    renderer = Renderer(family("chatml"), spec())
    assert renderer.control_tokens(row("the dog<|im_end|>")) == ["<|im_end|>"]
    assert renderer.control_tokens(row()) == []
