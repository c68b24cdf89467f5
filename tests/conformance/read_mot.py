"""Reads MOTChallenge exports with trackeval, the ground truth and a result; writes what it finds.

Runs in an environment of its own, see CONTRIBUTING.md. Usage: read_mot.py TRUTH RESULT CLIP, where
the first two are the folders of exports. Output: a JSON object with counts of the pedestrian class
and HOTA.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import trackeval


def main(truth: Path, result: Path, clip: str) -> None:
    num_frames = int(
        next(
            line.partition("=")[2]
            for line in (truth / clip / "seqinfo.ini").read_text().splitlines()
            if line.startswith("seqLength")
        )
    )
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        data = Path(scratch) / "pipeline" / "data"
        data.mkdir(parents=True)
        shutil.copyfile(result / clip / "gt" / "gt.txt", data / f"{clip}.txt")
        dataset = trackeval.datasets.MotChallenge2DBox(
            {
                "GT_FOLDER": str(truth),
                "TRACKERS_FOLDER": scratch,
                "SEQ_INFO": {clip: num_frames},
                "SKIP_SPLIT_FOL": True,
                "PRINT_CONFIG": False,
            }
        )
        raw = dataset.get_raw_seq_data("pipeline", clip)
        found = dataset.get_preprocessed_seq_data(raw, "pedestrian")
        hota = trackeval.metrics.HOTA().eval_sequence(found)
    counts = {name: int(found[name]) for name in found if name.startswith("num_")}
    sys.stdout.write(f"\nFOUND {json.dumps({**counts, 'HOTA': float(hota['HOTA'].mean())})}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
