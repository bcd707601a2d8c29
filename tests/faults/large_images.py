"""Extract from a folder with four decoding threads and the fake backbone; print the most memory that was held, in MB.

python large_images.py DATA OUTPUT
"""

from __future__ import annotations

import resource
import sys

from fakes import FakeNetwork
from headstart.extract.local import extract_features

if __name__ == "__main__":
    summary = extract_features(sys.argv[1], sys.argv[2], network=FakeNetwork(), decode_threads=4)
    assert not summary.failures, summary.failures
    print(summary.n_images, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
