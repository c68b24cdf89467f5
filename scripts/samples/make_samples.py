"""Makes the sample clip, what is to be found in it, and the README's picture.

    python scripts/samples/make_samples.py

All of it comes from the synthetic scene and the demo model. The clip is the same to the byte with
the same FFmpeg; the boxes, with the same model, to within what processors round differently.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import EncodeOptions, InferOptions, ProcessConfig, SyntheticOptions
from pipeline.run.outputs import ANNOTATED_NAMES, DETECTIONS_NAME
from pipeline.run.process import process_video
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.source import SyntheticSource

CLIP = SyntheticOptions(num_frames=150, size_wh=(640, 360), frame_rate=Fraction(30), seed=6)
CLIP_NAME, EXPECTED_NAME = "clip.mp4", "clip.detections.jsonl"
FLOAT32 = InferOptions(precision="f32")

_PICTURE = SyntheticOptions(num_frames=73, size_wh=(960, 540), seed=1)
_SAMPLE_RATE = 48_000
_LOWEST_HZ, _SCALE = 220.0, (0, 2, 4, 7, 9)
_LOUDNESS = 0.12


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the samples and the README's picture.")
    parser.add_argument("--folder", type=Path, default=Path("samples"))
    parser.add_argument("--picture", type=Path, default=Path("docs/annotated.jpg"))
    arguments = parser.parse_args()
    write_clip(arguments.folder / CLIP_NAME, CLIP)
    write_expected(arguments.folder / CLIP_NAME, arguments.folder / EXPECTED_NAME)
    write_picture(arguments.picture)


def write_clip(path: Path, scene: SyntheticOptions) -> None:
    """H.264 and AAC in MP4."""
    with av.open(str(path), "w", options={"movflags": "faststart", "fflags": "bitexact"}) as clip:
        # Some of x264's vector code does not give the same twice.
        reproducible = {"threads": "1", "x264-params": "asm=0"}
        options = {"crf": "22", "preset": "slow", **reproducible}
        picture: Any = clip.add_stream("libx264", rate=scene.frame_rate, options=options)
        picture.width, picture.height = scene.size_wh
        picture.pix_fmt = "yuv420p"
        sound: Any = clip.add_stream("aac", rate=_SAMPLE_RATE, layout="stereo")
        sound.bit_rate = 64_000
        packets: list[Any] = []
        for frame in SyntheticSource(scene):
            frame.image.pts = frame.pts
            packets += picture.encode(frame.image)
        packets += picture.encode(None)
        samples = av.AudioFrame.from_ndarray(tones(scene), format="fltp", layout="stereo")
        samples.sample_rate, samples.pts = _SAMPLE_RATE, 0
        packets += [*sound.encode(samples), *sound.encode(None)]
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            clip.mux(packet)


def tones(scene: SyntheticOptions) -> NDArray[np.float32]:
    """A tone for every thing, float32 (2, samples): by class, higher above, louder if larger.

    It is heard from the side where the thing is, while it is to be seen.
    """
    width, height = scene.size_wh
    drawn = Scene(scene.size_wh, scene.seed)
    num_samples = int(scene.num_frames / scene.frame_rate * _SAMPLE_RATE)
    # (left, right) loudness and pitch of each thing at each frame.
    loudness: dict[int, NDArray[np.float64]] = {}
    hertz: dict[int, NDArray[np.float64]] = {}
    for index in range(scene.num_frames):
        truth = drawn.truth(index)
        for track_id, class_id, (x0, y0, x1, y1) in zip(
            truth.track_id.tolist(), truth.class_id.tolist(), truth.xyxy.tolist(), strict=True
        ):
            octave, step = divmod(class_id, len(_SCALE))
            semitones = 12 * octave + _SCALE[step] + 4 * (1 - (y0 + y1) / height)
            right = (x0 + x1) / 2 / width
            size = ((x1 - x0) * (y1 - y0) / (width * height)) ** 0.5
            heard = loudness.setdefault(track_id, np.zeros((2, scene.num_frames)))
            heard[:, index] = size * (1 - right) ** 0.5, size * right**0.5
            pitch = hertz.setdefault(track_id, np.full(scene.num_frames, np.nan))
            pitch[index] = _LOWEST_HZ * 2 ** (semitones / 12)
    frame_at = np.arange(num_samples) / _SAMPLE_RATE * float(scene.frame_rate)
    frames = np.arange(scene.num_frames)
    mixed = np.zeros((2, num_samples))
    for track_id, pitch in hertz.items():
        known = ~np.isnan(pitch)
        phase = np.cumsum(np.interp(frame_at, frames[known], pitch[known])) * 2 * np.pi
        wave = np.sin(phase / _SAMPLE_RATE)
        for side in range(2):
            mixed[side] += wave * np.interp(frame_at, frames, loudness[track_id][side])
    return (_LOUDNESS * mixed / max(1e-9, float(np.sqrt((mixed**2).mean())))).astype(np.float32)


def write_expected(clip: Path, path: Path) -> None:
    """What the demo model finds in the clip, as `pipeline process` writes it, in float32."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        process_video(ProcessConfig(source=clip, output_dir=out, weights="demo", infer=FLOAT32))
        shutil.copyfile(out / DETECTIONS_NAME, path)


def write_picture(path: Path) -> None:
    """The last frame of a run on the scene, as a JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        process_video(
            ProcessConfig(
                source=_PICTURE, output_dir=out, infer=FLOAT32, encode=EncodeOptions(crf=1)
            )
        )
        with av.open(str(out / ANNOTATED_NAMES[0])) as container:
            *_, frame = container.decode(video=0)
            pixels = frame.to_ndarray(format="bgr24")
    cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
