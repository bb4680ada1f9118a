"""A few of the damaged inputs of `tests.fuzz`, the same ones every time."""

import sys

import pytest

from tests import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, /proc and RLIMIT_AS, as Linux has them")


def test_damaged_files_are_refused_with_a_fye_error() -> None:
    assert fuzz.search("parsers", seed=1, first=0, count=220) == []


@pytest.mark.slow
def test_commands_with_damaged_inputs_end_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FYE_LANDMARKER", "missing.task")
    assert fuzz.search("commands", seed=1, first=0, count=24) == []


def test_the_fuzzer_finds_a_reader_that_fails_hangs_or_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(number: int) -> None:
        match number % 4:
            case 0:
                raise fuzz.FyeError("in words of ours")
            case 1:
                raise ValueError("a bug")
            case 2:
                fuzz.os.kill(fuzz.os.getpid(), fuzz.signal.SIGKILL)
            case 3:
                fuzz.time.sleep(60)

    monkeypatch.setattr(fuzz, "PATIENCE", 1.0)
    monkeypatch.setattr(fuzz, "Valid", lambda folder: iter(range(1000)))
    makes = {str(k): lambda rng, k=k: fuzz.Case("test", lambda: ends(k)) for k in range(4)}
    monkeypatch.setattr(fuzz, "parsers", lambda valid: makes)
    told = [(finding.number, finding.what.split(" at ")[0]) for finding in fuzz.search("parsers", 0, 0, 5)]
    died = "the process ended with -9, a signal"
    assert told == [(1, "ValueError: a bug"), (2, died), (3, "no answer in 1 seconds")]


def test_a_fuzz_case_depends_on_its_seed_and_number_alone() -> None:
    one, same, other = (fuzz.random.Random(f"{seed} 7") for seed in (1, 1, 2))
    valid = [bytes(range(256)), b"another"]
    assert fuzz.damaged(one, valid) == fuzz.damaged(same, valid) != fuzz.damaged(other, valid)
