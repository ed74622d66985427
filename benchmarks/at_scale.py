"""All figures of runs at scale, one script after the other, into docs/benchmarks.

    python benchmarks/at_scale.py --folder FOLDER         two hours, 60 GB of disk, and a machine to itself

What each script measures stands in its own help. It needs the folder with real data that NORMALISR_DASK_TEST_DATA
names (overhead.py) and atheris (fuzz.py), and ends with exit code 1 if one of the scripts does, after all of them.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
RESULTS, TESTS = BENCHMARKS.parent / "docs" / "benchmarks", BENCHMARKS.parent / "tests"


def main() -> int:
    """Run all scripts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="keeps what was generated and ingested")
    folder = str(parser.parse_args().folder)
    kills = ["kills.py", "--folder", folder, "--output", str(RESULTS / "kills.json")]
    scripts = [
        ["overhead.py", "--json", str(RESULTS / "overhead.json")],
        ["atlas.py", "--folder", folder, "--json", str(RESULTS / "atlas.json")],
        kills,
        [*kills, "--other-groupings", "exclude", "--guides", "300"],
        ["fuzz.py", "--folder", f"{folder}/fuzz-findings", "--json", str(RESULTS / "fuzz.json")],
    ]
    failed = []
    for script, *options in scripts:
        path = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        path += [str(TESTS)] if script == "fuzz.py" else []
        command = [sys.executable, str(BENCHMARKS / script), *options]
        if subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}).returncode:
            failed.append(script)
    print(f"failed: {', '.join(failed)}" if failed else "All scripts have ended well.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
