"""A closed set of answers scored as a tree, against each label scored by itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import ModelConfig

from tests.support import tiny
from vlm_recipes.collators import VideoCollator
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.generation.label_tree import LabelTree, choose_label
from vlm_recipes.models.surgvivqa.loading import load_surgvivqa

END = 0
label_sets = st.lists(  # few tokens, so that many labels begin alike or are the beginning of another
    st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=8, unique_by=tuple
)


def place_of(tree: LabelTree, beginning: list[int]) -> int:
    """The node whose path from the root spells `beginning`, found in what the tree shows of itself."""
    found = []
    for i in range(len(tree.tokens)):
        path = sorted(tree.sees[i].nonzero().flatten().tolist(), key=lambda node: tree.depths[node])
        if tree.tokens[path].tolist() == beginning:
            assert tree.depths[path].tolist() == list(range(len(path)))
            found.append(i)
    assert len(found) == 1
    return found[0]


def by_hand(tree: LabelTree, label: list[int], logits: torch.Tensor) -> float:
    """The sum of a label's log-probabilities, from logits at the question's end and at each node."""
    total = 0.0
    for i, token in enumerate([*label, END]):
        at = logits[place_of(tree, label[:i]) + 1 if i else 0].tolist()
        total += at[token] - math.log(sum(math.exp(logit) for logit in at))
    return total


@settings(deadline=None, max_examples=60)
@given(label_sets, st.integers(0, 2**16))
def test_scores_are_those_of_each_label_by_itself(labels, seed):
    tree = LabelTree(labels, END)
    logits = torch.randn(2, 1 + len(tree.tokens), 5, generator=torch.Generator().manual_seed(seed))
    sums = [[by_hand(tree, label, of_question) for label in labels] for of_question in logits]
    means = [[total / (len(label) + 1) for total, label in zip(row, labels, strict=True)] for row in sums]
    torch.testing.assert_close(tree.scores(logits, mean=False), torch.tensor(sums), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tree.scores(logits), torch.tensor(means), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(label_sets)
def test_the_tree_holds_each_beginning_once_and_the_sequences_end(labels):
    tree = LabelTree(labels, END)
    beginnings = {tuple(label[: i + 1]) for label in labels for i in range(len(label))}
    assert len(tree.tokens) == len(tree.depths) == len(tree.sees) == len(beginnings)
    assert {place_of(tree, list(beginning)) for beginning in beginnings} == set(range(len(beginnings)))
    for label, sequence in zip(labels, tree.sequences.tolist(), strict=True):
        assert sequence[: len(label)] == label and set(sequence[len(label) :]) == {END}


def test_a_label_that_is_another_s_beginning_competes_by_its_end():
    tree = LabelTree([[1], [1, 2]], END)
    logits = torch.zeros(1, 3, 3)
    logits[0, 0, 1] = 30.0  # both begin like this
    for token, sums in ((END, [0.0, -30 - math.log(3)]), (2, [-30.0, -math.log(3)])):
        logits[0, 1] = torch.nn.functional.one_hot(torch.tensor(token), 3) * 30.0
        torch.testing.assert_close(tree.scores(logits, mean=False), torch.tensor([sums]))


def test_scores_in_16_bits_are_summed_in_32():
    tree = LabelTree([[1, 2, 3], [4]], END)
    logits = (torch.randn(3, 1 + len(tree.tokens), 5, generator=torch.Generator().manual_seed(0)) * 20).bfloat16()
    scores = tree.scores(logits)
    assert scores.dtype == torch.float32 and torch.equal(scores, tree.scores(logits.float()))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([], "at least one"),
        ([[1], []], "none empty"),
        ([[1, 2], [3], [1, 2]], "none twice"),
        ([[1], [2, END]], "holds the token that ends an answer"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, says):
    with pytest.raises(ValueError, match=says):
        LabelTree(labels, END)


def test_the_chosen_label_s_tokens_decode_to_it():
    network, processor = load_surgvivqa(ModelConfig(str(tiny.surgvivqa()), dtype="float32"))
    ask = VideoCollator(processor, num_frames=2, prompt_only=True)
    labels = ["grasp", "grasper", "10", "1", "abdominal_wall_cavity"]
    tree = LabelTree([ask.answer_ids(label) for label in labels], processor.tokenizer.eos_token_id)
    batch = ask(tiny.video_rows())
    for mean in (True, False):
        best = network.score_labels(tree, **batch, mean=mean).argmax(1)
        tokens, more = choose_label(network, batch, tree, mean=mean, max_new_tokens=1, do_sample=True)
        assert more is None and tokens.shape == (4, 1 + tree.sequences.shape[1])
        said = processor.tokenizer.batch_decode(tokens[:, 1:], skip_special_tokens=True)
        assert [text.strip() for text in said] == [labels[i] for i in best]


def test_generate_asks_by_labels_and_gives_each_row_its_own():
    network, processor = load_surgvivqa(ModelConfig(str(tiny.surgvivqa()), dtype="float32"))
    ask = VideoCollator(processor, num_frames=2, prompt_only=True)
    labels = ["grasp", "grasper", "10", "1", "abdominal_wall_cavity"]
    tree = LabelTree([ask.answer_ids(label) for label in labels], processor.tokenizer.eos_token_id)

    def choose(model, batch, **settings):
        return choose_label(model, batch, tree, mean=False, **settings)

    rows = tiny.video_rows()
    answers = generate(network, rows, ask, max_new_tokens=tree.sequences.shape[1], batch_size=3, ask=choose)
    scores = torch.cat([network.score_labels(tree, **ask([row]), mean=False) for row in rows])
    assert answers == [labels[i] for i in scores.argmax(1)]
