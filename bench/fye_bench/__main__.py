"""Measure the committed results again, on an otherwise idle machine.

It writes latency.json, session_options.json and decode_chunks.json within half an hour on two cores, which includes
making the mid-size model on first use. With --full it also makes the full-size model below DIR and writes its
full_size.json and decode_chunks_full.json.
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
    """Measure the committed results again, on an otherwise idle machine."""
    fp32 = find_model(None, None, terminal.note).bundle
    fp16 = find_model(None, None, terminal.note, precision="fp16").bundle
    latency.main(["--rounds", "20", "--profile", "--json", f"{results}/latency.json"])
    session_options.main(["--bundle", str(fp32), "--bundle", str(fp16), "--json", f"{results}/session_options.json"])
    decode_chunks.main(["--bundle", str(fp32), "--json", f"{results}/decode_chunks.json"])
    if full is None:
        return 0
    code = full_size.main(["--work", str(full), "--json", f"{results}/full_size.json"])
    decode_chunks.main(["--bundle", f"{full}/bundle", "--json", f"{results}/decode_chunks_full.json"])
    return code


if __name__ == "__main__":
    run(main)
