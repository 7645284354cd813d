"""Which rows the report shows."""

import random

from vlm_recipes.eval.report.gallery import GalleryItem, shelves

NAN = float("nan")


def item(name: str, score: float | None, group: str = "", image_id: str = "") -> GalleryItem:
    return GalleryItem(name, [], "", "", "", score, group, image_id)


def best_and_worst(gallery: list[GalleryItem]) -> tuple[list[GalleryItem], list[GalleryItem]]:
    best, worst = shelves(gallery)
    assert (best.kind, worst.kind) == ("best", "worst")
    return best.items, worst.items


def test_the_gallery_shows_the_best_first_then_the_worst_first_and_no_row_twice():
    items = [item(str(number), number / 20) for number in range(20)]
    best, worst = best_and_worst([*items[::2], *items[1::2], *items])
    assert [row.id for row in best] == ["19", "18", "17", "16", "15", "14"]
    assert [row.id for row in worst] == ["0", "1", "2", "3", "4", "5"]
    best, worst = best_and_worst([item("nan", NAN), *items[:4]])
    assert [row.id for row in best] == ["3", "2", "1"]
    assert [row.id for row in worst] == ["nan", "0"]
    assert best_and_worst([]) == ([], [])


def test_failures_take_groups_in_turn_and_images_not_shown_yet_first():
    rows = [item(f"{group}{i}", float(i % 2), group, f"image {i // 4}") for group in "abc" for i in range(40)]
    right, failures = best_and_worst(rows)
    assert len(right) == 6 and len(failures) == 12
    assert {row.score for row in right} == {1.0} and {row.score for row in failures} == {0.0}
    for chosen in (right, failures):
        assert [row.group for row in chosen[:3]] * (len(chosen) // 3) == [row.group for row in chosen]
        assert len({row.image_id for row in chosen}) == min(len(chosen), 10)  # of ten images


def test_a_group_with_few_failures_leaves_its_turns_to_the_others():
    rows = [item("only", 0.0, "rare"), *(item(str(i), 0.0, "common", "same image") for i in range(5))]
    right, failures = best_and_worst([*rows, item("right", 1.0, "common")])
    assert [row.id for row in right] == ["right"]
    assert len(failures) == 6 and {row.id for row in failures} == {row.id for row in rows}
    assert [row.id for row in failures].index("only") <= 1


def test_rows_without_a_score_are_failures_and_come_first():
    rows = [item("wrong", 0.0, "a"), item("nan", NAN, "a"), item("right", 1.0, "a"), item("none", None, "b")]
    right, failures = best_and_worst(rows)
    assert [row.id for row in right] == ["right"] and {row.id for row in failures[:2]} == {"nan", "none"}
    assert [(shelf.heading, shelf.size) for shelf in shelves(rows)] == [("Right answers", 1), ("Failures", 3)]


def test_by_group_scores_between_right_and_wrong_come_before_turns():
    rows = [item(str(i), i / 100, "ab"[i % 2]) for i in range(100)]
    best, worst = best_and_worst(random.Random(0).sample(rows, 100))
    assert [row.id for row in best] == ["99", "98", "97", "96", "95", "94"]
    assert [row.id for row in worst] == [str(i) for i in range(12)]
    assert [shelf.heading for shelf in shelves(rows)] == ["Best rows", "Worst rows"]


def test_when_all_is_right_or_all_is_wrong_one_shelf_stays_empty():
    assert [len(part) for part in best_and_worst([item(str(i), 1.0, "a") for i in range(9)])] == [6, 0]
    assert [len(part) for part in best_and_worst([item(str(i), 0.0, "a") for i in range(9)])] == [0, 9]
    assert [len(part) for part in best_and_worst([item(str(i), None, "a") for i in range(9)])] == [5, 4]
