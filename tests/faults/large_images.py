"""Extract from a folder with four decoding threads and the fake backbone; print the most memory that was held, in MB.

python large_images.py DATA OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from fakes import FakeNetwork
from headstart.extract.run import extract_features

if __name__ == "__main__":
    summary = extract_features(sys.argv[1], sys.argv[2], network=FakeNetwork(), decode_threads=4)
    assert not summary.failures, summary.failures
    # Not ru_maxrss: a process has inherited that of the one that started it.
    held_kib = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(summary.n_images, int(held_kib) * 1024 // 1_000_000)
