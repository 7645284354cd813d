"""What the collators' benchmark compares: nine questions about a picture that share it."""

import pytest

from benchmarks import collator
from benchmarks.numbers.parts import COLLATED
from benchmarks.numbers.reading import found


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(collator.torch, "set_num_threads", lambda number: None)  # of the other tests, too
    few = {"ROWS": 4, "BATCH": 2, "ROUNDS": 1}
    few["SETTINGS"] = [(name, (96, 128), (16 * 28 * 28, 25 * 28 * 28)) for name, *_ in collator.SETTINGS]
    for name, value in few.items():
        monkeypatch.setattr(collator, name, value)


def test_its_numbers_are_found_in_what_it_prints(small, capsys):
    collator.main()
    numbers = found(**COLLATED)(capsys.readouterr().out)
    assert numbers.keys() == COLLATED.keys() and all(number["value"] > 0 for number in numbers.values())


def test_questions_that_do_not_share_their_picture_are_not_timed(small, monkeypatch):
    told = collator.prompt
    monkeypatch.setattr(collator, "prompt", lambda question="": told(system=f"Be brief. {question}"))
    with pytest.raises(SystemExit, match="do not share"):
        collator.main()
