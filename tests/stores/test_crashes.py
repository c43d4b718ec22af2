"""A computer that dies at any single write loses nothing committed and ends with the same files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ["two runs"]
LONG = [
    "ten more images",
    "a removal",
    "a merge",
    "a run removed",
    "a first extraction",
    "changed images",
    "an import",
    "a first subject",
    "a second subject",
]


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")
@pytest.mark.parametrize("work", [*QUICK, *[pytest.param(name, marks=pytest.mark.slow) for name in LONG]])
def test_a_crash_at_any_write_leaves_a_store_that_opens_and_resumes_to_the_same_bytes(work):
    ran = subprocess.run([sys.executable, "-m", "tests.crashes", work], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 20
