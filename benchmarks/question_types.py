"""The README's table of question types: `python -m benchmarks.question_types rows.jsonl`, offline, a second.

For each question of a file (one JSON object a line with `question` and `answer`) the type that follows from its
answers, and the one that the keyword rule of the reference implementation gives it; `*` marks where they differ.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vlm_recipes.eval.metrics.question_types import QuestionTypes
from vlm_recipes.eval.metrics.typed_answers import TYPES

KEYWORDS = {
    "color": ("color", "colour"),
    "size_numeric": ("size", "length", "diameter"),
    "count_numeric": ("how many", "count"),
    "mcq": ("choose", "options", "mcq"),
}


def keyword_type(question: str) -> str:
    """The rule of the reference implementation, by words of the question alone, in its order."""
    question = question.lower()
    if "yes or no" in question or question.startswith(("is ", "are ")):
        return "yes_no"
    return next((name for name, words in KEYWORDS.items() if any(word in question for word in words)), "open_ended")


def compare(questions: Sequence[str], answers: Sequence[str]) -> str:
    """The questions, most frequent first, with both types; then the rows of each type by either rule."""
    types = QuestionTypes.infer(questions, answers)
    lines = [f"{'rows':>6}  {'type':14} {'by keywords':15} question"]
    for question, rows in Counter(questions).most_common():
        name, keyword = types[question].name, keyword_type(question)
        lines.append(f"{rows:6}  {name:14} {keyword:14}{' ' if name == keyword else '*'} {question}")
    pairs = [(types[question].name, keyword_type(question)) for question in questions]
    inferred, keywords = (Counter(names) for names in zip(*pairs, strict=True))
    lines += ["", f"{'type':14}{'rows':>8}{'by keywords':>13}"]
    lines += [f"{name:14}{inferred[name]:8}{keywords[name]:13}" for name in TYPES]
    differ = sum(name != keyword for name, keyword in pairs)
    return "\n".join([*lines, "", f"the two rules disagree on {differ} of {len(pairs)} rows"])


def main(file: str) -> None:
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    print(compare([row["question"] for row in rows], [row["answer"] for row in rows]))


if __name__ == "__main__":
    main(*sys.argv[1:])
