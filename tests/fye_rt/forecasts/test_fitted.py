import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fye_rt import Bundle
from fye_rt import bundle as bundle_module
from fye_rt.errors import BundleError
from fye_rt.forecast import even, jump_table, newton
from fye_rt.forecasts import fitted
from fye_rt.forecasts.fitted import Fitted
from fye_rt.schedule import SchedulerConfig, schedule
from tests.fye_rt.command_line import TINY

TABLE = schedule(30, SchedulerConfig())
UNFINISHED = {"steps": 30, "guidance": [1, 2], "error": 0, "jumps": [{"step": 0, "end": 29, "a": 1, "w": []}]}


def some(evaluations: int, low: float = 1.5, high: float = 3.5) -> Fitted:
    return Fitted(30, (low, high), jump_table(TABLE, even(30, evaluations), newton(1), "v"), 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "bundle"))


def change(folder: Path, **entries: object) -> None:
    bundle = Bundle.load(folder)
    fitted.write(bundle, [some(6)], {})
    content = json.loads((folder / fitted.FILE).read_text()) | entries
    bundle_module.put_file(folder, fitted.FILE, json.dumps(content).encode())


def test_tables_come_back_and_the_bundle_checks_their_file(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert fitted.read(bundle) == ()
    tables = [some(5), some(8)]
    fitted.write(bundle, tables, {"clips": 3})
    again = Bundle.load(folder)
    assert fitted.read(again) == tuple(tables)
    fitted.write(again, [some(4)], {})
    assert fitted.read(Bundle.load(folder)) == (some(4),)
    (folder / fitted.FILE).write_text("{}")
    with pytest.raises(BundleError, match=r"forecast\.json differs from its hash"):
        Bundle.load(folder)


def test_a_table_is_found_by_steps_evaluations_and_guidance() -> None:
    wide, narrow = some(6, 1.0, 5.0), some(6, 2.0, 3.0)
    tables = [wide, narrow, some(8, 1.0, 5.0)]
    assert fitted.find(tables, 30, 2.5, 6) is narrow.table
    assert fitted.find(tables, 30, 3.5, 6) is wide.table
    assert fitted.find(tables, 30, 5.1, 6) is None
    assert fitted.find(tables, 20, 2.5, 6) is None
    assert fitted.find(tables, 30, 2.5, 7) is None


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"format": "recipe"}, "is not a fye-forecast"),
        ({"version": 2}, "of version 1"),
        ({"source": {"sha256": "0"}}, "another checkpoint"),
        ({"plans": [{}]}, "damaged"),
        ({"plans": 3}, "damaged"),
        ({"plans": [{"steps": float("inf"), "guidance": [1, 2], "error": 0, "jumps": []}]}, "damaged"),
        ({"plans": [UNFINISHED]}, "do not follow each other"),
    ],
)
def test_an_unusable_table_is_refused_with_the_remedy(folder: Path, entries: dict[str, object], said: str) -> None:
    change(folder, **entries)
    with pytest.raises(BundleError, match=said) as caught:
        fitted.read(Bundle.load(folder))
    assert "fye calibrate" in str(caught.value)


def test_a_deeply_nested_table_is_refused(folder: Path) -> None:
    bundle_module.put_file(folder, fitted.FILE, b"[" * 100_000)
    with pytest.raises(BundleError, match="is damaged"):
        fitted.read(Bundle.load(folder))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_bundle_opens_after_an_interrupted_change(folder: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    fitted.write(Bundle.load(folder), [some(6)], {})
    writes: list[Path] = []
    original = bundle_module.atomic_file

    def interrupted(path: Path) -> AbstractContextManager[Path]:
        writes.append(path)
        if len(writes) == stop:
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(bundle_module, "atomic_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.write(Bundle.load(folder), [some(7)], {})
    monkeypatch.undo()
    assert fitted.read(Bundle.load(folder)) in ((), (some(6),))
    fitted.write(Bundle.load(folder), [some(7)], {})
    assert fitted.read(Bundle.load(folder)) == (some(7),)
