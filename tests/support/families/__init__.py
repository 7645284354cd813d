"""Tiny random checkpoints of the vision-language families, with their real classes, templates and special tokens."""

from pathlib import Path

from tests.support.families import deepseek, gemma, idefics, llava, mistral, mllama, qwen, strangers
from tests.support.session import once

WRITERS = {
    **qwen.WRITERS,
    **llava.WRITERS,
    **deepseek.WRITERS,
    **idefics.WRITERS,
    **gemma.WRITERS,
    **mistral.WRITERS,
    **mllama.WRITERS,
}
FAMILIES = tuple(WRITERS)
STRANGERS = tuple(strangers.WRITERS)  # not in the list of those that the pieces were written for
WRITERS |= strangers.WRITERS


def checkpoint(name: str) -> Path:
    """The folder that `AutoProcessor` and `AutoModelForImageTextToText` load, written once a session.

    Random weights of a fixed seed, two layers of width 32, a vocabulary of about 450 tokens; a picture of 64 by 48
    pixels becomes 4 to 30 tokens (Gemma 4: 65; Idefics3, whose tiles' names are ordinary text: 80).
    """
    return once(f"family_{name}", WRITERS[name])
