"""Answers that are kept as they come: who is stopped goes on with the rest, and with nothing of another model's."""

import os
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support import tiny
from tests.support.processes.launch import in_two_processes
from vlm_recipes.callbacks.interrupt import Signals
from vlm_recipes.collators import ChatCollator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.kept import AnsweringStopped, KeptAnswers


def evaluation(asked: list[str], **changes) -> Evaluation:
    """Two rows a batch; the ids of the rows that a model is asked go into `asked`."""
    collator = ChatCollator(AutoProcessor.from_pretrained(tiny.trained_qwen2_vl()), prompt_only=True)

    def noting(rows):
        asked.extend(row["id"] for row in rows)
        return collator(rows)

    noting.processor = collator.processor
    settings = {"metric": tiny.exact_match, "score": tiny.exact_scores, "headline": "exact", "max_new_tokens": 30}
    return Evaluation(**{"collator": noting, "batch_size": 2, **settings, **changes})


def model():
    return AutoModelForImageTextToText.from_pretrained(tiny.trained_qwen2_vl())


def stopped_after(batches: int, folder: Path) -> KeptAnswers:
    asked = iter(range(1, 100))
    return KeptAnswers(folder, "test", stop=lambda: next(asked) >= batches)


EXPECTED = [row["answer"] for row in tiny.chat_rows()]  # learnt by heart


def test_who_is_stopped_goes_on_with_the_rows_that_are_not_answered_in_the_batches_of_an_uninterrupted_run(
    tmp_path, capsys
):
    whole, first, rest = [], [], []
    assert evaluation(whole).answer(model(), tiny.chat_rows(), kept=KeptAnswers(tmp_path / "a", "test")) == EXPECTED
    with pytest.raises(AnsweringStopped, match="^4 of 8 rows of 'test' are answered$"):
        evaluation(first).answer(model(), tiny.chat_rows(), kept=stopped_after(2, tmp_path / "b"))
    assert evaluation(rest).answer(model(), tiny.chat_rows(), kept=KeptAnswers(tmp_path / "b", "test")) == EXPECTED
    assert first + rest == whole and len(first) == len(rest) == 4
    assert "test: 4 rows were answered before, and are not asked again" in capsys.readouterr().out
    evaluation(rest).answer(model(), tiny.chat_rows(), kept=KeptAnswers(tmp_path / "b", "test"))
    assert len(rest) == 4  # all are there


def test_a_line_that_was_not_written_to_its_end_is_asked_again(tmp_path):
    asked, kept = [], KeptAnswers(tmp_path, "test")
    evaluation([]).answer(model(), tiny.chat_rows(), kept=kept)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    lost = file.read_text().splitlines()[-1]
    assert evaluation(asked).answer(model(), tiny.chat_rows(), kept=kept) == EXPECTED
    assert [[row["id"] for row in tiny.chat_rows()].index(name) for name in asked] == [int(lost[1])]


OTHERS = {
    "weights": ("other weights", {}, slice(None)),
    "rows": ("", {}, slice(None, None, -1)),
    "fewer rows": ("", {}, slice(0, 6)),
    "a longer answer": ("", {"max_new_tokens": 31}, slice(None)),
    "beams": ("", {"generation_kwargs": {"num_beams": 2}}, slice(None)),
    "a number format": ("", {"autocast": torch.bfloat16}, slice(None)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_answers_of_other_weights_rows_or_settings_are_dropped_with_a_line(other, tmp_path, capsys):
    key, changes, chosen = OTHERS[other]
    with pytest.raises(AnsweringStopped):
        evaluation([]).answer(model(), tiny.chat_rows(), kept=stopped_after(3, tmp_path))
    asked, rows = [], tiny.chat_rows()[chosen]
    evaluation(asked, **changes).answer(model(), rows, kept=KeptAnswers(tmp_path, "test", key))
    assert sorted(asked) == sorted(row["id"] for row in rows)
    said = f"test: answers kept in {tmp_path} are of other weights, rows or settings: dropped"
    assert capsys.readouterr().out.splitlines().count(said) == 1


def test_each_pass_has_a_file_of_its_own_and_none_takes_another_s_answers(tmp_path):
    asked, rows = [], [row | {"image_id": row["id"]} for row in tiny.chat_rows()]
    kept = KeptAnswers(tmp_path).of("test, questions shuffled")
    closed = evaluation(
        asked, closed=True, ask=lambda model, batch, **settings: (model.generate(**batch, **settings), None)
    )
    closed(model(), rows, 5, kept)
    names = {"test-questions-shuffled.0.jsonl", "test-questions-shuffled-free.0.jsonl"}
    assert {file.name for file in tmp_path.iterdir()} == names and len(asked) == 8 + 5
    closed(model(), rows, 5, kept)
    assert len(asked) == 13
    closed(model(), rows, 5, kept.of("blank images"))
    assert len(asked) == 26


def test_what_an_answer_holds_besides_its_text_is_found_again(tmp_path):
    def ask(network, batch, **settings):
        tokens = network.generate(**batch, **settings)
        return tokens, [{"masks": [{"size": [1, 2], "counts": "ä\ud83d"}]} for _ in tokens]

    kept, asked = KeptAnswers(tmp_path, "test"), []
    first = evaluation([], ask=ask).answer(model(), tiny.chat_rows(), kept=kept)
    assert first[1] == {"text": EXPECTED[1], "masks": [{"size": [1, 2], "counts": "ä\ud83d"}]}
    assert evaluation(asked, ask=ask).answer(model(), tiny.chat_rows(), kept=kept) == first and not asked


def stopped_in_one_of_two(folder: Path, network, number: int) -> tuple[str, list[str]]:
    """The second process gets the signal in its first batch."""
    signals, asked = Signals("finishing this batch", "nothing"), []
    signals.listen()

    def ask(network, batch, **settings):
        if os.environ["RANK"] == "1":
            signal.raise_signal(number)
        return network.generate(**batch, **settings), None

    try:
        kept = KeptAnswers(folder, "test", stop=signals.received_by_any)
        evaluation(asked, ask=ask).answer(network, tiny.chat_rows(), kept=kept)
    except AnsweringStopped as stopped:
        return str(stopped), asked
    finally:
        signals.close()
    raise AssertionError("it was to stop")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_together_and_one_process_goes_on_with_what_both_have_answered(number, tmp_path):
    network = model()
    one, other = in_two_processes(stopped_in_one_of_two, tmp_path, network, number)
    assert one[0] == other[0] == "4 of 8 rows of 'test' are answered" and not {*one[1]} & {*other[1]}
    asked = []
    assert evaluation(asked).answer(network, tiny.chat_rows(), kept=KeptAnswers(tmp_path, "test")) == EXPECTED
    assert sorted(asked + one[1] + other[1]) == sorted(row["id"] for row in tiny.chat_rows())
    assert [file.name for file in tmp_path.iterdir()] == ["test.0.jsonl"]


def answered(folder: Path, network) -> tuple[list[str], list[str]]:
    asked = []
    return evaluation(asked).answer(network, tiny.chat_rows(), kept=KeptAnswers(folder, "test")), asked


def test_two_processes_go_on_with_what_one_has_answered(tmp_path):
    network, first = model(), []
    with pytest.raises(AnsweringStopped):
        evaluation(first).answer(network, tiny.chat_rows(), kept=stopped_after(2, tmp_path))
    one, other = in_two_processes(answered, tmp_path, network)
    assert one[0] == other[0] == EXPECTED
    assert sorted(first + one[1] + other[1]) == sorted(row["id"] for row in tiny.chat_rows())
    assert sum(len(file.read_text().splitlines()) - 1 for file in tmp_path.iterdir()) == 8
