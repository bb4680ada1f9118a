"""Retake the committed results, on a machine that does nothing else.

Writes latency.json, session_options.json and decode_chunks.json within half an hour on two cores; part of that goes
into making the mid-size model on first use. With --full it also writes full_size.json, for which it makes the full-size
model below DIR, and decode_chunks_full.json of that model.
"""

from pathlib import Path
from typing import Annotated

from fye_bench.arguments import command, option, run
from fye_bench.speed import decode_chunks, full_size, latency, session_options
from fye_bench.speed.model import find_model
from fye_rt.cli import terminal


@command("python -m fye_bench")
def main(
    results: Annotated[Path, option("DIR", "Folder of the results.")] = Path("bench/results"),
    full: Annotated[Path | None, option("DIR", "Also measure the full-size model, made below DIR.")] = None,
) -> int:
    """Retake the committed results, on a machine that does nothing else."""

    def result(name: str) -> list[str]:
        return ["--json", str(results / name)]

    fp32 = find_model(None, None, terminal.note).bundle
    fp16 = find_model(None, None, terminal.note, precision="fp16").bundle
    latency.main(["--rounds", "20", "--profile", *result("latency.json")])
    session_options.main(["--bundle", str(fp32), "--bundle", str(fp16), *result("session_options.json")])
    decode_chunks.main(["--bundle", str(fp32), *result("decode_chunks.json")])
    if full is None:
        return 0
    exceeded = full_size.main(["--work", str(full), *result("full_size.json")])
    decode_chunks.main(["--bundle", str(full / "bundle"), *result("decode_chunks_full.json")])
    return exceeded


if __name__ == "__main__":
    run(main)
