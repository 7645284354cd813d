from dataclasses import dataclass

import pytest

from vlm_recipes.rows.errors import DataError
from vlm_recipes.training.detection import DetectionSettings, asked_before, kept


@dataclass
class Data(DetectionSettings):
    system: str = "You look for tables."
    prompt: str = "Where is the table?"


def test_texts_are_those_of_files_and_have_the_names_of_categories(tmp_path):
    (tmp_path / "prompt.txt").write_text("Find {categories}.\n", encoding="utf-8")
    data = Data(system="", prompt=str(tmp_path / "prompt.txt"))
    assert (asked := data.asked(["cup", "plate"])) == ["", "Find cup, plate."]
    for name, text in kept(asked).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "prompt.txt").unlink()
    assert asked_before(tmp_path, data) == ["", "Find cup, plate."]  # what was asked then


@pytest.mark.parametrize(("text", "line"), [("Find {category}.", "{category} in"), ("{a} {categories}", "{a} in")])
def test_another_name_in_braces_is_refused_with_those_that_there_are(text, line):
    with pytest.raises(DataError, match=f"^{line}.*stands for nothing: {{categories}} does$"):
        Data(prompt=text).asked(["cup"])


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path / "prompt.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="prompt.txt is no text to ask with"):
        Data(prompt=str(tmp_path / "prompt.txt")).asked([])


def test_several_categories_asked_for_in_the_recipe_s_own_words_are_said_in_a_line(capsys):
    Data().asked(["cup", "plate"])
    assert capsys.readouterr().out.startswith("! 'cup, plate' asked for by 'Where is the table?': ")
    Data().asked(["cup"])
    assert capsys.readouterr().out.startswith("! 'cup' asked for by 'Where is the table?': ")
    Data().asked(["Table_of-contents"])
    Data(prompt="Find {categories}.", system="You find things.").asked(["cup", "plate"])
    Data(prompt="Find {categories}.", system="").asked(["cup"])
    assert capsys.readouterr().out == ""


def test_a_prompt_of_one_s_own_under_the_recipe_s_system_message_is_said_in_a_line(capsys):
    Data(prompt="Find {categories}.").asked(["cup"])
    line = "! --prompt is new, the system message still 'You look for tables.': --system TEXT, or '' for none\n"
    assert capsys.readouterr().out == line


def test_in_other_words_it_is_no_published_experiment():
    assert (Data().experiment, Data(prompt="Find cups.").experiment) == (None, "objects")
