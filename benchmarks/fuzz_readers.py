"""Coverage-guided fuzzing of the readers of text: no crash, no hang, no wrong matrix.

Needs atheris (pip install atheris), and the checks beside the tests:

    PYTHONPATH=tests python benchmarks/fuzz_readers.py READER -max_total_time=60

READER is a name in tests/reader_checks.py, such as matrix_market; what follows goes to libFuzzer. Python's lines are
what guides it. With NUMBA_DISABLE_JIT=1 these are also the lines of the kernels, at a fraction of the speed. It ends at
the first file that a reader ends on with another error than one that names the file, reads otherwise than the plain
reader does, or takes more than ten seconds over, and writes that file to crash-… or timeout-….
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris

KERNELS = Path(__file__).resolve().parents[1] / "normalisr_dask" / "kernels"
# Numba compiles no instrumented functions.
COMPILED = (
    [] if os.environ.get("NUMBA_DISABLE_JIT") else [f"normalisr_dask.kernels.{at.stem}" for at in KERNELS.glob("*.py")]
)

with atheris.instrument_imports(include=["normalisr_dask"], exclude=COMPILED):
    from reader_checks import READERS, SCRAPS


def main() -> None:
    """Fuzz one reader."""
    name, *options = sys.argv[1:]
    reader = READERS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        files, corpus, words = Path(place) / "files", Path(place) / "corpus", Path(place) / "words"
        files.mkdir()
        corpus.mkdir()
        for number, content in enumerate(reader.files):
            assert reader.check(content, files)  # compiles the kernels, too
            (corpus / str(number)).write_bytes(content)
        escaped = ("".join(map("\\x{:02x}".format, scrap)) for scrap in SCRAPS)
        words.write_text("".join(f'"{scrap}"\n' for scrap in escaped))
        flags = [f"-dict={words}", "-max_len=600", "-timeout=10", "-rss_limit_mb=3000", "-print_final_stats=1"]
        atheris.Setup(
            [sys.argv[0], *flags, *options, str(corpus)], lambda content: reader.check(content, files) and None
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
