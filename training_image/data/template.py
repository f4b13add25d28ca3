"""A tokenizer's chat template, probed once: where an answer begins, what ends it, and what the template refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training_image.data.examples import Message
from training_image.data.problems import DataError

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{% if loop.index0 and messages[loop.index0 - 1]['role'] == 'assistant' %}"
    "{{ '\n\n' }}{% endif %}{{ message['content'] + '\n' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""For a tokenizer without a chat template: ``{system}\\n\\n{user}\\n{answer}{eos}``, an empty line before each further
turn of the user. `ChatTemplate.plain` says whether it is used; it is then saved with the adapter."""

_USER, _SYSTEM, _ANSWER = "QQuserQQ", "QQsystemQQ", "QQanswerQQ"
_SETTINGS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Asked of every template, and without meaning for most: answers without a thinking part (Qwen 3), and one date
instead of today's (Llama 3.1 and later; the date is that template's own default), so that a prompt is the same
tomorrow."""


class TemplateError(DataError):
    """The chat template refuses the messages, or does with them what cannot be trained on."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint or "Give the model another chat template, or change the rows.", "template")


@dataclass(frozen=True, slots=True)
class Text:
    """A rendered prompt: its text, and the spans ``(start, end)`` of the assistant's earlier turns in it."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()


class ChatTemplate:
    """Renders messages as text by a tokenizer's own chat template, else by `PLAIN`.

    Raises TemplateError where the generation prompt is not how a full turn of the assistant begins, or where nothing
    ends a turn. A template that refuses or forgets the system's turn gets its text in front of the first user's turn.
    """

    lead: str
    """White space that stands between the prompt and the answer (``[/INST] answer``); it belongs to the answer."""
    end: str
    """What ends the answer: the template's end of turn, else the tokenizer's EOS."""
    trims: bool
    """Whether the template strips an answer's white space."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.plain: str | None = None if tokenizer.chat_template else self._plain_template()
        self._opening = ""
        self._turn_end = ""
        self.folds_system = not self._takes_system()
        self._probe()

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt with its generation prompt. Raises TemplateError for messages that the template refuses."""
        return self._render(self._folded(messages), generation=True) + self._opening

    def prompt(self, messages: Sequence[Message]) -> Text:
        """As `text`, with the spans of the assistant's earlier turns."""
        turns = self._folded(messages)
        text = self._render(turns, generation=True) + self._opening
        answers = [self.shown(turn["content"]) for turn in turns if turn["role"] == "assistant"]
        if not answers:
            return Text(text)
        marked = [
            Message(role="assistant", content=_mark(number)) if turn["role"] == "assistant" else turn
            for number, turn in enumerate(turns)
        ]
        rest = self._render(marked, generation=True) + self._opening
        built, spans = "", []
        for mark, answer in zip(
            [turn["content"] for turn in marked if turn["role"] == "assistant"], answers, strict=True
        ):
            before, found, rest = rest.partition(mark)
            built += before
            start = len(built) - (len(self.lead) if before.endswith(self.lead) else 0)
            built += answer
            ends = len(self._turn_end) if found and rest.startswith(self._turn_end) else 0
            spans.append((start, len(built) + ends))
        if built + rest != text:
            raise TemplateError(
                "the chat template rewrites an earlier turn of the assistant, so it cannot be told what to train on",
                "Take out what the template removes (a thinking part), or keep one answer a row.",
            )
        return Text(text, tuple(spans))

    def check_full_turn(self, messages: Sequence[Message], prompt: str, answer: str) -> None:
        """Assert that prompt and answer are the beginning of the full turn. Raises TemplateError."""
        turns = [*self._folded(messages), Message(role="assistant", content=answer)]
        full = self._render(turns, generation=False)
        if not full.startswith(prompt + self.lead + self.shown(answer)):
            raise TemplateError(
                "the generation prompt with the answer is not how the chat template writes the full turn",
                "Take out what the template rewrites (a thinking part in the answer, for one).",
            )

    def shown(self, answer: str) -> str:
        """An answer as the template writes it."""
        return answer.strip() if self.trims else answer

    def _render(self, messages: Sequence[Message], generation: bool) -> str:
        from jinja2 import TemplateError as JinjaError

        try:
            rendered: str = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=generation,
                chat_template=self.plain,
                **_SETTINGS,
            )
        except (JinjaError, TypeError, ValueError, KeyError, IndexError) as error:
            raise TemplateError(f"the chat template refuses the messages: {error}") from None
        return rendered

    def _folded(self, messages: Sequence[Message]) -> list[Message]:
        if not self.folds_system or not messages or messages[0]["role"] != "system":
            return list(messages)
        system, *turns = messages
        for index, turn in enumerate(turns):
            if turn["role"] == "user":
                turns[index] = Message(role="user", content=f"{system['content']}\n\n{turn['content']}")
                break
        return turns

    def _takes_system(self) -> bool:
        messages = [Message(role="system", content=_SYSTEM), Message(role="user", content=_USER)]
        try:
            return _SYSTEM in self._render(messages, generation=True)
        except TemplateError:
            return False

    def _probe(self) -> None:
        user = Message(role="user", content=_USER)
        generated = self._render([user], generation=True)
        full = self._render([user, Message(role="assistant", content=_ANSWER)], generation=False)
        head, found, tail = full.partition(_ANSWER)
        if not found or not head.startswith(generated):
            raise TemplateError(
                "the chat template's generation prompt is not how it begins the assistant's turn, so what is trained "
                f"would not be what is asked: {generated[-60:]!r} against {head[-60:]!r}"
            )
        lead = head[len(generated) :]
        # A template without a generation prompt: the turn's header belongs to the prompt, blanks before the answer not.
        self._opening = lead.rstrip(" ") if lead.strip() else ""
        self.lead = lead[len(self._opening) :]
        spaced = self._render([user, Message(role="assistant", content=f" \n{_ANSWER}\n ")], generation=False)
        self.trims = f" \n{_ANSWER}\n " not in spaced
        self._turn_end, self.end = self._ending(tail)

    def _ending(self, tail: str) -> tuple[str, str]:
        """What the template writes to end a turn, and what ends the last one (with EOS, if the template has none)."""
        specials = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        found = [(tail.index(token), -len(token), token) for token in specials if token in tail]
        if found:
            place, _, token = min(found)
            return tail[: place + len(token)], tail[: place + len(token)]
        if self.tokenizer.eos_token is None:
            raise TemplateError("neither the chat template nor the tokenizer has a token that ends a turn")
        return tail.rstrip(), tail.rstrip() + self.tokenizer.eos_token

    def _plain_template(self) -> str:
        """`PLAIN`, after BOS where the tokenizer itself puts one before a text."""
        first = self.tokenizer("a")["input_ids"][:1]
        begins = first and first[0] == self.tokenizer.bos_token_id
        return "{{ bos_token }}" + PLAIN if begins else PLAIN


def _mark(number: int) -> str:
    return f"QQturn{number}QQ"
