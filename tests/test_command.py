"""The command in a report asks for the run that the report is of."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pipeline.cli.arguments import process_config
from pipeline.cli.parsers import parse_arguments
from pipeline.core.config import InferOptions, ProcessConfig, SyntheticOptions
from pipeline.core.machine import available_cores
from pipeline.inference.configurations import configurations
from pipeline.run.command import repeat_command
from tests.conftest import process


def config_of(words: list[str]) -> ProcessConfig:
    return process_config(parse_arguments(words))


@pytest.mark.parametrize(
    "command",
    [
        "process",
        "process clip.mp4",
        "process 'a clip; of $mine.mp4' --output-dir 'some where'",
        "process -- -dash.mp4",
        "process -- ./synthetic",
        "process clip.mp4 --overwrite --model demo --imgsz 320",
        "process clip.mp4 --weights model.pt --conf 0.4 --iou 0.5 --max-det 7 --classes person 3",
        "process clip.mp4 --conf 'traffic light=0.4' 2=0.6 0.3 --agnostic-nms",
        "process --conf person=0.4 car=0.6 clip.mp4 --model folder/model.xml",
        "process clip.mp4 --precision int8 --calibration 'pictures of mine' --every 3 --no-reuse",
        "process clip.mp4 --no-video",
        "process clip.mp4 --output-size 1280x720",
        "process clip.mp4 --output-size 720",
        "process clip.mp4 --frames 20 --codec hevc --crf 26 --preset fast",
        "process clip.mp4 --device AUTO --hint LATENCY --streams 1 --requests 2 --batch 2",
        "process clip.mp4 --config latency",
        "process clip.mp4 --config pytorch",
        "process clip.mp4 --config throughput --precision int8",
        "process clip.mp4 --max-input-size 640x480 --max-streams 3 --max-frame-rate 120000/1001",
        "process clip.mp4 --max-memory 100 --stall-seconds 12.5 --segment-seconds 7",
        "process --frames 30 --size 320x240 --frame-rate 30000/1001 --seed 7",
        "process --image picture.jpg",
        "process clip.mp4 --executor ray --address local --cores-per-actor 2 --debug",
        "process s3://bucket/clip.mp4 --output-dir s3://bucket/results",
    ],
)
def test_the_command_of_a_config_is_parsed_to_the_same_config(command: str) -> None:
    config = config_of(shlex.split(command))
    repeated = repeat_command(config)
    assert repeated is not None
    program, *words = shlex.split(repeated)
    assert program == "pipeline"
    assert config_of(words) == config


def test_every_configuration_has_its_name_in_the_command() -> None:
    for known in configurations(available_cores()).values():
        for variant in known.variants:
            config = ProcessConfig(
                source=Path("clip.mp4"), output_dir=Path("out"), infer=variant.options
            )
            command = repeat_command(config)
            assert command is not None
            assert config_of(shlex.split(command)[1:]) == config


def test_what_only_python_can_ask_for_has_no_command() -> None:
    infer = InferOptions(hint="NONE", num_threads=3, num_streams=3)
    config = ProcessConfig(source=Path("clip.mp4"), output_dir=Path("out"), infer=infer)
    assert repeat_command(config) is None


def test_the_report_and_its_page_have_the_command(tmp_path: Path, tiny_weights: Path) -> None:
    scene = SyntheticOptions(num_frames=5, size_wh=(128, 96))
    report = process(scene, tmp_path, tiny_weights)
    assert report["command"] == (
        f"pipeline process --output-dir {tmp_path} --weights {tiny_weights} --size 128x96 "
        "--frames 5 -- synthetic"
    )
    assert report["command"] in (tmp_path / "report.html").read_text(encoding="utf-8")
