"""Answer metrics: exact match, BLEU-1, token F1, ROUGE-L, closed and open questions, and keywords."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from .number import Scores, flags
from .statistics import summarize

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # spaces, joiners and marks without width; at last the BOM
_FULL_WIDTH = {0xFEE0 + ord(sign): sign for sign in string.digits + string.ascii_letters}
_AS_READ = dict.fromkeys(map(ord, _INVISIBLE)) | _FULL_WIDTH | dict.fromkeys(map(ord, "。．｡"), ".")


def as_read(text: str) -> str:
    """A text as people read it: one way to write what looks the same.

    That is Unicode's NFC, digits and letters of half width ("ＡＢ１２" is "AB12"), a full stop for "。", "．" and "｡",
    and nothing that has no width, such as a byte-order mark. All else stays: "m²" is not "m2", as it would be under
    NFKC, and a text in ASCII is as it was.
    """
    return unicodedata.normalize("NFC", text.translate(_AS_READ))


def lowered(text: str) -> str:
    """A text `as_read`, in lower case, without the white space around it."""
    return as_read(text).lower().strip()


def squad_normalize(text: str) -> str:
    """Lower-case a text, drop ASCII punctuation and the words a, an, the, and squeeze white space.

    Source: the evaluation of SQuAD (Rajpurkar et al., arXiv 1606.05250).
    """
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text.lower().translate(_NO_PUNCTUATION)).split())


def token_scores(prediction: str, reference: str) -> tuple[float, float, float]:
    """Precision, recall and F1 (0-1) of a prediction's tokens, split on white space, each counted once.

    The precision is BLEU-1 without the brevity penalty. Where either text has no token, all three are 1 if both
    have none, else 0 (as SQuAD 2.0 does, arXiv 1806.03822).
    """
    predicted, true = prediction.split(), reference.split()
    if not predicted or not true:
        return (float(predicted == true),) * 3
    shared = sum((Counter(predicted) & Counter(true)).values())
    return shared / len(predicted), shared / len(true), 2 * shared / (len(predicted) + len(true))


def rouge_l(prediction: str, reference: str) -> float:
    """F1 (0-1) of the longest common subsequence of two texts' words: ROUGE-L, as `rouge-score` computes it.

    Its words are runs of letters and digits of `lowered`, without stemming; where either text has none, it is 0.
    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; Hugging Face's `rouge` is the same for
    texts in ASCII, and knows no other letters.
    """
    return _rouge().score(reference, prediction)["rougeL"].fmeasure


class _Words:
    """Of any language, where `rouge-score` has a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", lowered(text))


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # brings NLTK, which brings scikit-learn

    return RougeScorer(["rougeL"], tokenizer=_Words())


def text_metrics(
    predictions: Sequence[str],
    references: Sequence[str],
    closed: Sequence[bool] | None = None,
    groups: Sequence[str] | None = None,
) -> Scores:
    """Score answers against the true ones, row by row.

    `predictions` and `references` hold one text per row; `closed` says which questions are closed (yes or no, or
    a choice); `groups` names rows that are not independent (the image's id).

    Returns, all as shares of 1 over rows:

    - `exact_match` of `lowered`;
    - `bleu1` (clipped unigram precision, no brevity penalty) and `token_f1` on `lowered` split on white space, as
      the BLIP-2 reproduction of Med-PaLM M (arXiv 2307.14334) computes them of lower-cased text;
    - `rouge_l`, as the function;
    - with `closed`: `closed_accuracy` (exact match of SQuAD-normalised text, over closed rows), `open_recall` and
      `open_f1` (tokens of the SQuAD-normalised text over open rows, as the medical VQA literature reports, such as
      LLaVA-Med, arXiv 2306.00890); a text of nothing but signs and articles stays as it is.

    Each comes with its 95% bootstrap interval (for two or more rows or groups). Raises ValueError for lists of
    different lengths, and for a `closed` that is neither true nor false.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references; give one per row")
    pairs = [tuple(map(lowered, pair)) for pair in zip(predictions, references, strict=True)]
    plain = [token_scores(*pair) for pair in pairs]
    scores: dict[str, list[float | None]] = {
        "exact_match": [float(p == r) for p, r in pairs],
        "bleu1": [precision for precision, _, _ in plain],
        "token_f1": [f1 for _, _, f1 in plain],
        "rouge_l": [rouge_l(*pair) for pair in pairs],
    }
    if closed is None or not pairs:
        return summarize(scores, groups)
    if len(closed) != len(pairs):
        raise ValueError(f"closed has {len(closed)} entries for {len(pairs)} rows; give one per row")
    normalized = [
        (is_closed, *(squad_normalize(text) or text for text in pair))  # a sign or an article alone is an answer
        for is_closed, pair in zip(flags("closed", closed), pairs, strict=True)
    ]
    tokens = [None if is_closed else token_scores(p, r) for is_closed, p, r in normalized]
    of_kind = {
        "closed_accuracy": [float(p == r) if is_closed else None for is_closed, p, r in normalized],
        "open_recall": [own and own[1] for own in tokens],
        "open_f1": [own and own[2] for own in tokens],
    }
    numbers = summarize(of_kind, groups).items()
    return summarize(scores, groups) | {name: replace(number, partial=True) for name, number in numbers}


def keyword_scores(predictions: Sequence[str], keywords: Sequence[str]) -> list[float]:
    """1 for each answer in which the row's keyword stands on word boundaries, in upper or lower case, else 0: K-ACC.

    A hyphen is a boundary ("left" stands in "upper-left"), and what the answer means is not asked ("no" stands in
    "Yes, there is no tool"). The code of SurgViVQA's authors (arXiv 2511.03325) does not find a keyword that starts
    with a sign after a space, such as "<5", and asks for no boundary around several words: of 240 true answers of
    REAL-Colon-VQA it accepts 219, this 231. Raises ValueError for an empty keyword, naming its row, and for lists of
    different lengths.
    """
    if len(predictions) != len(keywords):
        raise ValueError(f"{len(predictions)} predictions for {len(keywords)} keywords; give one per row")
    scores = []
    for row, (prediction, keyword) in enumerate(zip(predictions, keywords, strict=True)):
        if not keyword.strip():
            raise ValueError(f"row {row}: the keyword {keyword!r} is empty, so it would stand in every answer")
        # Not \b, which "<" has only next to a letter or digit.
        pattern = rf"(?<!\w){re.escape(as_read(keyword).strip())}(?!\w)"
        scores.append(float(re.search(pattern, as_read(prediction), re.IGNORECASE) is not None))
    return scores
