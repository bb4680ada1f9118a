import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fye_rt.errors import InputError, NumericalError
from fye_training import loop
from fye_training.presets import Stage

STAGE = Stage(learns="image", size=64, steps=60, portraits=2, targets=3, learning_rate=0.01, warm_up=5, ema=0.9)


class Line:
    """Fits y = 2x + 1 from batches that follow from the step alone."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Linear(1, 1)
        self.sheets: list[Path] = []

    def losses(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
        return {"loss": (self.module(x) - 2 * x - 1).square().mean()}

    def sheet(self, path: Path) -> dict[str, float]:
        self.sheets.append(path)
        return {"weight": float(self.module.weight)}


def fit(task: loop.Task, folder: Path, **options: object) -> bool:
    run = loop.Run(folder, bfloat16=False, **options)  # type: ignore[arg-type]
    return loop.fit("line", task, STAGE, run, lambda *_: None)


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    assert fit(Line(), whole)
    for stop in (7, 40):
        assert not fit(Line(), parts, stop_at_step=stop) and loop.read(parts / "line.pt")["step"] == stop
    assert fit(Line(), parts)
    first, second = (loop.read(folder / "line.pt") for folder in (whole, parts))
    for kind in ("module", "averaged"):
        assert all(torch.equal(first[kind][key], second[kind][key]) for key in first[kind])


def test_the_learning_rate_rises_stays_and_falls() -> None:
    paces = [STAGE.pace(step) for step in range(STAGE.steps)]
    assert paces[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1]) and set(paces[5:48]) == {1}
    assert paces[48:] == pytest.approx([left / 12 for left in range(12, 0, -1)])
    assert [step for step in range(STAGE.steps) if STAGE.cooling(step)] == list(range(49, 60))
    longer = replace(STAGE, steps=600)
    assert [longer.pace(step) for step in range(48)] == paces[:48]  # steps may be added before it falls


def test_the_loss_falls_and_the_log_has_it(tmp_path: Path) -> None:
    fit(Line(), tmp_path)
    entries = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert entries[0]["samples"] == 50 * 2 * 3


def test_a_sample_sheet_uses_averaged_weights_and_leaves_training_unchanged(tmp_path: Path) -> None:
    task = Line()
    fit(task, tmp_path)
    state = loop.read(tmp_path / "line.pt")
    shown = json.loads((tmp_path / "line.jsonl").read_text().splitlines()[-1])["weight"]
    assert shown == pytest.approx(float(state["averaged"]["weight"]))
    assert shown != pytest.approx(float(state["module"]["weight"]))
    assert torch.equal(task.module.weight, state["module"]["weight"])


def test_training_stops_after_its_time_with_a_checkpoint(tmp_path: Path) -> None:
    assert not fit(Line(), tmp_path, stop_after_seconds=0.0) and loop.read(tmp_path / "line.pt")["step"] == 0


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    fit(Line(), tmp_path)
    task = Line()
    task.module = nn.Linear(2, 1)
    with pytest.raises(InputError, match="another recipe"):
        fit(task, tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "line.pt").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InputError, match="not a training checkpoint"):
        fit(Line(), tmp_path)


def test_a_loss_that_is_not_finite_ends_training(tmp_path: Path) -> None:
    task = Line()
    with torch.no_grad():
        task.module.weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="not finite at step 50"):
        fit(task, tmp_path)
