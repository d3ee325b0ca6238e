"""Detects objects in pictures, with a checkpoint, a SavedModel or a TFLite file.

Takes pictures or folders; writes to --output_dir every picture with its boxes, as JPEG, and
detections.json:

  {"model": ..., "score_threshold": 0.3,
   "images": [{"file": "photos/a.jpg", "width": 640, "height": 480, "drawn": "a.jpg",
               "detections": [{"category_id": 1, "category": "cat", "score": 0.91,
                               "bbox": [x, y, width, height]}]}],
   "skipped": [{"file": "photos/b.jpg", "reason": ...}]}

Boxes are in pixels of the upright picture: turned as its EXIF orientation says. Detections are
sorted, the best first. A picture that cannot be read is named and skipped; the status is 1 only
where none can be read.

The pipeline config and the label map are those in the folder of the model, or the one above it,
where they are there; a TFLite file has the names of its classes itself.

  python scripts/detect.py --checkpoint_dir=runs/bccd --images=photos --output_dir=found
  python scripts/detect.py --tflite_path=runs/quickstart/best/detect.tflite \\
    --images=a.jpg,b.png --output_dir=found --score_threshold=0.5
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from absl import flags, logging

from mnasdet import remote
from mnasdet.errors import DataError, UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_format_flag()
flags.DEFINE_string("checkpoint_dir", None, "Folder of a training run, or one checkpoint.")
flags.DEFINE_string("saved_model_path", None, "A folder from export_saved_model.")
flags.DEFINE_string("tflite_path", None, "A file from export_tflite.")
command.define_required("images", "Pictures, folders of pictures, or both.", flags.DEFINE_list)
command.define_required("output_dir", "Folder of the results; made if missing.")
flags.DEFINE_float(
    "score_threshold",
    0.3,
    "Least score of a detection; lower shows more, and more wrong ones.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_string(
    "pipeline_config_path", None, "The model's pipeline config, where its folder has none."
)
flags.DEFINE_string("label_map", None, "Label map, in place of the model's own.")

_JPEG_QUALITY = 92


def main() -> None:
    if sum(map(bool, [FLAGS.checkpoint_dir, FLAGS.saved_model_path, FLAGS.tflite_path])) != 1:
        raise UserError("give one of --checkpoint_dir, --saved_model_path and --tflite_path")
    files = pictures()
    detector, resizer, names = load()

    described, skipped = [], []
    taken: set[str] = set()
    for file in files:
        try:
            described.append(detect_in(file, detector, resizer, names, taken))
        except DataError as error:
            print(f"skipped: {error}", file=sys.stderr)
            skipped.append({"file": str(file), "reason": str(error)})
    if not described:
        raise UserError(f"none of {len(files)} pictures could be read")
    write(described, skipped)


def pictures() -> list[Path]:
    """Returns the pictures that --images names, each once."""
    from mnasdet.evaluation.picture_files import pictures_in

    output_dir = Path(FLAGS.output_dir).resolve()
    found: list[Path] = []
    for name in FLAGS.images:
        path = Path(name)
        if not path.exists():
            raise UserError(f"--images: {path}: no such file or folder")
        of_name = pictures_in(path) if path.is_dir() else [path]
        if not of_name:
            raise UserError(f"--images: no pictures in the folder {path}")
        found += of_name
    for file in found:
        if output_dir in file.resolve().parents:
            raise UserError(
                f"--output_dir: {FLAGS.output_dir} holds {file}, which is to be looked at; results "
                "would stand among the pictures, or in their place: choose another folder"
            )
    # A picture may be named by itself and by its folder.
    return list(dict.fromkeys(found))


def load():
    """Returns the detector, how it has pictures resized (None: not at all), and the names of its
    classes."""
    from mnasdet import config
    from mnasdet.data.image_resizer import ImageResizer

    pipeline = own_pipeline()
    blueprint = None if pipeline is None else config.resolve(pipeline)
    if blueprint is not None and blueprint.architecture.HasField("classifier"):
        raise UserError(
            f"{model_path()} is a classifier, which finds no boxes to "
            "draw; evaluate tells how good it is"
        )
    if FLAGS.saved_model_path:
        from mnasdet import deployment

        # It resizes pictures itself.
        found = deployment.saved_model_function("ssd", FLAGS.saved_model_path)
        return found, None, class_names(pipeline)
    if FLAGS.tflite_path:
        from mnasdet import deployment
        from mnasdet.tflite import interpreter

        detector = deployment.predict_function(blueprint, FLAGS.tflite_path)
    else:
        detector, blueprint = checkpoint_detector(pipeline)
    if blueprint is not None:
        resizer = blueprint.resizer
    else:
        height, width = interpreter.TfliteModel(FLAGS.tflite_path).image_size
        resizer = ImageResizer((height, width))
        logging.warning(
            "no pipeline.config beside %s: pictures are stretched to %dx%d; if it was trained "
            "otherwise, give --pipeline_config_path",
            FLAGS.tflite_path,
            height,
            width,
        )
    return detector, resizer, class_names(pipeline)


def model_path() -> str:
    return FLAGS.checkpoint_dir or FLAGS.saved_model_path or FLAGS.tflite_path


def own_pipeline():
    """Loads the config that --pipeline_config_path names, or that of the model's folder.

    None stands for an exported file without one.
    """
    from mnasdet import config

    path = FLAGS.pipeline_config_path or beside_model("pipeline.config")
    # A SavedModel of the OD API has a config of the OD API beside it, and needs none.
    foreign = FLAGS.saved_model_path and not beside_model("export.json")
    if path and (FLAGS.pipeline_config_path or not foreign):
        return config.load(path, readers=())
    if not FLAGS.checkpoint_dir:
        return None
    raise UserError(
        f"{FLAGS.checkpoint_dir} holds no pipeline.config: give --pipeline_config_path, the config "
        "that it was trained with"
    )


def beside_model(name: str) -> Path | None:
    """Finds a file in the folder of the model or the one above it: best/ lies in a run's folder."""
    model = Path(remote.local(model_path()))
    folder = model if model.is_dir() else model.parent
    # Resolved, as a relative folder may have no name for the one above it.
    for place in (folder, folder.resolve().parent):
        if (place / name).is_file():
            return place / name
    return None


def checkpoint_detector(pipeline):
    import tensorflow as tf

    from mnasdet.training.checkpoints import load_task

    task = load_task(pipeline, FLAGS.checkpoint_dir)
    return tf.function(task.predict, autograph=False), task.blueprint


def class_names(pipeline) -> dict[int, str]:
    """Returns the names of --label_map, the model's folder, the TFLite file or the config."""
    from mnasdet import config
    from mnasdet.data import input_pipeline, label_map

    path = FLAGS.label_map or beside_model("label_map.pbtxt")
    names: dict[int, str] = {}
    if path:
        names = label_map.load(path)
    elif FLAGS.tflite_path:
        from mnasdet.tflite import interpreter

        names = interpreter.labels(FLAGS.tflite_path)
    if not names and pipeline is not None and pipeline.eval_input_reader:
        try:
            names = input_pipeline.label_map(pipeline.eval_input_reader[0])
        except DataError as error:
            logging.warning("%s", error)
    if not names:
        logging.warning("classes have numbers for names: give --label_map")
    num_classes = 0 if pipeline is None else config.resolve(pipeline).num_classes
    if path and num_classes and max(names) > num_classes:
        raise UserError(
            f"{path}: has id {max(names)}; the detector has num_classes: {num_classes}: give the "
            "label map that it was trained with"
        )
    return names


def detect_in(file: Path, detector, resizer, names, taken: set[str]) -> dict:
    """Writes a picture with its detections and returns them as detections.json has them.

    Args:
      taken: names of pictures that were written; gets this one's.
    """
    from mnasdet import files
    from mnasdet.evaluation import detection, picture_files
    from mnasdet.reporting import drawing

    image = picture_files.read_picture(file)
    every = detection.detect(image, resizer, detector)
    found = every.above(FLAGS.score_threshold)
    texts = [
        f"{detection.class_name(names, class_id)} {score:.2f}"
        for class_id, score in zip(found.classes, found.scores, strict=True)
    ]
    content = io.BytesIO()
    drawing.draw(image, found.boxes, found.classes, texts).save(
        content, "JPEG", quality=_JPEG_QUALITY
    )
    drawn = free_name(file, taken)
    files.write(Path(FLAGS.output_dir) / drawn, content.getvalue())
    if FLAGS.format == "text":
        line = f"{file}: {', '.join(texts) or f'nothing from a score of {FLAGS.score_threshold:g}'}"
        if not texts and len(every.scores):
            # Without a box, the user has to know whether the threshold or the model is to blame.
            line += f" on; the best is {every.scores[0]:.2f}"
        print(line)
    height, width = image.shape[:2]
    return {
        "file": str(file),
        "width": width,
        "height": height,
        "drawn": drawn,
        "detections": detection.describe(found, names),
    }


def free_name(file: Path, taken: set[str]) -> str:
    """Returns the name of the drawn picture: a.jpg, then a-2.jpg of the next a.*, and so on.

    Upper and lower case are the same, as in some file systems.
    """
    name, number = f"{file.stem}.jpg", 1
    while name.lower() in taken:
        number += 1
        name = f"{file.stem}-{number}.jpg"
    taken.add(name.lower())
    return name


def write(described: list[dict], skipped: list[dict]) -> None:
    from mnasdet import files

    result = {
        "model": model_path(),
        "score_threshold": FLAGS.score_threshold,
        "images": described,
        "skipped": skipped,
    }
    path = Path(FLAGS.output_dir) / "detections.json"
    files.write(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    if FLAGS.format == "json":
        command.print_json(result)
        return
    count = sum(len(image["detections"]) for image in described)
    print(f"{count} objects in {len(described)} pictures, {len(skipped)} skipped: {path}")


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
