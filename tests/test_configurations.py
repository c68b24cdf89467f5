"""The throughput configurations by name."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.inference.configurations import (
    AUTO,
    BASELINE,
    BATCH_SIZES,
    configuration,
    configurations,
    named_options,
    possible_devices,
)

NAMES = [
    "pytorch",
    "openvino",
    "openvino-batch",
    "async",
    "throughput",
    "latency",
    "gpu",
    "npu",
    "auto-device",
    "cumulative",
    "batch-device",
    "streams",
    "int8",
]

some_cores = st.integers(1, 256)


def test_there_are_those_of_the_tutorial_in_its_order() -> None:
    assert list(configurations(4)) == NAMES
    assert BASELINE in NAMES
    assert AUTO not in NAMES


@given(some_cores)
def test_names_and_labels_tell_them_apart(cores: int) -> None:
    for name, entry in configurations(cores).items():
        assert entry.name == name
        assert entry.description
        labels = [variant.label for variant in entry.variants]
        assert len(set(labels)) == len(labels) >= 1
        assert len({variant.options for variant in entry.variants}) == len(labels)
        assert entry.options == entry.variants[0].options


@given(some_cores)
def test_the_grid_of_streams_fits_the_cores(cores: int) -> None:
    for variant in configurations(cores)["streams"].variants:
        options = variant.options
        assert options.num_streams is not None
        assert options.num_requests is not None
        assert 1 <= options.num_streams <= cores
        assert options.num_requests >= options.num_streams
        assert options.num_threads == cores
        assert options.hint == "NONE"
        words = f"{options.num_streams}, requests {options.num_requests}"
        assert variant.label == words + (", pinned" if options.pinning else "")


def test_the_grid_varies_streams_requests_and_pinning() -> None:
    options = [variant.options for variant in configurations(8)["streams"].variants]
    assert {entry.num_streams for entry in options} == {1, 4, 8}
    assert {entry.num_requests for entry in options} == {2, 8, 16, 32}
    assert {entry.pinning for entry in options} == {False, True}


def test_batches_are_tried_in_several_sizes() -> None:
    variants = configurations(2)["openvino-batch"].variants
    assert tuple(variant.options.batch for variant in variants) == BATCH_SIZES
    assert {variant.options.num_requests for variant in variants} == {1}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("pytorch", "engine", "pytorch"),
        ("openvino", "num_requests", 1),
        ("async", "hint", "NONE"),
        ("throughput", "hint", "THROUGHPUT"),
        ("latency", "hint", "LATENCY"),
        ("gpu", "device", "GPU"),
        ("npu", "device", "NPU"),
        ("auto-device", "device", "AUTO"),
        ("cumulative", "hint", "CUMULATIVE_THROUGHPUT"),
        ("batch-device", "device", "BATCH:CPU(4)"),
        ("int8", "precision", "int8"),
    ],
)
def test_a_configuration_is_what_its_name_says(name: str, key: str, value: object) -> None:
    assert getattr(configuration(name, 2).options, key) == value


@pytest.mark.parametrize(
    ("devices", "lacking"),
    [
        (["CPU"], {"gpu": "no GPU, only CPU", "npu": "no NPU, only CPU"}),
        (["CPU", "GPU.0", "GPU.1"], {"npu": "no NPU, only CPU, GPU.0, GPU.1"}),
        (["CPU", "GPU", "NPU"], {}),
        (["GPU"], {"npu": "no NPU, only GPU"}),
    ],
)
def test_one_that_cannot_run_here_says_why(devices: list[str], lacking: dict[str, str]) -> None:
    on_a_device = {
        name: why
        for name, entry in configurations(2).items()
        if entry.options.device not in ("CPU", "BATCH:CPU(4)")
        and (why := entry.why_unavailable(devices))
    }
    assert on_a_device == {name: f"unavailable: {text}" for name, text in lacking.items()}
    on_the_cpu = configurations(2)["throughput"].why_unavailable(devices)
    assert (on_the_cpu is None) == ("CPU" in devices)


def test_a_name_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError) as caught:
        configuration("fastest", 2)
    assert str(caught.value) == (
        f"unknown configuration 'fastest'; configurations are: {', '.join([AUTO, *NAMES])}"
    )


@given(some_cores)
def test_every_variant_can_be_taken_by_its_name_and_so_in_int8(cores: int) -> None:
    for name, entry in configurations(cores).items():
        assert named_options(name, cores) == entry.options
        for variant in entry.variants:
            row = f"{name} {variant.label}".strip()
            assert named_options(row, cores) == variant.options
            if variant.options.engine == "openvino":
                under = named_options(f"int8 under {row}", cores)
                assert under == dataclasses.replace(variant.options, precision="int8")


@pytest.mark.parametrize(
    ("device", "found"),
    [
        ("CPU", ["CPU"]),
        ("GPU", ["GPU.0", "GPU.1"]),
        ("GPU.1", ["GPU.1"]),
        ("AUTO", ["CPU", "GPU.0", "GPU.1"]),
        ("AUTO:-CPU", ["GPU.0", "GPU.1"]),
        ("MULTI:CPU,GPU.0", ["CPU", "GPU.0"]),
        ("BATCH:CPU(4)", ["CPU"]),
        ("NPU", []),
    ],
)
def test_a_device_stands_for_those_that_may_run_the_model(device: str, found: list[str]) -> None:
    assert possible_devices(device, ["CPU", "GPU.0", "GPU.1"]) == found
