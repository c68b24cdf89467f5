"""What --adaptive costs and gains on clips: boxes and time against every frame inferred.

    python scripts/benchmarks/adaptive_agreement.py clip.mp4 [more clips, or synthetic] [--rounds 3]

Boxes count from a confidence of 0.35 on, and agree at IoU 0.75.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core.agreement import Agreement
from pipeline.core.config import SYNTHETIC, AutoOptions, ProcessConfig, SyntheticOptions
from pipeline.measure.adaptive_gain import AdaptiveGain, adaptive_gain


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare --adaptive with full inference.")
    parser.add_argument("clips", nargs="+", metavar="clip")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--no-video", action="store_true")
    arguments = parser.parse_args()
    print(f"{'clip':<28}{'inferred':>9}{'ours':>8}{'theirs':>8}{'boxes':>8}", end="")
    print(f"{'frames':>8}{'file':>7}{'CPU':>7}")
    found: dict[str, AdaptiveGain] = {}
    for clip in arguments.clips:
        config = ProcessConfig(
            source=SyntheticOptions() if clip == SYNTHETIC else Path(clip),
            output_dir=Path(),
            weights=arguments.weights,
            infer=AutoOptions(precision=arguments.precision),
            video=not arguments.no_video,
        )
        found[clip] = gain = adaptive_gain(config, arguments.rounds)
        show(Path(clip).name, gain.inferred_share, gain.agreement)
        print(f"{gain.frames:>8.2f}{gain.file_to_file:>7.2f}{gain.cpu:>7.2f}")
    share = sum(gain.inferred_share for gain in found.values()) / len(found)
    total = sum((gain.agreement for gain in found.values()), Agreement())
    show("all boxes, mean of the clips", share, total)
    print()


def show(name: str, share: float, agreement: Agreement) -> None:
    print(f"{name:<28}{share:>9.3f}{agreement.ours.value:>8.4f}", end="")
    print(f"{agreement.theirs.value:>8.4f}{agreement.num_boxes:>8}", end="", flush=True)


if __name__ == "__main__":
    main()
