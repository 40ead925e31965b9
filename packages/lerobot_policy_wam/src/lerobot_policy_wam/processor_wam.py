"""The pipelines before and behind the policy. They scale nothing: the model does, with the statistics it carries."""

from __future__ import annotations

from typing import Any

import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME

from lerobot_policy_wam.configuration_wam import WamConfig

Stats = dict[str, dict[str, torch.Tensor]]


def make_wam_pre_post_processors(
    config: WamConfig, dataset_stats: Stats | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """Rename, batch, device; then back to the CPU.

    The two normalisers are the identity (`WamConfig.normalization_mapping`); they are there because LeRobot's programs
    override them by name.
    """
    inputs, outputs = config.input_features or {}, config.output_features or {}
    norm_map: Any = config.normalization_mapping
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device or "cpu"),
        NormalizerProcessorStep(features={**inputs, **outputs}, norm_map=norm_map, stats=dataset_stats),
    ]
    behind = [
        UnnormalizerProcessorStep(features=outputs, norm_map=norm_map, stats=dataset_stats),
        DeviceProcessorStep(device="cpu"),
    ]
    return (
        PolicyProcessorPipeline[dict[str, Any], dict[str, Any]](steps=before, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
        PolicyProcessorPipeline[PolicyAction, PolicyAction](
            steps=behind,
            name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )
