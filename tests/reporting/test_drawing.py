import numpy as np

from mnasdet.reporting import drawing

WHITE = (255, 255, 255)


def test_boxes_are_drawn_where_they_are_and_the_input_is_not_changed():
    image = np.full((200, 300, 3), 255, np.uint8)
    boxes = np.array([[50.0, 60.0, 150.0, 260.0]])
    drawn = np.asarray(drawing.draw(image, boxes, np.array([1]), ["cat 0.90"]))
    assert (image == 255).all()
    assert drawn.shape == image.shape
    colour = tuple(drawn[100, 60])
    assert colour != WHITE
    for y, x in [(150, 100), (100, 260), (50, 200)]:
        assert tuple(drawn[y, x]) == colour
    # Nothing inside, nothing far outside; the label above.
    assert (drawn[60:140, 70:250] == 255).all()
    assert (drawn[160:] == 255).all()
    assert (drawn[30:48, 60:100] != 255).any()


def test_classes_have_colours_of_their_own():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[40.0, 10.0, 90.0, 40.0], [40.0, 60.0, 90.0, 90.0]])
    drawn = np.asarray(drawing.draw(image, boxes, np.array([1, 2]), ["a", "b"]))
    assert tuple(drawn[70, 10]) != tuple(drawn[70, 60])


def test_the_best_is_on_top():
    image = np.zeros((100, 100, 3), np.uint8)
    box = [40.0, 10.0, 90.0, 40.0]
    drawn = drawing.draw(image, np.array([box, box]), np.array([1, 2]), ["a", "b"])
    alone = drawing.draw(image, np.array([box]), np.array([1]), ["a"])
    assert drawn.getpixel((10, 70)) == alone.getpixel((10, 70))


def test_nothing_found():
    image = np.full((9, 7, 3), 5, np.uint8)
    drawn = drawing.draw(image, np.zeros((0, 4)), np.zeros(0), [])
    assert (np.asarray(drawn) == 5).all()
