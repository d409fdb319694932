"""What the plugin costs a run that has no eval in it.

Runs one plain test in pairs, with the plugin and with `-p no:synth`, in turn, and prints the difference of
the CPU time (user + system) of the whole process, pair by pair.

    python benchmarks/plugin_overhead.py [--pairs 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def cpu_s(command: list[str], folder: str) -> float:
    """CPU seconds of a command, as the operating system accounts for the finished child."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=9)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_plain.py").write_text("def test_plain(): ...\n")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"]
        rows = [
            (cpu_s(command, folder), cpu_s([*command, "-p", "no:synth"], folder)) for _ in range(pairs + 2)
        ][2:]  # the first two compile and warm the caches
    differences = [1000 * (with_it - without) for with_it, without in rows]
    print(f"with the plugin    {1000 * statistics.median(a for a, _ in rows):6.0f} ms of CPU (median)")
    print(f"without            {1000 * statistics.median(b for _, b in rows):6.0f} ms")
    print(
        f"difference         {statistics.median(differences):6.1f} ms (median of {pairs} pairs; "
        f"{min(differences):.1f} to {max(differences):.1f})"
    )


if __name__ == "__main__":
    main()
