"""Messages -> text, in segments that say which part the assistant spoke."""

import warnings

from transformers import ProcessorMixin

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
        mark = PRIVATE[0]
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
        """The text of cleaned messages, as the template alone has it."""
        return self.processor.apply_chat_template(messages, chat_template=self.chat_template, tokenize=False)

    def segments(self, messages: Messages, prompt_only: bool = False) -> Segments:
        """Cleaned messages as `(text, spoken by the assistant)`; joined, they are the whole conversation.

        An answer begins with the space that the template writes before it, and runs to its end-of-turn token, without
        the white space after that. With `prompt_only` the last turn of the assistant is left out: the text ends where
        training shows its answer to begin.
        """
        if prompt_only:
            messages = [*(messages[:-1] if messages[-1]["role"] == "assistant" else messages), _spoken("")]
        shown, said, mark = self._marked(messages)
        pieces = self.write(shown).split(mark)
        if len(pieces) != len(said) + 1:
            raise ValueError(f"the chat template writes {len(pieces) - 1} of {len(said)} answers")
        segments, prompt, spoken = [], pieces[0], None
        for (answer, is_last), following in zip(said, pieces[1:], strict=True):
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
            segments.append((spoken, True))
            spoken = None
        if prompt_only:
            return segments[:-1]
        if prompt:
            segments.append((prompt, False))
        if self.ends_answers and not self._warned and "".join(text for text, _ in segments) != self.write(messages):
            self._warned = True
            warnings.warn(
                "the chat template alone writes an answer in another way, because of what is in it: it is trained as "
                f"it is, here {segments[1][0][:80]!r}",
                stacklevel=3,
            )
        return segments

    def _marked(self, messages: Messages) -> tuple[Messages, list[tuple[str, bool]], str]:
        """The messages with marks; what they stand for, and whether it is the last of its turn; the mark."""
        written = "".join(part.get("text", "") for message in messages for part in message["content"])
        mark = next(character for character in PRIVATE if character not in written)
        shown, said = [], []
        for message in messages:
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
            said += [(text, number == len(texts)) for number, text in enumerate(texts, start=1)]
        return shown, said, mark


def _spoken(*texts: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text} for text in texts]}
