"""The page of symptoms says what the code says, and each of its lines is provoked by a test."""

import re

import pytest

from tests.support.pages import table_rows
from tests.support.paths import ROOT

SOURCES = "".join(
    path.read_text()
    for folder in ("callbacks", "collators", "eval", "models", "recipes", "rows", "training")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
ROWS = table_rows(ROOT / "docs" / "troubleshooting.md")
LINES = [re.search("`(.+)`", line)[1] for _, _, line in ROWS]
PROVOKED_BY = """
`an answer ends without an end-of-turn token`
    callbacks/test_label_audit.py::test_trls_own_collator_is_refused_where_max_length_cuts_the_answer
`image tokens are among the labels`
    callbacks/preflight/test_callback.py::test_wrong_labels_stop_and_name_the_row
`what trains`
    callbacks/preflight/test_callback.py::test_nothing_that_trains_stops
`tensors that the recipe does not name`
    callbacks/preflight/test_callback.py::test_what_the_recipe_does_not_name_is_a_warning
`; not on `
    callbacks/preflight/test_callback.py::test_layers_that_a_pattern_for_lora_misses_are_named
`a uniform guess among `
    callbacks/preflight/test_callback.py::test_the_first_loss_is_held_against_a_uniform_guess_or_the_recipe_s_bound
`which is no number`
    callbacks/preflight/test_callback.py::test_weights_that_are_no_number_stop
`the memory does not hold`
    callbacks/preflight/test_callback.py::test_too_little_memory_stops_with_advice
`rows are over it`
    callbacks/preflight/test_callback.py::test_a_row_longer_than_the_model_reads_is_a_warning
`would not learn`
    callbacks/preflight/test_callback.py::test_a_group_without_gradient_is_a_warning
`a graph is kept of`
    callbacks/preflight/test_callback.py::test_a_graph_through_a_frozen_tower_is_a_warning
`rows were refused, more than max_rejected=`
    rows/test_faults.py::test_past_max_rejected_the_run_ends_in_one_line_before_it_starts
`tokens, more than max_length=`
    recipes/test_recipes.py::test_a_row_longer_than_max_length_is_refused_at_load_with_its_numbers
`is inverted or outside the image`
    rows/test_faults.py::test_a_fault_is_refused_by_name_or_the_row_is_used_as_stated
`reads no mask of pairs`
    callbacks/test_shared_image.py::test_flash_attention_ends_the_run_before_its_first_step
`GPUs are visible to one process`
    training/test_cards.py::test_several_gpus_for_one_process_are_one_line_with_the_freest_card
`has no bfloat16`
    training/test_cards.py::test_a_card_without_bfloat16_is_one_line_where_the_launch_asks_for_it
`float16 needs a GPU`
    training/test_cards.py::test_float16_on_a_cpu_is_one_line
`number format: `
    training/test_cards.py::test_the_model_s_format_follows_the_training_s_unless_it_is_given
`Qwen2-VL was seen to overflow in it`
    models/test_checkpoints.py::test_qwen2_vl_in_float16_says_that_it_may_overflow
`no weight of a vision tower trains`
    training/test_settings.py::test_a_rate_for_a_vision_tower_that_does_not_train_is_one_line
`cannot load the model`
    models/test_checkpoints.py::test_a_broken_folder_is_refused_in_one_line
`cannot load the model`
    models/test_chat.py::test_a_library_that_a_model_needs_is_named_in_one_line
`resizes pictures in its own way`
    models/test_chat.py::test_a_budget_does_nothing_in_one_line_where_the_processor_has_none
`is another run's (`
    training/test_folder.py::test_a_recipe_s_file_refuses_before_it_reads_rows_or_a_model
`this run begins anew and replaces it`
    training/test_folder.py::test_a_training_that_did_not_end_is_not_begun_anew_without_a_line
`say what is to be found`
    training/test_detection.py::test_several_categories_asked_for_in_the_recipe_s_own_words_are_said_in_a_line
` says what a dataset here has to have`
    rows/test_reading.py::test_a_folder_that_fits_no_format_is_refused_with_the_formats_that_there_are
`name another --output_dir`
    training/test_folder.py::test_a_disk_that_can_only_be_read_is_one_line
`the Hub is not to be had`
    training/test_refusals.py::test_a_hub_that_is_not_to_be_had_is_one_line
`LoRA has nothing to train, `
    training/test_refusals.py::test_lora_that_matches_no_layer_is_one_line
`is of the kind `
    training/test_refusals.py::test_a_model_of_another_kind_is_one_line
` has no effect: `
    training/test_refusals.py::test_a_setting_that_a_recipe_or_the_datasets_format_does_not_read_is_one_line
` is none of eval_`
    training/test_unread.py::test_a_metric_that_no_evaluation_gives_ends_the_run_before_its_first_step
`no row would be left to `
    training/test_refusals.py::test_a_share_that_leaves_nothing_to_train_or_to_validate_on_is_one_line
`not asked (`
    training/test_ask.py::test_a_picture_that_training_would_refuse_is_named_and_the_others_are_answered
`not clear of`
    eval/report/test_check.py::test_a_group_that_is_not_clear_of_its_baseline_has_a_line_and_one_that_is_has_none
`, too (`
    callbacks/preflight/test_rows.py::test_vqa_rad_s_official_split_shares_202_of_203_test_images
`without looking: `
    callbacks/preflight/test_rows.py::test_baselines_are_those_counted_by_hand_on_vqa_rad
`the model may not look at its images`
    callbacks/preflight/test_callback.py::test_a_model_that_does_not_fall_on_blank_images_is_not_looking
`answers known from training`
    callbacks/preflight/test_rows.py::test_the_ceiling_is_the_share_of_answers_that_training_gives
`are answered freely`
    callbacks/preflight/test_rows.py::test_questions_with_a_closed_set_that_is_not_kept_to_are_counted_and_named
`of the right answers `
    callbacks/preflight/test_rows.py::test_a_metric_that_does_not_know_the_right_answer_is_a_warning
`: no column `
    training/test_score.py::test_what_cannot_be_scored_is_one_line_that_says_where
`baseline unknown: `
    training/test_score.py::test_answers_of_another_model_are_scored_and_their_baseline_is_unknown
`: there is no difference to give.`
    training/test_compare.py::test_where_rows_differ_no_difference_is_given_and_a_line_says_so
`some servers drop without a word`
    training/test_export.py::test_a_merged_adapter_says_what_peft_says_on_the_base_under_the_base_s_names
`which is broken (`
    callbacks/test_resume.py::test_true_takes_the_newest_whole_checkpoint_and_names_the_broken_ones
`starting from the beginning`
    callbacks/test_resume.py::test_without_a_whole_checkpoint_true_starts_from_the_beginning_and_says_so
`, which was trained with `
    training/test_resuming.py::test_each_setting_that_decides_is_refused_with_both_values
` does not say what it was trained with`
    training/test_resuming.py::test_a_checkpoint_from_before_goes_on_with_a_line
` was trained with `
    training/test_resuming.py::test_where_a_batch_in_rows_does_not_come_out_even_it_goes_on_with_a_line
`the disk is full, cannot write to `
    callbacks/test_resume.py::test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint_whole
` are of other weights, rows or settings: dropped`
    training/test_answering.py::test_answers_of_other_weights_are_not_used
` holds no model of its run, which was interrupted: name `
    training/test_folder.py::test_killed_after_a_checkpoint_a_run_has_that_one_and_nothing_of_the_run_before
`finishing this step, then saving a checkpoint`
    callbacks/test_interrupt.py::test_a_signal_finishes_the_step_and_saves_and_the_rest_is_as_without_it
"""
PROVOKED = re.findall("^`(.+)`\n +(.+)$", PROVOKED_BY, re.MULTILINE)


def test_the_page_has_the_lines_that_are_provoked_here_in_this_order():
    assert LINES == [line for line, _ in PROVOKED] and len(LINES) >= 50


@pytest.mark.parametrize(("line", "test"), PROVOKED, ids=[test.split("::")[-1] for _, test in PROVOKED])
def test_the_line_is_in_the_code_and_a_test_provokes_it(line, test):
    for piece in line.split("…"):
        assert piece in re.sub(r'"\s*\n\s*f?"', "", SOURCES)  # texts that go on in the next line
    file, name = test.split("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()
