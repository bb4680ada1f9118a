"""HDR video is shown as a player on an SDR screen shows it."""

import numpy as np
import pytest

from fye_rt.media import hdr, read_video
from tests.fye_rt.media.charts import coded_frame, write_chart

NUMBERS = {"PQ": 16, "HLG": 18}
LIGHT = np.array([0, 1, 10, 50, 100, 203, 400, 1000])  # cd/m2
LOSSLESS = {"x265-params": "lossless=1:log-level=none"}
FINE = {"crf": "4", "preset": "8", "svtav1-params": "lp=1"}


def signal_of(light: np.ndarray, transfer: str) -> np.ndarray:
    """Signals of grey light in cd/m2: of HLG on a screen of 1000 cd/m2."""
    if transfer == "PQ":
        return hdr.pq_signal(light.astype(float))
    scene = (light / 1000) ** (1 / 1.2)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log((12 * scene - 0.28466892).clip(1e-9)) + 0.55991073
    )


def steps(transfer: str, channels: tuple[int, int, int] = (1, 1, 1)) -> np.ndarray:
    """Eight upright bars of the light in LIGHT, as signals, (64, 64, 3)."""
    return np.broadcast_to(signal_of(LIGHT, transfer).repeat(8)[None, :, None] * np.array(channels), (64, 64, 3))


@pytest.mark.parametrize("transfer", NUMBERS)
@pytest.mark.parametrize(("form", "codec", "options"), [("mp4", "libx265", LOSSLESS), ("matroska", "libsvtav1", FINE)])
def test_hdr_is_mapped_to_sdr_with_a_notice(tmp_path, transfer, form, codec, options, caplog):
    film = write_chart(
        tmp_path / "a", form, codec, "yuv420p10le", "bt2020", signal=steps(transfer), transfer=NUMBERS[transfer],
        options=options,
    )  # fmt: skip
    frames = [frame for _, frame in read_video(film)]
    assert len(frames) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{film} is HDR ({transfer}); its colours are mapped to SDR"
    ]
    grey = frames[0][32, 4::8].astype(int)
    assert np.abs(grey - grey[:, :1]).max() <= 2 and (np.diff(grey[:, 1]) > 0).all()
    white = grey[list(LIGHT).index(203), 1] / 255
    assert 0.75 <= white <= 1 and grey[-1, 1] == 255
    dark = LIGHT / 203 <= 1 / 3  # unchanged, as sRGB
    linear = (LIGHT / 203)[dark]
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(grey[dark, 1], expected, atol=3)  # ten bits have fewer steps near black


@pytest.mark.parametrize("transfer", NUMBERS)
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_primary_keeps_its_hue_at_any_brightness(tmp_path, transfer, channel):
    channels = tuple(int(k == channel) for k in range(3))
    signal = steps(transfer, channels)
    film = write_chart(
        tmp_path / "a", "mp4", "libx265", "yuv444p10le", "bt2020", signal=signal, transfer=NUMBERS[transfer],
        options=LOSSLESS,
    )  # fmt: skip
    colours = next(read_video(film))[1][32, 4::8].astype(int)
    assert (np.diff(colours[:, channel]) >= 0).all() and colours[-1, channel] == 255
    for other in {0, 1, 2} - {channel}:
        assert (colours[2:, channel] > 2 * colours[2:, other]).all()


@pytest.mark.parametrize("transfer", NUMBERS)
@pytest.mark.parametrize("primaries", [1, 9, 12, 2])
def test_every_value_is_mapped_without_a_step_back_and_grey_stays_grey(transfer, primaries):
    ramp = np.arange(65536, dtype=np.uint16)[None, :, None].repeat(3, 2)
    mapped = hdr.to_sdr(ramp, transfer, primaries).astype(int)
    assert (np.diff(mapped[0, :, 1]) >= 0).all() and (mapped[0, 0] == 0).all() and (mapped[0, -1] == 255).all()
    assert np.abs(mapped - mapped[..., :1]).max() <= 1


def test_the_transfers_are_those_of_the_standards():
    assert hdr.pq_light(np.array([0.0, 1.0])) == pytest.approx([0, 10000])
    assert hdr.pq_light(np.array([0.508078])) == pytest.approx([100], rel=1e-4)  # BT.2408, table 1: 51 %
    light = np.geomspace(0.01, 10000, 50)
    np.testing.assert_allclose(hdr.pq_light(hdr.pq_signal(light)), light, rtol=1e-9)
    assert hdr.hlg_light(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert 1000 * hdr.hlg_light(np.array([0.75])) ** 1.2 == pytest.approx([203], rel=0.005)  # BT.2408: HLG's white


def test_the_curve_is_continuous_and_leaves_dark_light_unchanged():
    light = np.linspace(0, hdr.PEAK, 20001)
    mapped = hdr.compressed(light)
    assert (np.diff(mapped) >= 0).all() and np.diff(mapped).max() <= 1.01 * light[1]
    assert (np.diff(mapped[light < 0.9 * hdr.PEAK]) > 0).all()
    np.testing.assert_allclose(mapped[light < 60], light[light < 60], rtol=1e-6, atol=1e-9)
    assert mapped[-1] == pytest.approx(hdr.WHITE)


def test_ten_bits_are_used(tmp_path):
    """Neighbouring values of ten bits in the dark stay apart, although they are one value of eight bits."""
    signal = np.broadcast_to((np.arange(64) + 200)[None, :, None] / 876, (64, 64, 3))
    film = write_chart(
        tmp_path / "a", "mp4", "libx265", "yuv444p10le", "bt2020", signal=signal, transfer=16, options=LOSSLESS
    )
    assert coded_frame(signal, "yuv444p10le", "bt2020", False).format.name == "yuv444p10le"
    levels = next(read_video(film))[1][32, :, 1]
    expected = hdr.to_sdr((signal[:1] * 65535).round().astype(np.uint16), "PQ", 9)[0, :, 1]
    assert len(set(expected.tolist())) > 20
    assert np.abs(levels.astype(int) - expected).max() <= 1
