"""Checkpoints and models of other programs, as those write them."""

import pytest
import tensorflow as tf

from mnasdet.training import checkpoints, foreign_checkpoints


def tf1_checkpoint(path, *names):
    """Writes a checkpoint of TF1's Saver, whose variables have these names."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name in names:
            tf.compat.v1.get_variable(name, [1], initializer=tf.zeros_initializer())
        session.run(tf.compat.v1.global_variables_initializer())
        return tf.compat.v1.train.Saver().save(session, str(path))


def tf2_checkpoint(path, **roots):
    """Writes an object-based checkpoint with one variable below each root."""
    nested = {name: tf.train.Checkpoint(**{part: tf.Variable(1.0)}) for name, part in roots.items()}
    return tf.train.Checkpoint(**nested).save(str(path))


def tf1_detector(folder):
    return tf1_checkpoint(folder / "model.ckpt", "FeatureExtractor/MobilenetV2/Conv/weights")


def tf1_detector_s_meta_file(folder):
    return tf1_detector(folder) + ".meta"


def tf1_zoo_folder(folder):
    saved_model(folder / "saved_model")
    tf1_detector(folder)
    # As its trainer left it: the path of a folder on another machine.
    (folder / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt"')
    return folder


def tf1_averages(folder):
    name = "FeatureExtractor/MobilenetV1/Conv2d_0/weights/ExponentialMovingAverage"
    return tf1_checkpoint(folder / "model.ckpt-200", name)


def tf1_classifier(folder):
    return tf1_checkpoint(folder / "mobilenet_v2_1.0_224.ckpt", "MobilenetV2/Conv/weights")


def tf2_detector(folder):
    return tf2_checkpoint(folder / "ckpt", model="_feature_extractor")


def tf2_detector_s_folder(folder):
    tf2_detector(folder)
    return folder


def tf2_zoo_folder(folder):
    saved_model(folder / "saved_model")
    (folder / "checkpoint").mkdir()
    tf2_detector(folder / "checkpoint")
    return folder


def tf2_backbone(folder):
    return tf2_checkpoint(folder / "resnet50.ckpt", feature_extractor="conv1")


def official(folder):
    layer = tf.train.Checkpoint(_conv0=tf.train.Checkpoint(kernel=tf.Variable(1.0)))
    backbone = tf.train.Checkpoint(**{"layer_with_weights-0": layer})
    return tf.train.Checkpoint(backbone=backbone).save(str(folder / "ckpt"))


def other_program(folder):
    return tf2_checkpoint(folder / "ckpt", agent="policy")


def saved_model(folder):
    tf.saved_model.save(tf.Module(), str(folder))
    return folder


def keras_h5(folder):
    (folder / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(16))
    return folder / "weights.h5"


def frozen_graph(folder):
    path = folder / "frozen_inference_graph.pb"
    path.write_bytes(tf.Graph().as_graph_def().SerializeToString())
    return path


def tflite(folder):
    (folder / "detect.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(16))
    return folder / "detect.tflite"


def archive(folder):
    (folder / "ssd.tar.gz").write_bytes(b"\x1f\x8b\x08" + bytes(16))
    return folder / "ssd.tar.gz"


FOREIGN = {
    tf1_detector: "a checkpoint of the TF Object Detection API (TF1)",
    tf1_detector_s_meta_file: "a checkpoint of the TF Object Detection API (TF1)",
    tf1_zoo_folder: "a checkpoint of the TF Object Detection API (TF1)",
    tf1_averages: "a checkpoint of the TF Object Detection API (TF1)",
    tf1_classifier: "a classifier's checkpoint of slim (TF1)",
    tf2_detector: "a checkpoint of the TF Object Detection API (TF2)",
    tf2_detector_s_folder: "a checkpoint of the TF Object Detection API (TF2)",
    tf2_zoo_folder: "a model of the TF Object Detection API's TF2 zoo",
    tf2_backbone: "a backbone's checkpoint of the TF Object Detection API (TF2)",
    official: "a checkpoint of tf-models-official",
    other_program: "a checkpoint of another TensorFlow program",
    saved_model: "a SavedModel, a network for inference",
    keras_h5: "a Keras file (HDF5)",
    frozen_graph: "a frozen graph, a network for inference",
    tflite: "a TFLite file, a network for inference",
    archive: "a packed archive (gzip), which has to be unpacked first",
}


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_describe_says_what_it_is_and_what_is_needed(tmp_path, make):
    described = foreign_checkpoints.describe(make(tmp_path))
    assert described.startswith(f"is {FOREIGN[make]}; name a checkpoint of mnasdet")


def test_describe_has_nothing_to_say_of_our_own_and_of_what_is_not_there(tmp_path):
    variables = {"backbone/layer_1/conv/kernel": tf.Variable([1.0])}
    own = tf.train.Checkpoint(**{checkpoints.WEIGHTS: variables})
    prefix = own.save(str(tmp_path / "ckpt"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.index").write_bytes(b"\x00\x01")
    for path in (prefix, f"{prefix}.index", tmp_path, tmp_path / "empty", tmp_path / "cut"):
        assert foreign_checkpoints.describe(path) == ""
    assert foreign_checkpoints.describe(tmp_path / "none") == ""
