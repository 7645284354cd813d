"""Which kind of answer a question wants: from its wording and the training answers seen for it, never from others.

`python -m vlm_recipes.eval.metrics.question_types rows.jsonl` prints the types of a file's questions (one JSON object
a line with `question` and `answer`).
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from .baselines import most_frequent
from .text import as_read
from .typed_answers import TYPES, YES_NO, items, normalize, tidy

NEARLY_ALL = 0.99  # a few slips among thousands of counts do not make them words
OPEN_FROM = 0.25  # closed as long as fewer answers than this would hold something never seen
NOTHING = {"none", "nan", "n/a"}
INVITES_SEVERAL = re.compile(r"\b(all that|more than one)\b")  # "Check all that are present."


@dataclass(frozen=True)
class QuestionType:
    """What a question wants.

    Args:
        name: one of `TYPES`.
        choices: the closed set of answers, or of their items, spelt as in training; empty for open-ended questions.
            For numbers: the answers that are none ("none").
        several: whether an answer may list several choices, "a; b".
        units: for free numbers, what follows them: ("",) for counts, such as ("mm", " cm") for lengths. Empty for
            choices alone. Constrained to them, a model says whole numbers up to 999: "1.5 cm" it cannot say.
    """

    name: str
    choices: tuple[str, ...] = ()
    several: bool = False
    units: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: dict[str, Any]) -> "QuestionType":
        """Read what `columns` put into a row."""
        return cls(row["question_type"], tuple(row["choices"]), row["several"], tuple(row["units"]))

    def columns(self) -> dict[str, Any]:
        """The type as columns of a row: `question_type`, `choices`, `several`, `units`."""
        fields = asdict(self)
        return {"question_type": fields.pop("name"), **fields}


OPEN = QuestionType("open_ended")


@dataclass
class QuestionTypes:
    """The type of every question seen in training; any other question is open-ended, since nothing is known of it."""

    by_question: dict[str, QuestionType]

    def __getitem__(self, question: str) -> QuestionType:
        return self.by_question.get(tidy(question), OPEN)

    @classmethod
    def infer(cls, questions: Sequence[str | None], answers: Sequence[str | None]) -> "QuestionTypes":
        """One text per training row each; wordings that read alike (`tidy`) are one question."""
        seen: dict[str, list[str]] = {}
        for question, answer in zip(questions, answers, strict=True):
            if question and answer and answer.strip():  # a row without either is refused later, by name
                seen.setdefault(tidy(question), []).append(answer.strip())
        return cls({question: infer_type(question, given) for question, given in seen.items()})

    def as_json(self) -> str:
        """The types as text, which `load` reads from a file."""
        types = {question: kind.columns() for question, kind in self.by_question.items()}
        return json.dumps(types, indent=1, ensure_ascii=False)

    @classmethod
    def load(cls, file: str | PathLike[str]) -> "QuestionTypes":
        types = json.loads(Path(file).read_text(encoding="utf-8"))
        return cls({question: QuestionType.of(columns) for question, columns in types.items()})


def infer_type(question: str, answers: Sequence[str]) -> QuestionType:
    """The type of one question from all its training answers.

    In this order: yes_no if every answer is yes or no (a third answer, such as "not relevant", makes it a choice);
    count_numeric if the answers are whole numbers; size_numeric if they are lengths or ranges of lengths; then, if
    the answers come from a closed set, color where the question says so, else mcq; else open_ended. A set is closed
    while items seen only once are under a quarter of the answers: by Good and Turing's estimate that is how often the
    next answer would hold something new.
    """
    if {tidy(answer) for answer in answers} <= YES_NO.keys():  # and not "Yes, left lung"
        return QuestionType("yes_no", ("yes", "no"))
    words = [answer for answer in answers if not re.fullmatch(r"\d+", as_read(answer))]
    if _nearly_all(words, answers):
        return QuestionType("count_numeric", _choices(words, "mcq"), units=("",))
    lengths = [item for answer in answers for item in items(answer) if _is_length(item)]
    given = [item for answer in answers for item in items(answer)]
    if lengths and _nearly_all([item for item in given if not _is_length(item)], given):
        return _size_type(answers, given)
    name = "color" if re.search(r"\bcolou?rs?\b", question.lower()) else "mcq"
    counts = Counter(item for answer in answers for item in normalize(answer, name))
    if sum(count == 1 for count in counts.values()) >= OPEN_FROM * len(answers):
        return OPEN
    parts = [part for answer in answers for part in items(answer, name)]
    several = any(len(items(answer, name)) > 1 for answer in answers) or INVITES_SEVERAL.search(question.lower())
    return QuestionType(name, _choices(parts, name), bool(several))


def _nearly_all(exceptions: Sequence[str], answers: Sequence[str]) -> bool:
    """Whether what does not fit is a word for nothing, or next to nothing."""
    wrong = [answer for answer in exceptions if tidy(answer) not in NOTHING]
    return len(exceptions) < len(answers) and len(wrong) <= (1 - NEARLY_ALL) * len(answers)


def _is_length(item: str) -> bool:
    """ "<5mm", "5-10mm", ">20", "12 mm"; a number alone is a count."""
    [canonical] = normalize(item, "size_numeric")
    return bool(re.fullmatch(r"[<>≤≥]?[\d.]+(-[\d.]+)?mm", canonical)) and not re.fullmatch(r"[\d.]+", tidy(item))


def _size_type(answers: Sequence[str], given: Sequence[str]) -> QuestionType:
    """Classes ("<5mm") are choices; plain lengths ("12 mm") are free numbers with their units."""
    plain = [item for item in given if re.fullmatch(r"\d+(\.\d+)?\s*(mm|cm)", as_read(item).lower())]
    units = sorted({re.sub(r"^[\d.]+", "", as_read(item)) for item in plain})
    choices = _choices([item for item in given if item not in set(plain)], "size_numeric")
    several = any(len(items(answer)) > 1 for answer in answers) and not units
    return QuestionType("size_numeric", choices, several, tuple(units))


def _choices(given: Iterable[str], name: str) -> tuple[str, ...]:
    """One spelling, the most frequent, per canonical form: lengths by size, the rest by the alphabet, nothing last."""
    spellings: dict[object, list[str]] = {}
    for item in given:
        spellings.setdefault(normalize(item, name), []).append(item.strip())

    def rank(choice: str) -> tuple:
        length = re.search(r"\d+", choice) if name == "size_numeric" else None
        below = 0 if choice.startswith("<") else 1
        return (tidy(choice) in NOTHING, int(length[0]) if length else 0, below, choice)

    return tuple(sorted(map(most_frequent, spellings.values()), key=rank))


def describe_types(questions: Sequence[str], answers: Sequence[str]) -> str:
    """The questions, most frequent first, with their types and answers; then how many rows each type has."""
    types = QuestionTypes.infer(questions, answers)
    lines = [f"{'rows':>6}  {'type':14} {'question':72} answers"]
    for question, rows in Counter(questions).most_common():
        kind = types[question]
        known = ", ".join([*(["0, 1, 2, …"] if kind.units else []), *kind.choices]) + (" …; …" * kind.several)
        lines.append(f"{rows:6}  {kind.name:14} {question:72.72} {known}")
    counts = Counter(types[question].name for question in questions)
    return "\n".join([*lines, "", *(f"{name:14}{counts[name]:8}" for name in TYPES)])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vlm_recipes.eval.metrics.question_types", description="The types of a file's questions."
    )
    parser.add_argument("rows", type=Path, help="one JSON object a line, with question and answer")
    file = parser.parse_args(arguments).rows
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        print(describe_types([str(row["question"]) for row in rows], [str(row["answer"]) for row in rows]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{file}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
