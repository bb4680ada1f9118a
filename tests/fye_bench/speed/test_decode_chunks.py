"""Decoding by chunks is timed per frame, each chunk in a process of its own, in turns."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from fye_bench.speed import decode_chunks
from fye_bench.speed.decode_chunks import Decoding, decode, main, measure
from fye_bench.speed.memory import Growth
from fye_rt.errors import InputError, OptionError, OutputError


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The chunks in the order in which they are measured, by workers that make the numbers up."""
    measured: list[int] = []

    class Worker:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None: ...

        def call(self, function: Callable[..., Any], *args: Any) -> None: ...

        def watch(self, function: Callable[..., Any], bundle: Path, decoding: Decoding) -> tuple[float, Growth]:
            measured.append(decoding.chunk)
            return len(measured) / decoding.chunk, Growth(0, 0, 100 * decoding.chunk + len(measured))

    monkeypatch.setattr(decode_chunks, "Worker", Worker)
    yield measured


def test_each_round_measures_every_chunk_in_rotated_order(order: list[int]) -> None:
    rows = list(measure(Path("bundle"), [("onnxruntime", "fp32")], [(64, 72)], (1, 2, 4), rounds=3))
    assert order == [1, 2, 4, 2, 4, 1, 4, 1, 2]
    assert [(row["size"], row["chunk"]) for row in rows] == [((64, 72), 1), ((64, 72), 2), ((64, 72), 4)]
    assert [row["seconds_per_frame"]["p50"] for row in rows] == [6.0, 4 / 2, 5 / 4]
    assert [row["peak_anonymous_bytes"] for row in rows] == [106, 204, 405]
    assert rows[0]["speedup"]["median"] == 1
    # of 1/1, 6/1 and 8/1 seconds against 2/2, 4/2 and 9/2
    assert rows[1]["speedup"] == {"n": 3, "median": 8 / 4.5, "min": 1.0, "max": 3.0}


@pytest.mark.slow
def test_a_larger_decode_chunk_takes_more_memory(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode_chunks.backends, "installed", lambda: ["onnxruntime"])
    file = tmp_path / "chunks.json"
    arguments = ["--size", "128x136", "--chunk", "1", "--chunk", "8", "--rounds", "1", "--json", str(file)]
    assert main(["--bundle", str(tiny_bundle), *arguments]) == 0
    result = json.loads(file.read_text())
    assert result["workload"]["graph"] == "vae_decoder"
    assert [(row["size"], row["chunk"]) for row in result["chunks"]] == [([128, 136], 1), ([128, 136], 8)]
    one, eight = result["chunks"]
    assert one["seconds_per_frame"]["p50"] > 0
    # the decoded frames alone are 0.2 MB each
    assert eight["peak_anonymous_bytes"] - one["peak_anonymous_bytes"] > 1_400_000
    assert "128x136        8" in capsys.readouterr().out


def test_decode_times_are_seconds_for_each_frame(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter((10.0, 22.0))
    monkeypatch.setattr(decode_chunks.time, "perf_counter", lambda: next(ticks))
    # two calls of three frames are the fewest that decode four
    assert decode(tiny_bundle, Decoding("onnxruntime", "fp32", (64, 64), 3)) == 2.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--size", "large"], OptionError, "give height and width"),
        (["--size", "100x128"], InputError, "a frame is 100x128"),
        (["--json", "none/chunks.json"], OutputError, "choose a folder"),
    ],
)
def test_an_invalid_size_or_output_of_the_decode_benchmark_is_refused(
    arguments: list[str], error: type[Exception], message: str, tiny_bundle: Path
) -> None:
    with pytest.raises(error, match=message):
        main(["--bundle", str(tiny_bundle), *arguments])
