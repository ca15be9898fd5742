"""Makes entropy.json, and the worked example of docs/format.md: run it only when the format itself changes.

python -m tests.golden.make_entropy        # from the repository's root
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

TARGET = Path(__file__).with_name("entropy.json")
EMPTY = {
    "words": {"rows_sum": 12 * ((1 << 24) - 64), "symbols": [3, 60, 0, 63, 17, 17, 8, 1, 40, 41, 2, 5]},
    "small": {"shape": [32, 8, 96, [4, 2, 1]]},
    "full": {"shape": [4096, 8, 24, [2, 1]]},
}


def main() -> None:
    """Writes the coded bytes as they are now."""
    golden = json.loads(json.dumps(EMPTY))
    TARGET.write_text(json.dumps(golden))
    from tests import test_format as tests

    encoder = tests.Encoder()
    encoder.encode(np.array(golden["words"]["symbols"], np.int32), tests.rows_of(5, 12, 64, 2))
    golden["words"]["payload"] = encoder.payload().hex()
    for name in ("small", "full"):
        codes, books = tests.golden_grid(name)
        golden[name]["payloads"] = [stream.payload.hex() for stream in tests.always_adaptive(codes, books)]
    TARGET.write_text(json.dumps(golden, indent=1) + "\n")
    for part, text in tests.example_lines().items():
        print(f"--- {part}\n{text}")


if __name__ == "__main__":
    main()
