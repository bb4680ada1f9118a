from dataclasses import replace

import pytest
import torch

from fye_export import networks
from fye_export.config import NETWORKS
from fye_training.presets import PRESETS, Stage


def test_the_weights_of_mini_ship() -> None:
    with torch.device("meta"):
        states = [networks.build(PRESETS["mini"].model, name).state_dict() for name in NETWORKS]
    assert sum(2 * value.numel() for state in states for value in state.values()) <= 20_000_000


@pytest.mark.parametrize("name", PRESETS)
def test_every_stage_gets_batches_that_the_pool_can_fill(name: str) -> None:
    preset = PRESETS[name]
    for stage_name, stage in preset.stages.items():
        assert stage.portraits <= 2 * preset.chunk  # two chunks at the start
        if stage.learns != "motion":
            assert stage.targets < preset.frames
        assert stage.size % 8 == 0
        assert set(stage.start) <= set(list(preset.stages)[: list(preset.stages).index(stage_name)])
    assert [stage.learns for stage in preset.stages.values()][:3] == ["vae", "image", "motion"]


def test_a_preset_names_the_stage_that_trained_each_network_last() -> None:
    preset = PRESETS["mini"]
    assert preset.size == 192 and preset.trained("motion") == "motion_192"
    assert preset.trained("vae", "decoder") == "decoder_192"
    assert preset.trained("vae", "decoder", before="image_192") == "vae"


def test_the_facial_loss_weighs_more_while_the_learning_rate_falls() -> None:
    weights = {"facial": (2.0, 0.5), "late_facial": (6.0, 1.5)}
    stage = Stage(learns="image", size=64, steps=100, portraits=1, targets=1, learning_rate=1, warm_up=1, **weights)
    assert {stage.facial_at(step) for step in range(81)} == {(2.0, 0.5)}
    assert {stage.facial_at(step) for step in range(81, 100)} == {(6.0, 1.5)}
    assert stage.pace(80) == 1 > stage.pace(81) and replace(stage, late_facial=None).facial_at(90) == (2.0, 0.5)
    assert replace(stage, cool_down=0.5).pace(51) < 1 == stage.pace(51)
