"""The confusion of classes, counted by hand."""

import numpy as np
import pytest

from mnasdet.evaluation.coco import CocoEvaluator
from mnasdet.evaluation.confusion import confusion_matrix

CAT, DOG, BIRD = 3, 7, 9
NAMES = {CAT: "cat", DOG: "dog", BIRD: "bird"}

# Sides of the picture are 100 pixels: shares are per cent.
LEFT = [0.0, 0.0, 1.0, 0.4]
RIGHT = [0.0, 0.6, 1.0, 1.0]
# 0.36 of 0.4 of LEFT's width: an IoU of 0.9; and 0.16, of 0.4.
NARROWER = [0.0, 0.0, 1.0, 0.36]
NARROW = [0.0, 0.0, 1.0, 0.16]


def judged(*images):
    """Takes (truth, found) of every image: (class, box) or (class, box, "crowd"), and (class, box,
    score)."""
    evaluator = CocoEvaluator(NAMES)
    for truth, found in images:
        evaluator.add(
            100,
            100,
            np.array([one[1] for one in truth], float).reshape(-1, 4),
            np.array([one[0] for one in truth]),
            np.full(len(truth), 4000.0),
            np.array([len(one) == 3 for one in truth], bool),
            np.array([one[1] for one in found], float).reshape(-1, 4),
            np.array([one[0] for one in found]),
            np.array([one[2] for one in found]),
        )
    return evaluator


def counts(*images, score=0.5):
    """The non-zero cells as {(true, found): count}, "-" for the background."""
    matrix = confusion_matrix(judged(*images), score)
    names = [*matrix.names, "-"]
    assert matrix.counts.shape == (4, 4)
    return {
        (names[row], names[column]): int(matrix.counts[row, column])
        for row, column in np.argwhere(matrix.counts)
    }


def test_rights_mistakes_misses_and_inventions():
    truth = [(CAT, LEFT), (DOG, RIGHT)]
    found = [(CAT, LEFT, 0.9), (BIRD, RIGHT, 0.8), (DOG, [0.0, 0.45, 0.5, 0.55], 0.7)]
    assert counts((truth, found), (truth, [])) == {
        ("cat", "cat"): 1,
        ("dog", "bird"): 1,
        ("-", "dog"): 1,
        ("cat", "-"): 1,
        ("dog", "-"): 1,
    }


def test_the_better_score_takes_the_object_whatever_its_class():
    found = [(CAT, LEFT, 0.6), (DOG, NARROWER, 0.8)]
    # The dog, though it fits worse and is wrong, comes first; nothing is left for the cat.
    assert counts(([(CAT, LEFT)], found)) == {("cat", "dog"): 1, ("-", "cat"): 1}


def test_a_detection_takes_the_free_object_that_it_overlaps_most():
    truth = [(CAT, NARROWER), (DOG, LEFT)]
    found = [(DOG, LEFT, 0.9), (CAT, LEFT, 0.8)]
    assert counts((truth, found)) == {("dog", "dog"): 1, ("cat", "cat"): 1}


@pytest.mark.parametrize(("box", "pair"), [(NARROWER, True), (NARROW, False)])
def test_a_pair_overlaps_by_half(box, pair):
    expected = {("cat", "cat"): 1} if pair else {("cat", "-"): 1, ("-", "cat"): 1}
    assert counts(([(CAT, LEFT)], [(CAT, box, 0.9)])) == expected


def test_low_scores_are_left_out():
    found = [(CAT, LEFT, 0.5), (DOG, RIGHT, 0.49)]
    assert counts(([], found)) == {("-", "cat"): 1}
    assert counts(([], found), score=0.3) == {("-", "cat"): 1, ("-", "dog"): 1}


def test_crowds_are_no_objects_and_excuse_their_own_class():
    truth = [(CAT, LEFT, "crowd")]
    # NARROW lies in LEFT with all of its area.
    assert counts((truth, [(CAT, NARROW, 0.9), (CAT, NARROW, 0.8)])) == {}
    assert counts((truth, [(DOG, NARROW, 0.9)])) == {("-", "dog"): 1}
    assert counts((truth, [(CAT, RIGHT, 0.9)])) == {("-", "cat"): 1}


def test_a_class_without_a_name_has_no_column():
    assert counts(([(CAT, LEFT)], [(4, LEFT, 0.9)])) == {("cat", "-"): 1}


def test_as_json():
    matrix = confusion_matrix(judged(([(DOG, LEFT)], [(DOG, LEFT, 0.9)])), 0.25)
    assert matrix.to_json() == {
        "names": ["cat", "dog", "bird", "background"],
        "counts": [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        "score_threshold": 0.25,
        "iou": 0.5,
    }
