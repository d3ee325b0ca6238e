import time

import pytest

from mnasdet.config_checks.lines import line_of

TEXT = """# model { ssd {
model {
  ssd: { num_classes: 90  # num_classes: 80
    loss < localization_weight: 2.0,
           classification_weight: 1.0 >
  }
}
train_config {
  fine_tune_checkpoint: 'a { batch_size: 3'
  data_augmentation_options { random_horizontal_flip {} }
  data_augmentation_options {
    random_image_scale { min_scale_ratio: 0.5; max_scale_ratio: 2 }
  }
  batch_size: 8
}
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("model", 2),
        ("model.ssd.num_classes", 3),
        ("model.ssd.loss.localization_weight", 4),
        ("model.ssd.loss.classification_weight", 5),
        ("train_config.fine_tune_checkpoint", 9),
        ("train_config.batch_size", 14),
        ("train_config.data_augmentation_options", 10),
        ("train_config.data_augmentation_options[1]", 11),
        ("train_config.data_augmentation_options[1].random_image_scale.max_scale_ratio", 12),
        # An unset field gets the line of the nearest message around it.
        ("model.ssd.matcher.argmax_matcher", 3),
        ("train_config.data_augmentation_options[0].random_horizontal_flip.x", 10),
        ("eval_config.batch_size", None),
        ("/data/label_map.pbtxt:1:8", None),
    ],
)
def test_line_of_a_field(path, line):
    assert line_of(path, TEXT) == line


@pytest.mark.parametrize("text", ["", "}}", "model {", 'model { name: "a'])
def test_broken_text_has_no_lines_that_mislead(text):
    assert line_of("train_config.batch_size", text) is None


def test_many_lines_of_a_long_text_are_found_quickly():
    text = "\n".join(
        f"train_config {{ data_augmentation_options {{ }} }} # {i}" for i in range(3000)
    )
    start = time.process_time()
    lines = [line_of(f"train_config[{i}].data_augmentation_options", text) for i in range(3000)]
    assert lines == list(range(1, 3001))
    # About 0.1 s; reading the text anew for each took minutes.
    assert time.process_time() - start < 3
