"""Messages -> text, in segments that say which part the assistant spoke."""

import warnings

import jinja2
from transformers import ProcessorMixin

from ..rows.formats.chat import text_of
from .conversation import Messages

Segments = list[tuple[str, bool]]
PRIVATE = [chr(number) for number in range(0xE000, 0xF8FF)]  # characters that Unicode gives to nobody
QUESTION = {"role": "user", "content": [{"type": "text", "text": "?"}]}


class Template:
    """How a processor's chat template writes conversations: each once, with a mark in place of every answer.

    What stands before a mark is prompt; what the template writes behind a turn's last one ends the answer. Where it
    writes nothing there (LLaVA-1.5), the tokenizer's `eos_token` does, or the model would never learn to stop; a
    warning says so once.

    Args:
        chat_template: instead of the processor's own.

    Raises `ValueError` for a processor without a template, and for one that writes an answer never or twice.
    """

    def __init__(self, processor: ProcessorMixin, chat_template: str | None = None):
        self.processor, self.chat_template = processor, chat_template
        if chat_template is None and processor.chat_template is None:
            raise ValueError("there is no chat template, and nothing of a conversation can be written without")
        mark, self.as_strings = PRIVATE[0], False
        told = [{"role": "system", "content": [{"type": "text", "text": mark}]}, QUESTION, _spoken(mark)]
        # Some write an answer that is a list of parts as Python would print it (GLM-4.1V), or a system message so.
        self.as_strings = self._marks(told, mark) < self._marks(_as_strings(told), mark)
        plain = self.write([QUESTION, _spoken(mark)])
        if plain.count(mark) != 1:
            raise ValueError(f"the chat template writes an answer {plain.count(mark)} times")
        behind = plain.partition(mark)[2]
        self.ends_answers = bool(behind.strip())
        self.end, self.behind = behind.strip() or processor.tokenizer.eos_token, "" if behind.strip() else behind
        self.trims = self.write([QUESTION, _spoken(f" {mark} ")]) == plain
        self.keeps_parts = not self.trims and self.write([QUESTION, _spoken(mark, mark)]).count(mark) == 2
        if not self.ends_answers:
            warnings.warn(
                f"the chat template writes nothing behind an answer: {self.end!r} is put there, and trained",
                stacklevel=5,
            )
        self._warned = False

    def write(self, messages: Messages) -> str:
        """The text of cleaned messages, as the template alone has it; `ValueError` for what it refuses."""
        messages = _as_strings(messages) if self.as_strings else messages
        try:
            return self.processor.apply_chat_template(messages, chat_template=self.chat_template, tokenize=False)
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template refuses the conversation: {error}") from error

    def _marks(self, messages: Messages, mark: str) -> int:
        """How often the mark is written, with the system message and without."""
        found = 0
        for written in (messages, messages[1:]):
            try:
                found += self.write(written).count(mark)
            except (ValueError, TypeError):  # of one that takes no system message, or no lists
                continue
        return found

    def segments(self, messages: Messages, prompt_only: bool = False, untrained: int = 0) -> Segments:
        """Cleaned messages as `(text, spoken by the assistant)`; joined, they are the whole conversation.

        An answer begins with the space that the template writes before it, and runs to its end-of-turn token, without
        the white space after that. With `prompt_only` the last turn of the assistant is left out: the text ends where
        training shows its answer to begin. The first `untrained` messages count as nobody's answers.
        """
        if prompt_only:
            messages = [*(messages[:-1] if messages[-1]["role"] == "assistant" else messages), _spoken("")]
        shown, said, mark = self._marked(messages)
        pieces = self.write(shown).split(mark)
        if len(pieces) != len(said) + 1:
            raise ValueError(f"the chat template writes {len(pieces) - 1} of {len(said)} answers")
        segments, prompt, spoken = [], pieces[0], None
        for (number, answer, is_last), following in zip(said, pieces[1:], strict=True):
            if spoken is None:
                segments.append((prompt.rstrip(" "), False))
                spoken = prompt[len(segments[-1][0]) :]
            spoken += answer
            if not is_last:  # what stands between the parts of an answer is of it
                spoken += following
                continue
            head, end, prompt = following.partition(self.end)
            if end and not head.strip():
                spoken += head + end
            else:
                spoken, prompt = spoken.rstrip() + self.end, following.removeprefix(self.behind)
            segments.append((spoken, number >= untrained))
            spoken = None
        if prompt_only:
            return segments[:-1]
        if prompt:
            segments.append((prompt, False))
        if self.ends_answers and not self._warned and "".join(text for text, _ in segments) != self.write(messages):
            self._warned = True
            warnings.warn(
                "the chat template alone writes an answer in another way, because of what is in it: it is trained as "
                f"it is, here {next((text for text, spoken in segments if spoken), '')[:80]!r}",
                stacklevel=3,
            )
        return segments

    def _marked(self, messages: Messages) -> tuple[Messages, list[tuple[int, str, bool]], str]:
        """The messages with marks; for each whose it is, for what it stands, whether it is a turn's last; the mark."""
        written = "".join(part.get("text", "") for message in messages for part in message["content"])
        mark = next(character for character in PRIVATE if character not in written)
        shown, said = [], []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                shown.append(message)
                continue
            content = message["content"]
            texts = [part["text"] for part in content if part["type"] == "text"]
            if not (self.keeps_parts and texts):
                texts = ["".join(texts).strip() if self.trims else "".join(texts)]
                content = [*(part for part in content if part["type"] != "text"), {"type": "text"}]
            parts = [{"type": "text", "text": mark} if part["type"] == "text" else part for part in content]
            shown.append({**message, "content": parts})
            said += [(number, text, place == len(texts)) for place, text in enumerate(texts, start=1)]
        return shown, said, mark


def _as_strings(messages: Messages) -> Messages:
    """Contents that are texts alone as one text each."""
    return [
        {**message, "content": text_of(message)}
        if all(part["type"] == "text" for part in message["content"])
        else message
        for message in messages
    ]


def _spoken(*texts: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text} for text in texts]}
