"""The parts of the TF Object Detection API that mnasdet has not, and what to do about each."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mnasdet.errors import nearest

# Whole models, by the field of DetectionModel that holds each: its name, and the detectors here
# that come nearest to it.
_MODELS = {
    "center_net": ("CenterNet", "ssd_resnet50_v1_fpn_keras, or ssd_mobilenet_v2_fpn_keras"),
    "detr": ("DETR", "ssd_resnet50_v1_fpn_keras, or ssd_mobilenet_v2_fpn_keras"),
    "experimental_model": ("an experimental model", "ssd_mobilenet_v2_fpn_keras"),
}

# Whole feature extractors, by a pattern of their types; the first that matches counts.
_EXTRACTORS = (
    (
        "faster_rcnn_inception",
        "Faster R-CNN with Inception",
        "faster_rcnn_resnet101_keras or faster_rcnn_resnet101",
    ),
    ("faster_rcnn_p?nas", "Faster R-CNN with NASNet", "faster_rcnn_resnet101"),
    (
        "faster_rcnn_mobilenet",
        "Faster R-CNN with MobileNet",
        "faster_rcnn_resnet50 or ssd_mobilenet_v3_large",
    ),
    (
        "bifpn|efficientnet",
        "EfficientDet",
        "ssd_mobilenet_v2_fpn_keras or ssd_mobilenet_v2_mnasfpn",
    ),
    ("ppn", "the pooling pyramid", "ssd_mobilenet_v2 or ssd_mobilenet_v2_fpn"),
    ("mobiledet", "MobileDet", "ssd_mobilenet_v3_large or ssd_mobilenet_v2_mnasfpn"),
    ("edgetpu", "MobileNet-EdgeTPU", "ssd_mobilenet_v3_large or ssd_mobilenet_v2"),
    ("spaghettinet", "SpaghettiNet", "ssd_mobilenet_v3_large or ssd_mobilenet_v2_mnasfpn"),
    ("mobilenet_v1.*fpn", "MobileNetV1", "ssd_mobilenet_v2_fpn or ssd_mobilenet_v2_fpn_keras"),
    ("mobilenet_v1", "MobileNetV1", "ssd_mobilenet_v2 or ssd_mobilenet_v2_keras"),
    ("mobilenet_v3_small_prune", "the pruned MobileNetV3-Small", "ssd_mobilenet_v3_small"),
    ("inception", "Inception", "ssd_mobilenet_v3_large or ssd_resnet50_v1_fpn"),
    ("pnasnet", "PNASNet", "ssd_resnet101_v1_fpn or ssd_resnet50_v1_fpn"),
)

_DIFFERS = "the trained network differs without it"
_NO_EFFECT = "it has no effect on the result; remove it"
_BOXES_ONLY = "only boxes are detected here; remove it, unless masks or keypoints are the purpose"
_LEAVE_OUT = "other augmentations stay as they are; remove this one, or use"

_SHARED_PREDICTOR = "WeightSharedConvolutionalBoxPredictor"

# Fields, by their names: what each does there, and what to do here. Where a name stands in several
# messages it means the same in all of them; one that is supported in another message has its own
# message in front.
_FIELDS = {
    f"{_SHARED_PREDICTOR}.use_dropout": ("drops features in training", _DIFFERS),
    f"{_SHARED_PREDICTOR}.dropout_keep_probability": ("how many features it keeps", _DIFFERS),
    f"{_SHARED_PREDICTOR}.box_code_size": ("numbers of a box", "remove it: it is always 4 here"),
    f"{_SHARED_PREDICTOR}.score_converter": (
        "scores in the network",
        "remove it: post_processing's score_converter makes the scores",
    ),
    f"{_SHARED_PREDICTOR}.box_encodings_clip_range": ("limits the codes of boxes", _DIFFERS),
    # Fields of the model.
    "use_confidences_as_targets": ("targets from confidences", _DIFFERS),
    "implicit_example_weight": ("the weight of unconfirmed negatives", _DIFFERS),
    "return_raw_detections_during_predict": ("raw boxes in the output", _NO_EFFECT),
    "mask_head_config": ("instance masks", _BOXES_ONLY),
    "identity_resizer": ("images of any size", "use fixed_shape_resizer"),
    "conditional_shape_resizer": ("resizes large images only", "use keep_aspect_ratio_resizer"),
    "pad_to_multiple_resizer": ("pads to a multiple", "use keep_aspect_ratio_resizer"),
    "bifpn": ("EfficientDet's pyramid", "use fpn, or model.architecture with nas_fpn or mnasfpn"),
    "spaghettinet_arch_name": ("the name of a SpaghettiNet", "use another feature extractor"),
    "force_use_bias": (
        "a bias before batch normalisation",
        "remove it: batch normalisation takes such a bias out again",
    ),
    "l1_regularizer": ("an L1 penalty", f"{_DIFFERS}; use l2_regularizer"),
    "keras_initializer_by_name": (
        "one of Keras' initialisers",
        "use truncated_normal_initializer, random_normal_initializer or "
        "variance_scaling_initializer",
    ),
    "mean_stddev_box_coder": ("another coding of boxes", "use faster_rcnn_box_coder"),
    "square_box_coder": ("a coding of square boxes", "use faster_rcnn_box_coder"),
    "keypoint_box_coder": ("boxes with keypoints", _BOXES_ONLY),
    "bipartite_matcher": ("one anchor for each box", "use argmax_matcher"),
    "neg_sq_dist_similarity": ("another similarity of boxes", "use iou_similarity"),
    "ioa_similarity": ("another similarity of boxes", "use iou_similarity"),
    "thresholded_iou_similarity": ("another similarity of boxes", "use iou_similarity"),
    "BoxPredictor.mask_rcnn_box_predictor": (
        "the second stage of Faster R-CNN",
        "use convolutional_box_predictor",
    ),
    "SecondStageBoxPredictor.convolutional_box_predictor": (
        "a predictor of one stage",
        "use mask_rcnn_box_predictor",
    ),
    "SecondStageBoxPredictor.weight_shared_convolutional_box_predictor": (
        "a predictor of one stage",
        "use mask_rcnn_box_predictor",
    ),
    "rfcn_box_predictor": ("the predictor of R-FCN", "use mask_rcnn_box_predictor"),
    "second_stage_mask_prediction_loss_weight": ("instance masks", _BOXES_ONLY),
    "context_config": ("features of other images", "remove it: they are not used"),
    "output_final_box_features": ("features in the output", _NO_EFFECT),
    "output_final_box_rpn_features": ("features in the output", _NO_EFFECT),
    "FasterRcnn.hard_example_miner": (
        "counts the regions with the largest losses",
        f"{_DIFFERS}; a sample of second_stage_batch_size counts",
    ),
    "apply_conv_hyperparams_to_heads": ("a regularised last layer", _DIFFERS),
    "apply_conv_hyperparams_pointwise": ("a regularised pointwise kernel", _DIFFERS),
    "flexible_grid_anchor_generator": ("anchors one by one", "use multiscale_anchor_generator"),
    "calibration_config": ("rescales the scores", "remove it: scores come out uncalibrated"),
    "use_hard_nms": ("plain suppression, as here", _NO_EFFECT),
    "use_cpu_nms": ("where suppression runs", _NO_EFFECT),
    "equalization_loss": ("a loss for rare classes", _DIFFERS),
    "weighted_iou": ("an IoU loss", f"{_DIFFERS}; use weighted_smooth_l1"),
    "weighted_giou": ("a GIoU loss", f"{_DIFFERS}; use weighted_smooth_l1"),
    "weighted_logits_softmax": ("a softmax on soft labels", f"{_DIFFERS}; use weighted_softmax"),
    "penalty_reduced_logistic_focal_loss": ("CenterNet's loss", "use weighted_sigmoid_focal"),
    "weighted_dice_classification_loss": ("a loss of masks", "use weighted_sigmoid_focal"),
    # Fields of the training.
    "run_fine_tune_checkpoint_dummy_computation": ("builds the model early", _NO_EFFECT),
    "summarize_gradients": ("gradients for TensorBoard", _NO_EFFECT),
    # One of its sample configs has these three, but no version of it reads them.
    **dict.fromkeys(
        (
            "load_all_optimizer_checkpoint_vars",
            "load_all_moving_average_checkpoint_vars",
            "include_global_step",
        ),
        ("in a sample that it does not read itself", _NO_EFFECT),
    ),
    "normalize_image": ("other pixel values", "remove it: images come as -1 to 1 already"),
    "random_resize_method": ("resizes by a random method", f"{_LEAVE_OUT} random_image_scale"),
    "resize_image": ("resizes every image", "remove it: image_resizer does that"),
    "subtract_channel_mean": ("other pixel values", "remove it: images come as -1 to 1 already"),
    "scale_boxes_to_pixel_coordinates": ("boxes in pixels", "remove it"),
    "ssd_random_crop_pad_fixed_aspect_ratio": (
        "crops and pads",
        f"{_LEAVE_OUT} ssd_random_crop_fixed_aspect_ratio",
    ),
    "rgb_to_gray": ("grey images", "use image_resizer's convert_to_grayscale"),
    "autoaugment_image": ("AutoAugment's policies", f"{_LEAVE_OUT} random_distort_color"),
    "convert_class_logits_to_softmax": ("labels from logits", _DIFFERS),
    "drop_label_probabilistically": ("drops labels at random", _DIFFERS),
    "remap_labels": ("changes class ids", "change them in the records"),
    "adjust_gamma": ("brightens images", f"{_LEAVE_OUT} random_adjust_brightness"),
    "jitter_mode": ("how boxes move", _DIFFERS),
    "clip_boxes": ("whether cut boxes end at the image's edge", "remove it: here they always do"),
    # Fields of the input readers.
    "drop_remainder": ("incomplete batches", _NO_EFFECT),
    "load_context_features": ("features of other images", "remove it: they are not used"),
    "load_context_image_ids": ("ids of other images", _NO_EFFECT),
    "include_source_id": ("names of images in batches", _NO_EFFECT),
    "mask_type": ("how masks are stored", _BOXES_ONLY),
    "load_dense_pose": ("body surfaces", _BOXES_ONLY),
    "load_track_id": ("ids of tracks", _BOXES_ONLY),
    "keypoint_type_weight": ("weights of keypoints", _BOXES_ONLY),
    "load_keypoint_depth_features": ("depths of keypoints", _BOXES_ONLY),
    "use_keypoint_label_map": ("names of keypoints", _BOXES_ONLY),
    "input_type": ("records of videos", "use records of single images and remove it"),
    "frame_index": ("the frame of a video", "use records of single images and remove it"),
    "external_input_reader": ("a reader in other code", "use tf_record_input_reader"),
    "sample_from_datasets_weights": ("mixes several data sets", _DIFFERS),
    "expand_labels_hierarchy": ("labels of parent classes", "expand them in the records"),
    # Fields of the evaluation.
    "visualization_export_dir": ("a folder for pictures", _NO_EFFECT),
    "eval_master": ("the address of a server", _NO_EFFECT),
    "export_path": ("a file of detections", "remove it: the command evaluate writes one"),
    "parameterized_metric": ("a metric with thresholds", "remove it: COCO's metrics are reported"),
    "ignore_groundtruth": (
        "evaluates without labels",
        "remove it: a file of detections needs none",
    ),
    "eval_instance_masks": ("masks", _BOXES_ONLY),
    "skip_scores": ("pictures without scores", _NO_EFFECT),
    "skip_labels": ("pictures without labels", _NO_EFFECT),
    "visualize_groundtruth_boxes": ("pictures with labels", _NO_EFFECT),
    "groundtruth_box_visualization_color": ("the colour of labels", _NO_EFFECT),
    "keep_image_id_for_visualization_export": ("names of pictures", _NO_EFFECT),
    "retain_original_image_additional_channels": ("channels of pictures", _NO_EFFECT),
    "super_categories": ("metrics for groups of classes", _NO_EFFECT),
    "recall_lower_bound": ("part of a curve", "remove it: COCO's metrics take all of it"),
    "recall_upper_bound": ("part of a curve", "remove it: COCO's metrics take all of it"),
    "force_no_resize": ("evaluates images as they are", "remove it: networks have one size"),
    "use_dummy_loss_in_eval": ("skips the loss", _NO_EFFECT),
    "keypoint_edge": ("lines between keypoints", _NO_EFFECT),
    "skip_predictions_for_unlabeled_class": ("metrics of verified classes only", _DIFFERS),
    "image_classes_field_map_empty_to_ones": ("metrics of verified classes only", _DIFFERS),
}


def absent_model(field: str) -> str:
    """Returns the cause for a field of DetectionModel that is a whole model; empty for others."""
    if field not in _MODELS:
        return ""
    name, near = _MODELS[field]
    return (
        f"{name} is not here, only SSD, Faster R-CNN and what is built like them; nearest: {near}"
    )


def absent_extractor(extractor: str) -> str:
    """Returns the cause for the type of a whole feature extractor; empty for an unknown one."""
    for pattern, name, near in _EXTRACTORS:
        if re.search(pattern, extractor):
            return f"{name} is not here; nearest: {near}"
    return ""


def unknown_extractor(field: str, extractor: str, known: Iterable[str]) -> str:
    """Returns what to say of a feature extractor's type, in a field, that is not one of `known`."""
    cause = absent_extractor(extractor)
    return (
        f'{field} is "{extractor}"; {cause and cause + "; "}'
        f"{nearest(extractor, known)} is supported; or give model.architecture_name"
    )


def unsupported_field(field: str, message: str) -> str:
    """Returns what to say of a field that only the OD API has; empty for a name it has not."""
    does, remedy = _FIELDS.get(f"{message}.{field}") or _FIELDS.get(field, ("", ""))
    if not does:
        return ""
    return (
        f'"{field}" of the TF Object Detection API ({does}) is not supported in {message}: {remedy}'
    )
