"""Retake the committed results, on a machine that does nothing else.

    python -m fye_bench [--results bench/results] [--full DIR]

Writes latency.json, session_options.json and decode_chunks.json (within half an hour on two cores, a part of it for
making the mid-size model on first use); with --full also full_size.json, for which the full-size model is made below
DIR, and decode_chunks_full.json of that model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fye_bench.arguments import run
from fye_bench.speed import decode_chunks, full_size, latency, session_options
from fye_bench.speed.model import find_model
from fye_rt.cli import terminal


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks one after another; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("bench/results"), metavar="DIR")
    parser.add_argument("--full", type=Path, metavar="DIR", help="also measure the full-size model, made below DIR")
    arguments = parser.parse_args(argv)

    def result(name: str) -> list[str]:
        return ["--json", str(arguments.results / name)]

    fp32 = find_model(None, None, terminal.note).bundle
    fp16 = find_model(None, None, terminal.note, precision="fp16").bundle
    latency.main(["--rounds", "20", "--profile", *result("latency.json")])
    session_options.main(["--bundle", str(fp32), "--bundle", str(fp16), *result("session_options.json")])
    decode_chunks.main(["--bundle", str(fp32), *result("decode_chunks.json")])
    if arguments.full is None:
        return 0
    exceeded = full_size.main(["--work", str(arguments.full), *result("full_size.json")])
    decode_chunks.main(["--bundle", str(arguments.full / "bundle"), *result("decode_chunks_full.json")])
    return exceeded


if __name__ == "__main__":
    run(main)
