from itertools import combinations

import pytest

from mnasdet.reporting import labels

BOX = (40.0, 30.0, 60.0, 70.0)


def rectangles(boxes, sizes, width=100, height=100):
    corners = labels.places(boxes, sizes, width, height)
    return [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]


def overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def test_alone_a_label_stands_above_its_box():
    assert labels.places([BOX], [(20, 10)], 100, 100) == [(30, 30)]


@pytest.mark.parametrize(
    ("box", "corner"),
    [
        ((2, 30, 60, 70), (30, 0)),  # At the upper edge it is in the box.
        ((40, 90, 60, 100), (80, 30)),
        ((40, -5, 60, 10), (0, 30)),
    ],
)
def test_within_the_picture(box, corner):
    assert labels.places([box], [(20, 10)], 100, 100) == [corner]


@pytest.mark.parametrize("count", [2, 4, 8, 12])
def test_boxes_on_top_of_one_another_have_labels_side_by_side(count):
    shown = rectangles([BOX] * count, [(18, 9)] * count)
    assert not any(overlap(a, b) for a, b in combinations(shown, 2))


def test_where_there_is_no_room_the_first_stay_readable():
    shown = rectangles([(0, 0, 10, 10)] * 5, [(10, 4)] * 5, width=10, height=10)
    assert not overlap(shown[0], shown[1])
    assert all(x0 >= 0 and x1 <= 10 and y0 >= 0 and y1 <= 10 for x0, y0, x1, y1 in shown)


def test_no_boxes():
    assert labels.places([], [], 10, 10) == []


def test_letters_of_east_asia_are_wide():
    assert labels.text_width("猫猫", 10) > labels.text_width("cat", 10)
