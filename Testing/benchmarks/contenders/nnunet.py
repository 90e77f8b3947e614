"""nnU-Net v2's nnUNetPredictor on the same network, with plans made for the purpose.

From array in to label map out by its own functions (``predict_single_npy_array``: preprocessing, sliding window with
step 0.5 and no mirroring, resampling of the logits, argmax). Its defaults are kept, with two exceptions that make the
label maps comparable: it gets the axes in the order that the network was trained on, and a volume of thick slices is
resampled in three dimensions as our plan says (its default would take the nearest slice along that axis).
"""

from __future__ import annotations

import os
import time
from typing import Any

import nibabel.orientations as orientations
import numpy as np
import torch

from .contender import Contender

_CONFIGURATION = "3d_fullres"
_NORMALIZATIONS = {"zscore": "ZScoreNormalization", "ct": "CTNormalization", "none": "NoNormalization"}


class NnUNet(Contender):
    """bundle: the model, whose plan becomes nnU-Net's. threads: of torch, also while logits are resampled."""

    def __init__(self, bundle: Any, threads: int):
        super().__init__()
        # Read when nnU-Net is imported. Eight threads, its default, would fight for the cores that there are.
        os.environ["nnUNet_def_n_proc"] = str(threads)
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        torch.set_num_threads(threads)
        network = bundle.build_network()
        plans = PlansManager(nnunet_plans(bundle.plan))
        self._values = np.array([0, *(segment.value for segment in bundle.info.segments)], dtype=np.uint8)
        self._predictor = nnUNetPredictor(
            tile_step_size=0.5,
            use_gaussian=True,
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        self._predictor.manual_initialization(
            network,
            plans,
            plans.get_configuration(_CONFIGURATION),
            [network.state_dict()],
            {"channel_names": {"0": "image"}, "labels": _labels(bundle), "file_ending": ".nii.gz"},
            "nnUNetTrainer",
            None,
        )
        self._seconds: list[float] = []
        self._time_windows()

    def run(self, image: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """See Contender."""
        began = time.perf_counter()
        orientation = orientations.io_orientation(affine)
        turned = orientations.apply_orientation(image, orientation)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(orientation[:, 0])]
        self._seconds.clear()
        labels = self._predictor.predict_single_npy_array(turned[None], {"spacing": [float(mm) for mm in spacing]})
        labels = self._values[np.asarray(labels)]
        back = orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), orientation)
        labels = orientations.apply_orientation(labels, back)
        windows = sum(self._seconds)
        self.facts = {"phases": {"windows": windows, "before and after": time.perf_counter() - began - windows}}
        return labels

    def _time_windows(self) -> None:
        """Take the time of the part between preprocessing and export, which changes nothing else."""
        predict = self._predictor.predict_logits_from_preprocessed_data

        def timed(data: torch.Tensor) -> torch.Tensor:
            began = time.perf_counter()
            logits = predict(data)
            self._seconds.append(time.perf_counter() - began)
            return logits

        self._predictor.predict_logits_from_preprocessed_data = timed


def _labels(bundle: Any) -> dict[str, int]:
    return {"background": 0} | {segment.name: n for n, segment in enumerate(bundle.info.segments, start=1)}


def nnunet_plans(plan: Any) -> dict[str, Any]:
    """Our plan as the content of an nnU-Net plans file: spacing and patch in our order of axes, which nnU-Net does not
    change here (transpose 0, 1, 2)."""
    normalization = plan.normalization
    low, high = normalization.get("clip", (0.0, 0.0))
    order = {"nearest": 0, "linear": 1, "cubic": 3}[plan.interpolation]
    how = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": False}
    return {
        "dataset_name": "Dataset001_Bench",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": normalization.get("mean", 0.0),
                "std": normalization.get("sd", 1.0),
                "percentile_00_5": low,
                "percentile_99_5": high,
            }
        },
        "configurations": {
            _CONFIGURATION: {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": plan.batch,
                "patch_size": list(plan.patch),
                "spacing": list(plan.spacing),
                "normalization_schemes": [_NORMALIZATIONS[normalization["kind"]]],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": how,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**how, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {**how, "order": 1},
                # Only read to rebuild the network, which is given.
                "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
            }
        },
    }
