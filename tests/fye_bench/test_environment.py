import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fye_bench import environment


def test_the_environment_records_processor_packages_and_threads() -> None:
    facts = environment.environment(threads=2)
    assert facts["threads"] == 2 and facts["cpu"]["processors"] >= 1
    assert {"numpy", "onnxruntime", "openvino", "torch"} <= set(facts["packages"])
    assert facts["date"].endswith("+00:00")


def test_a_folder_outside_a_checkout_has_no_commit(tmp_path: Path) -> None:
    assert environment.commit(tmp_path) is None


@pytest.mark.parametrize(("everyone", "cores", "said"), [(130.0, 0.05, ""), (160.0, 1.55, "used 1.6 cores")])
def test_high_load_of_other_processes_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], everyone: float, cores: float, said: str
) -> None:
    # 20 seconds later this process has computed for 29, and all together for 30 or 60
    usages: Iterator[tuple[float, float, float]] = iter([(1000.0, 100.0, 1.0), (1020.0, everyone, 30.0)])
    monkeypatch.setattr(environment, "_usage", lambda: next(usages))
    assert environment.OtherLoad().cores() == pytest.approx(cores) and said in capsys.readouterr().err


def test_processor_time_includes_ended_child_processes() -> None:
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    before = environment._usage()
    exec(burn, {"time": time})
    subprocess.run([sys.executable, "-c", burn], check=True)
    after = environment._usage()
    assert before is not None and after is not None
    assert after[2] - before[2] > 0.55
    assert after[1] - before[1] > 0.5  # the kernel counts these in ticks of 10 ms
