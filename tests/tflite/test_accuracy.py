"""mnasdet/tflite/accuracy.py: which evaluation sets are evaluated unasked."""

import pytest
import tensorflow as tf

from mnasdet.protos import pipeline_pb2
from mnasdet.tflite import accuracy


@pytest.mark.parametrize(("files", "quick"), [([200], True), ([120, 80], True), ([120, 81], False)])
def test_few_pictures_are_evaluated_unasked(tmp_path, files, quick):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    reader = pipeline.eval_input_reader.add().tf_record_input_reader
    for number, count in enumerate(files):
        reader.input_path.append(str(tmp_path / f"{number}.record"))
        with tf.io.TFRecordWriter(reader.input_path[-1]) as writer:
            for _ in range(count):
                writer.write(b"a picture")
    assert accuracy.is_quick(pipeline) == quick
