import json
import re
import string
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from tests.support.paths import VQA_RAD, written_and_real
from vlm_recipes.eval.metrics import text
from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.eval.metrics.statistics import summarize
from vlm_recipes.eval.metrics.text import as_read, keyword_scores, rouge_l, squad_normalize, token_scores

WORDS = st.lists(st.sampled_from(["left", "right", "lung", "no", "Yes", "the"]), min_size=1, max_size=6).map(" ".join)


def text_metrics(*columns, **more) -> dict[str, float]:
    return flat(text.text_metrics(*columns, **more))


def keyword_accuracy(predictions, keywords, groups=None) -> dict[str, float]:
    return flat(summarize({"keyword_accuracy": text.keyword_scores(predictions, keywords)}, groups))


def shared_tokens(prediction: list[str], reference: list[str]) -> int:
    """Cross out each predicted token once in the reference, and count."""
    remaining = list(reference)
    for token in prediction:
        if token in remaining:
            remaining.remove(token)
    return len(reference) - len(remaining)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_bleu1_is_sacrebleu_s_unigram_precision(prediction, reference):
    sacrebleu = BLEU(lowercase=True, tokenize="none", smooth_method="none", effective_order=True)
    expected = sacrebleu.sentence_score(prediction, [reference]).precisions[0] / 100
    assert text_metrics([prediction], [reference])["bleu1"] == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_token_f1_is_the_harmonic_mean_of_precision_and_recall(prediction, reference):
    predicted, true = prediction.lower().split(), reference.lower().split()
    precision, recall = (shared_tokens(predicted, true) / len(tokens) for tokens in (predicted, true))
    expected = 2 * precision * recall / (precision + recall) if precision else 0.0
    assert token_scores(prediction.lower(), reference.lower()) == pytest.approx((precision, recall, expected))
    assert text_metrics([prediction], [reference])["token_f1"] == pytest.approx(expected)


def longest_common(a: list[str], b: list[str]) -> int:
    """By the naive recursion: the first words are both taken, or one of them is not."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest_common(a[1:], b[1:])
    return max(longest_common(a[1:], b), longest_common(a, b[1:]))


@settings(deadline=None)
@given(*[st.lists(st.sampled_from(["a", "red", "circle", "Bar", "bar,", "2nd", "é"]), max_size=6).map(" ".join)] * 2)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence_of_words(prediction, reference):
    said, true = (re.findall("[a-z0-9é]+", one.lower()) for one in (prediction, reference))
    common = longest_common(said, true)
    expected = 2 * common / (len(said) + len(true)) if common else 0
    assert rouge_l(prediction, reference) == pytest.approx(expected)


def test_rouge_l_asks_for_the_order_that_token_f1_does_not():
    metrics = text_metrics(["a bar and a circle"], ["a circle and a bar"])
    assert metrics["token_f1"] == 1 and metrics["rouge_l"] == pytest.approx(3 / 5)


def test_the_plain_scores_keep_articles_and_punctuation_and_those_of_open_and_closed_questions_drop_them():
    metrics = text_metrics(["The left lung.", "Yes."], ["left lung", "yes"], closed=[False, True])
    assert metrics["exact_match"] == 0.0 and metrics["closed_accuracy"] == 1.0
    assert metrics["bleu1"] == pytest.approx(1 / 6)  # only "left" of three: "lung." is not "lung"
    assert metrics["token_f1"] == pytest.approx(1 / 5)
    assert metrics["open_recall"] == metrics["open_f1"] == 1.0


def test_case_and_outer_white_space_never_matter():
    metrics = text_metrics(["  YES\n"], ["yes"])
    assert {key: metrics[key] for key in metrics if key != "n"} == dict.fromkeys(set(metrics) - {"n"}, 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat,\n sat on an\tapple!", "cat sat on apple"),
        ("X-ray (AP)", "xray ap"),
        ("a", ""),
        ("anatomy theatre", "anatomy theatre"),  # articles go as whole words only
        ("a.n. other", "other"),  # punctuation goes first, which leaves the article "an"
        ("5.0 cm", "50 cm"),
        (string.punctuation, ""),
        ("Größe: 5–10", "größe 5–10"),  # only ASCII punctuation
    ],
)
def test_squad_normalization_by_hand(text, expected):
    assert squad_normalize(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cafe\u0301", "Café"),
        ("ＡＢ１２ ｚ", "AB12 z"),
        ("\ufeffyes\u200b", "yes"),
        ("n\u200co\u200d\u2060", "no"),
        ("\u200fno\u200e", "no"),
        ("是。", "是."),
        ("1．5｡", "1.5."),
        ("e\u200b\u0301", "é"),  # what has no width goes first
        ("m²", "m²"),  # under NFKC "m2"
        ("\ufb01ve \u00bd \u2163", "\ufb01ve \u00bd \u2163"),
        ("是，？\u3001", "是，？\u3001"),  # other signs of full width stay
        ("\uff76\uff9e", "\uff76\uff9e"),  # and so do letters of half width
    ],
)
def test_a_text_as_people_read_it_by_hand(text, expected):
    assert as_read(text) == expected and as_read(expected) == expected


def test_of_all_of_unicode_69_signs_are_read_as_others_than_in_nfc_and_3_of_them_as_a_full_stop():
    signs = [chr(code) for code in range(sys.maxunicode + 1)]
    changed = {sign: as_read(sign) for sign in signs if as_read(sign) != unicodedata.normalize("NFC", sign)}
    invisible = {sign for sign, read in changed.items() if not read}
    assert {unicodedata.category(sign) for sign in invisible} == {"Cf"} and len(invisible) == 7
    stops = {sign for sign, read in changed.items() if read == "."}
    assert all("FULL STOP" in unicodedata.name(sign) for sign in stops) and len(stops) == 3
    wide = changed.keys() - invisible - stops
    assert all(unicodedata.name(sign) == f"FULLWIDTH {unicodedata.name(changed[sign])}" for sign in wide)
    assert "".join(sorted(changed[sign] for sign in wide)) == "".join(sorted(string.digits + string.ascii_letters))


@given(st.text(st.characters(max_codepoint=127)))
def test_a_text_in_ascii_is_read_as_it_is(text):
    assert as_read(text) == text


SPELT = [("\ufeffNaive\u0301", "naivé"), ("ＡＢ１", "ab1"), ("Yes。", "yes."), ("n\u200bo", "no")]


@pytest.mark.parametrize(("said", "true"), SPELT)
def test_what_reads_alike_is_the_same_answer_to_every_metric(said, true):
    metrics = text_metrics([said, said], [true, true], closed=[True, False])
    assert {name: metrics[name] for name in metrics if name != "n"} == dict.fromkeys(metrics.keys() - {"n"}, 1)
    assert keyword_scores([f"It is {said}"], [true]) == [1]


@pytest.mark.parametrize("text", ["Левое лёгкое", "左肺", "lésion"])
def test_rouge_l_knows_the_words_of_every_script(text):
    assert rouge_l(text, text) == 1 and rouge_l(text, "другое") == 0


@given(st.text(st.characters(max_codepoint=127)), st.text(st.characters(max_codepoint=127)))
def test_rouge_l_of_ascii_is_that_of_the_library(prediction, reference):
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
    assert rouge_l(prediction, reference) == theirs


def test_a_sign_or_an_article_alone_is_an_answer_that_another_one_is_not():
    metrics = text_metrics(["-", "", "A", "-"], ["+", "A", "A", "+"], closed=[True, True, True, False])
    assert metrics["closed_accuracy"] == pytest.approx(1 / 3) and metrics["open_f1"] == metrics["open_recall"] == 0


def test_another_answer_is_none_however_it_is_written():
    assert text_metrics(["m²", "yes", "是"], ["m2", "yes。", "否"])["exact_match"] == 0


def test_a_repeated_token_counts_as_often_as_the_reference_has_it():
    metrics = text_metrics(["no no no no"], ["no no sign"])
    assert metrics["bleu1"] == 0.5  # clipped at two of four
    assert metrics["token_f1"] == pytest.approx(2 * 2 / (4 + 3))


def test_there_is_no_brevity_penalty():
    assert text_metrics(["lung"], ["the right upper lobe of the lung"])["bleu1"] == 1.0


def test_an_empty_answer_scores_zero_unless_the_reference_is_empty_too():
    metrics = text_metrics(["", "yes", "", "The"], ["yes", "", "", "a"], closed=[False] * 4)
    assert metrics["n"] == 4 and metrics["exact_match"] == metrics["bleu1"] == metrics["token_f1"] == 0.25
    assert metrics["open_recall"] == metrics["open_f1"] == 0.25


def test_closed_rows_give_accuracy_and_open_rows_recall_and_f1():
    metrics = text_metrics(
        ["Yes.", "no", "the right lower lung lobe", "MRI", "heart"],
        ["yes", "yes", "right lobe", "MRI scan image", "liver"],
        closed=[True, True, False, False, False],
    )
    assert (metrics["closed_accuracy"], metrics["closed_accuracy_n"]) == (0.5, 2)
    assert (metrics["open_recall"], metrics["open_recall_n"]) == (pytest.approx((2 / 2 + 1 / 3 + 0) / 3), 3)
    assert (metrics["open_f1"], metrics["open_f1_n"]) == (pytest.approx((4 / 6 + 2 / 4 + 0) / 3), 3)
    assert metrics["closed_accuracy_low"] == 0 and metrics["closed_accuracy_high"] == 1


def test_without_an_open_row_there_is_no_open_score_only_its_count():
    metrics = text_metrics(["yes", "no"], ["yes", "yes"], closed=[True, True])
    assert metrics["open_recall_n"] == metrics["open_f1_n"] == 0 and metrics["closed_accuracy_n"] == 2
    assert not {"open_recall", "open_f1", "open_f1_low"} & set(metrics)
    assert "closed_accuracy" not in text_metrics(["yes"], ["yes"])


def test_no_rows_have_only_n_and_uneven_lists_are_refused():
    assert text_metrics([], []) == text_metrics([], [], closed=[], groups=[]) == {"n": 0}
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        text_metrics(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="closed has 1 entries for 2 rows"):
        text_metrics(["a", "b"], ["a", "b"], closed=[True])
    with pytest.raises(ValueError, match="groups"):
        text_metrics(["a", "b"], ["a", "b"], groups=["x"])


def test_constant_yes_on_the_real_test_rows_is_the_published_26_16():
    rows = json.loads(VQA_RAD.read_text(encoding="utf-8"))
    test = [row for row in rows if row["phrase_type"].startswith("test_")]
    references = [str(row["answer"]) for row in test]
    closed = [row["answer_type"].strip() == "CLOSED" for row in test]
    metrics = text_metrics(["yes"] * len(test), references, closed, groups=[row["image_name"] for row in test])
    assert metrics["n"] == 451
    for name in ("exact_match", "bleu1", "token_f1"):
        assert metrics[name] == 118 / 451 and round(100 * metrics[name], 2) == 26.16
        assert metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"]
    assert (metrics["closed_accuracy"], metrics["closed_accuracy_n"]) == (118 / 272, 272)
    assert (metrics["open_recall"], metrics["open_recall_n"]) == (0.0, 179)


@pytest.mark.parametrize("asked", [0, 1], ids=["each beside itself", "each beside the next"])
def test_on_all_answers_of_vqa_rad_an_exact_match_is_what_it_was(asked):
    rows = json.loads(VQA_RAD.read_text(encoding="utf-8"))
    true = [str(row["answer"]) for row in rows]
    said = true[asked:] + true[:asked]
    closed = [row["answer_type"].strip() == "CLOSED" for row in rows]
    before = [a.lower().strip() == b.lower().strip() for a, b in zip(said, true, strict=True)]
    metrics = text_metrics(said, true, closed)
    assert len(true) == 2248 and metrics["exact_match"] == sum(before) / 2248
    normalized = [squad_normalize(a) == squad_normalize(b) for a, b in zip(said, true, strict=True)]
    of_closed = [same for same, is_closed in zip(normalized, closed, strict=True) if is_closed]
    assert metrics["closed_accuracy"] == pytest.approx(sum(of_closed) / len(of_closed))


@pytest.mark.parametrize(
    ("prediction", "keyword", "found"),
    [
        ("No, clean mucosa is not visible.", "no", True),
        ("Clean mucosa is not visible; nobody knows.", "no", False),  # only within longer words
        ("The scope uses nbi.", "NBI", True),
        ("The lesion is <5 mm.", "<5", True),
        ("<5", "<5", True),
        ("The lesion is <50 mm.", "<5", False),
        ("The lesion is 5 mm.", "<5", False),
        ("In the upper-left quadrant.", "upper-left", True),
        ("In the upper left quadrant.", "upper-left", False),
        ("In the upper-left quadrant.", "left", True),  # a hyphen is a word boundary
        ("It shifts upward.", "up", False),
        ("about a+b", "a+b", True),
        ("about aab", "a+b", False),  # the keyword is no pattern
        ("a cold_snare", "snare", False),  # an underscore is none
        ("Yes", " yes\n", True),
        ("", "yes", False),
    ],
)
def test_a_keyword_stands_on_word_boundaries_or_does_not(prediction, keyword, found):
    assert keyword_accuracy([prediction], [keyword]) == {"n": 1, "keyword_accuracy": float(found)}


def test_keyword_accuracy_is_a_share_whose_interval_resamples_whole_clips():
    answers, keywords = ["Yes."] * 6, ["yes", "yes", "yes", "no", "no", "no"]
    clips = ["a", "a", "a", "b", "b", "b"]
    metrics = keyword_accuracy(answers, keywords, clips)
    assert metrics == {"n": 6, "keyword_accuracy": 0.5, "keyword_accuracy_low": 0.0, "keyword_accuracy_high": 1.0}
    assert keyword_accuracy(answers, keywords)["keyword_accuracy_low"] > 0
    assert set(keyword_accuracy(answers, keywords, ["a"] * 6)) == {"n", "keyword_accuracy"}


def test_keyword_accuracy_of_no_rows_is_n_and_what_cannot_be_scored_is_refused():
    assert keyword_accuracy([], []) == keyword_accuracy([], [], []) == {"n": 0}
    with pytest.raises(ValueError, match="row 1: the keyword ' ' is empty"):
        keyword_accuracy(["a", "b"], ["a", " "])
    with pytest.raises(ValueError, match="1 predictions for 2 keywords"):
        keyword_accuracy(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="groups"):
        keyword_accuracy(["a", "b"], ["a", "b"], ["x"])


@pytest.mark.parametrize(
    ("file", "n", "contained", "compared"),
    written_and_real("real_colon_vqa/in_template.jsonl", (28, 26, 1), (240, 231, 12)),
)
def test_nearly_all_answers_contain_their_own_keyword(file, n, contained, compared):
    """Cut into words by hand, without patterns; the others say "completely" and "upward"."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    answers, keywords = [row["answer"] for row in rows], [row["short_answer"] for row in rows]
    words = [{word.strip(".,") for word in answer.lower().split()} for answer in answers]
    found = [keyword.lower() in own for keyword, own in zip(keywords, words, strict=True)]
    metrics = keyword_accuracy(answers, keywords, ["".join(row["frames"]) for row in rows])
    assert (metrics["n"], sum(found), metrics["keyword_accuracy"]) == (n, contained, contained / n)
    assert metrics["keyword_accuracy_low"] < contained / n < metrics["keyword_accuracy_high"]
    missing = {(keyword, words[i] >= {"completely"}) for i, keyword in enumerate(keywords) if not found[i]}
    assert missing == {("complete", True), ("up", False)}
    assert sum("<" in keyword for keyword in keywords) == compared  # a plain \b finds none of these
