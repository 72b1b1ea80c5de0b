import subprocess
import sys
from pathlib import Path


def test_networks_in_8_bits():
    """In a process of its own: torch that trained after OpenVINO had run 8 bits crashed at times, in one process."""
    story = Path(__file__).with_name("quantise_alone.py")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(story)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=story.parents[2])
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
