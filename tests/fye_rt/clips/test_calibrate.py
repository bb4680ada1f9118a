import shutil
from pathlib import Path

import numpy as np
import pytest

from fye_rt import Animator, Bundle, ClipRequest, Forecast, Options
from fye_rt.cli.main import main
from fye_rt.clips.calibrate import calibrate_bundle
from fye_rt.errors import OptionError
from fye_rt.forecasts import fitted
from fye_rt.noise import frame_noise
from tests.fye_rt.command_line import LANDMARKS, PORTRAIT, TINY, Fye

ONE_FRAME = ClipRequest(portrait=PORTRAIT, motion=LANDMARKS, frames=1)


@pytest.fixture(scope="module")
def fitted_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped tiny bundle with tables for 3 and 4 evaluations of 8 steps."""
    folder = Path(shutil.copytree(TINY, tmp_path_factory.mktemp("calibrate") / "bundle"))
    arguments = ["--steps", "8", "--frames", "2", "--evaluations", "3", "--evaluations", "4", "--quiet"]
    pair = ["--portrait", str(PORTRAIT), "--motion", str(LANDMARKS)]
    assert main(["calibrate", str(folder), *pair, *pair, *arguments]) == 0
    return folder


@pytest.mark.slow
def test_calibrate_stores_a_table_for_each_number_of_evaluations(fitted_bundle: Path) -> None:
    tables = fitted.read(Bundle.load(fitted_bundle))
    assert [entry.table.evaluations for entry in tables] == [3, 4]
    assert all((entry.steps, entry.guidance) == (8, (3.5, 3.5)) for entry in tables)
    assert all(np.isfinite(entry.error) for entry in tables)


@pytest.mark.slow
def test_a_calibrated_clip_is_nearer_to_the_full_run_than_newton(fitted_bundle: Path) -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (64, 64, 3), np.uint8)
    with Animator(Bundle.load(fitted_bundle), "onnxruntime", compute="fp32") as animator:
        portrait, motion = animator.encode_portrait(image), animator.encode_motion(np.stack([image, image]))

        def made(forecast: Forecast) -> np.ndarray:
            return animator.denoise(portrait, motion, options=Options(steps=8, forecast=forecast))

        full = made(Forecast())
        calibrated, newton = (
            np.square(made(Forecast(method=method, evaluations=4)) - full).mean() for method in ("calibrated", "newton")
        )
        prediction = animator.predict(portrait, motion, frame_noise(0, range(2), 8, 8), 0, Options(steps=8))
        single = animator.denoise(portrait, motion, options=Options(steps=1))
    assert calibrated < newton
    np.testing.assert_allclose(single, -prediction, atol=1e-5)  # from pure noise, one step leads to x0 = -v


@pytest.mark.slow
def test_calibrate_replaces_tables_of_the_same_guidance_alone(fitted_bundle: Path) -> None:
    with Animator(Bundle.load(fitted_bundle)) as animator:
        calibrate_bundle(animator, [ONE_FRAME], steps=8, guidance=[1.5, 3.0], evaluations=[3])
    tables = fitted.read(Bundle.load(fitted_bundle))
    stored = [(entry.table.evaluations, entry.guidance) for entry in tables]
    assert stored == [(3, (3.5, 3.5)), (4, (3.5, 3.5)), (3, (1.5, 3.0))]
    with Animator(Bundle.load(fitted_bundle)) as animator:
        calibrate_bundle(animator, [ONE_FRAME], steps=8, guidance=[3.0, 1.5], evaluations=[2, 3])
    again = fitted.read(Bundle.load(fitted_bundle))
    assert [entry.table.evaluations for entry in again] == [3, 4, 2, 3] and again[:2] == tables[:2]


@pytest.mark.parametrize("evaluations", [1, 9])
def test_impossible_evaluations_are_refused_before_any_work(evaluations: int, fitted_bundle: Path) -> None:
    with Animator(Bundle.load(fitted_bundle)) as animator, pytest.raises(OptionError, match="allowed: 2 to 8"):
        calibrate_bundle(animator, [ONE_FRAME], steps=8, guidance=[3.5], evaluations=[evaluations])


def test_calibrate_refuses_a_portrait_without_a_motion(fye: Fye) -> None:
    assert "--motion" in fye.refuses("calibrate", TINY, "--portrait", PORTRAIT)
