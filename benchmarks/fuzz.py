"""Ten minutes of coverage-guided fuzzing of all readers of text, with as many processes as cores.

    PYTHONPATH=tests python benchmarks/fuzz.py --json fuzz.json

Needs atheris (pip install atheris), and the checks beside the tests. fuzz_readers.py does the work, for one reader at
a time, and says what counts as a finding; the bytes of each are left in --folder. It ends with exit code 1 if there are
any.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from reader_checks import READERS

FUZZ_READERS = Path(__file__).resolve().with_name("fuzz_readers.py")


def fuzzed(reader: str, seconds: int, folder: Path) -> dict[str, object]:
    """Fuzz one reader for so long, and return how many files it took and what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    command = [sys.executable, str(FUZZ_READERS), reader, f"-max_total_time={seconds}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    start = time.perf_counter()
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    files = re.search(r"stat::number_of_executed_units:\s*(\d+)", ended.stderr)
    findings = set(folder.iterdir()) - before
    if ended.returncode and not findings:
        raise SystemExit(ended.stderr)
    return {
        "reader": reader,
        "seconds": time.perf_counter() - start,
        "files": int(files[1]) if files else None,
        "findings": len(findings),
    }


def main() -> int:
    """Fuzz every reader; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long in all")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    at_a_time = min(os.cpu_count() or 1, len(READERS))
    seconds = max(1, int(60 * asked.minutes * at_a_time / len(READERS)))
    with ThreadPoolExecutor(at_a_time) as pool:
        jobs = [pool.submit(fuzzed, reader, seconds, asked.folder / reader) for reader in READERS]
        readers = [job.result() for job in jobs]
    results = {"versions": {name: version(name) for name in ("normalisr-dask", "atheris", "numpy")}, "readers": readers}
    print(json.dumps(results, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if any(reader["findings"] for reader in readers) else 0


if __name__ == "__main__":
    sys.exit(main())
