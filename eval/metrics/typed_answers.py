"""Short answers of a known type: their canonical form, when two are the same, and how much of a list is right."""

import math
import re
from collections.abc import Hashable

from .text import as_read, squad_normalize

TYPES = ("yes_no", "color", "size_numeric", "count_numeric", "mcq", "open_ended")
LISTS = ("color", "size_numeric", "mcq")  # an answer may name several, "pink; red"
NUMERIC = ("size_numeric", "count_numeric")
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.05, 0.0
# Kvasir-VQA's own spellings. They stay in prompts and training answers, which the model has to read and write.
TYPOS = {"instrumnets": "instruments", "rigth": "right"}
YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
NUMBER = re.compile(r"[-+]?\d*\.?\d+")
_LENGTH = r"(\d+(?:\.\d+)?)"
SIZE = re.compile(rf"([<>≤≥]?)\s*{_LENGTH}(?:\s*(?:mm|cm)?\s*(?:-|–|to)\s*{_LENGTH})?\s*(mm|cm)?(?![\d.])")
# How people write the four signs: what holds another's words comes before it; what stands behind a length goes first.
SIGNS = {
    "≤": r"(less|smaller) than or equal to|(not|no) (more|larger|greater) than|at most|up to",
    "≥": r"(more|larger|greater|bigger) than or equal to|(not|no) (less|smaller) than|at least",
    "<": r"(less|smaller) than|under|below",
    ">": r"(more|larger|greater|bigger) than|over|above",
}
BEHIND = {"≤": r"or (less|smaller|below)", "≥": r"or (more|larger|greater|bigger|above)|\+"}
IN_ASCII = {"<=": "≤", "=<": "≤", ">=": "≥", "=>": "≥"}
COMPARED = re.compile(r"[<>≤≥]\s*\d|\d\s*(?:-|–|to)\s*\d")


def tidy(text: str) -> str:
    """As read, in lower case, single spaces, no final full stop, and the known typos put right."""
    text = " ".join(as_read(text).lower().split()).removesuffix(".")
    for typo, correct in TYPOS.items():
        text = text.replace(typo, correct)
    return text


def items(answer: str, question_type: str = "mcq") -> list[str]:
    """The parts of an answer that may be a list: "pink; red" -> ["pink", "red"], as spelt, without empty ones."""
    between = r"[;\u037e,/]|\band\b" if question_type == "color" else r"[;\u037e,]"  # the Greek one reads alike
    return [item.strip() for item in re.split(between, answer) if item.strip()]


def normalize(answer: str, question_type: str) -> Hashable:
    """The canonical form of an answer; two answers with the same one are the same answer.

    - yes_no: "yes" or "no" where that is the first word and the other one is absent; else the text;
    - color, mcq: the set of items, without order ("pink; red" is "red; pink"); grey is gray;
    - size_numeric: a set of lengths in millimetres, as classes ("<5mm", "5-10mm", ">20" is ">20mm") or plain ("12mm");
      what is no length ("none") stays as it is;
    - count_numeric: the first number if it is whole; else the text, and so is a range ("6-10", "more than 20");
    - open_ended: SQuAD-normalised text.

    Raises ValueError for another type.
    """
    text = tidy(answer)
    if question_type == "yes_no":
        words = re.findall(r"\w+", text)
        said = {YES_NO[word] for word in words if word in YES_NO}
        return said.pop() if len(said) == 1 and words[0] in YES_NO else text
    if question_type in LISTS:
        text = text.replace("grey", "gray") if question_type == "color" else text
        canonical = _size if question_type == "size_numeric" else str
        return frozenset(map(canonical, items(text, question_type) or [text]))
    if question_type == "count_numeric":
        signed = _with_signs(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
        found = None if COMPARED.search(signed) else NUMBER.search(signed)
        number = float(found[0]) if found else math.nan
        return int(number) if math.isfinite(number) and number == int(number) else text
    if question_type == "open_ended":
        return squad_normalize(text) or text
    raise ValueError(f"question type {question_type!r} is none of {', '.join(TYPES)}")


def _with_signs(text: str) -> str:
    """A text with `SIGNS` for what people write instead of them."""
    for two, sign in IN_ASCII.items():
        text = text.replace(two, sign)
    for sign, words in SIGNS.items():
        text = re.sub(rf"(?<!\w)(?:{words})(?!\w)", sign, text)
    for sign, words in BEHIND.items():
        text = re.sub(rf"(\d[\d.]*\s*(?:mm|cm)?)\s*(?:{words})(?!\w)", rf"{sign}\1", text)
    return text


def _size(item: str) -> str:
    item = _with_signs(item)
    found = list(SIZE.finditer(item))
    if len(found) != 1:
        return item
    sign, low, high, unit = found[0].groups()
    scale = 10 if unit == "cm" else 1
    return sign + "-".join(f"{float(length) * scale:g}" for length in (low, high) if length) + "mm"


def canonical_text(answer: str, question_type: str) -> str:
    """The canonical form as text: the class that an answer counts as."""
    canonical = normalize(answer, question_type)
    return "; ".join(sorted(canonical)) if isinstance(canonical, frozenset) else str(canonical)


def is_right(prediction: str, reference: str, question_type: str) -> bool:
    """Whether a prediction is the reference answer: the same canonical form, or a number close to it.

    Counts and plain lengths may differ by `max(abs, rel * max(1, |reference|))`, rel 0.05, abs 0: the tolerance of the
    reference implementation of typed Kvasir-VQA.
    """
    said, true = normalize(prediction, question_type), normalize(reference, question_type)
    if said == true:
        return True
    numbers = [_plain_number(value) for value in (said, true)]
    if None in numbers or question_type not in NUMERIC:
        return False
    tolerance = max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * max(1.0, abs(numbers[1])))
    return abs(numbers[0] - numbers[1]) <= tolerance


def _plain_number(value: Hashable) -> float | None:
    if isinstance(value, frozenset) and len(value) == 1 and (found := re.fullmatch(rf"{_LENGTH}mm", *value)):
        return float(found[1])
    return value if isinstance(value, int) else None


def jaccard(prediction: str, reference: str, question_type: str) -> float | None:
    """Items in both over items in either (0-1), the partial credit of a list; None for types that have no lists."""
    if question_type not in LISTS:
        return None
    said, true = normalize(prediction, question_type), normalize(reference, question_type)
    return len(said & true) / len(said | true)
