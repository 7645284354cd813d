"""How a model is asked, for the card of its run: the recipe's prompt in words, and as Python that asks it."""

import functools
import sys
from pathlib import Path
from pprint import pformat
from typing import Any

from PIL import ImageOps
from transformers import PreTrainedModel

from ..eval.evaluation import Evaluation
from ..rows.conventions import Row

COMPOSED = ("lisa", "surgvivqa")  # models that transformers does not load
QUESTION = "What is shown?"  # where a recipe has none of its own; texts of the dataset are not for the card


def example_of(recipe: str | Path, data: Any, folder: Path) -> Row:
    """What the running recipe, by its `__file__`, asks about a picture; nothing where it has no `to_question`."""
    files = ((getattr(one, "__file__", None) or "", one) for one in list(sys.modules.values()))
    named = ((file, one) for file, one in files if file.endswith(Path(recipe).name))  # a path each would take longer
    module = next((one for file, one in named if Path(file) == Path(recipe)), None)
    if not hasattr(module, "to_question"):
        return {}
    return module.to_question(data, folder, getattr(module, "QUESTION", QUESTION))


def asked(network: PreTrainedModel, evaluation: Evaluation, example: Row) -> dict[str, Any]:
    """What the card's template needs to ask as `example` does; its `kind` is empty where no snippet is known.

    `example` has the columns that a prompt is made of: `messages` about one picture, or a `prompt`.
    """
    kind, question, lines, padding = "", "", [], None
    if "messages" in example:
        kind, question = "chat", example["messages"]
        lines = [f"{message['role']}: {_spoken(message['content'])}" for message in question]
    elif "prompt" in example:
        question, transform = example["prompt"], getattr(evaluation.collator, "image_transform", None)
        lines = [question]
        if isinstance(transform, functools.partial) and transform.func is ImageOps.pad:
            padding = transform.keywords["size"]
        kind = "seq2seq" if network.config.is_encoder_decoder and (transform is None or padding) else ""
    return {
        "kind": network.config.model_type if kind and network.config.model_type in COMPOSED else kind,
        "prompt": [line for text in lines for line in text.splitlines()],
        "question": pformat(question, width=110, sort_dicts=False),
        "padding": padding,
        "background": getattr(evaluation.collator, "background", "white"),
        "max_new_tokens": evaluation.max_new_tokens,
        "constrained": evaluation.constrain is not None or evaluation.closed,
    }


def _spoken(content: str | list[Row]) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "<image>") for part in content)
