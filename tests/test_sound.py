"""Sound in the result: what a player hears of it, when, and what the user is told.

Clips are made, and results decoded, by the programs of FFmpeg, which are another version than the
one that the pipeline brings along.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.programs import ffmpeg, needs_ffmpeg, probed, result_of

pytestmark = needs_ffmpeg

Samples = NDArray[np.float32]

RATE = 48000
CLICK_SECONDS = (0.25, 0.75, 1.25)
SOURCES = {
    "clicks": "aevalsrc='if(lt(mod(t+0.25,0.5),0.002),0.9,0)':d={seconds}:s={rate}",
    "noise": "anoisesrc=d={seconds}:r={rate}:a=0.3:seed=3",
}


def clip_with_sound(
    path: Path,
    codec: str,
    *options: object,
    sound: str = "clicks",
    channels: int = 2,
    rate: int = RATE,
    late_seconds: float = 0.0,
    seconds: float = 1.6,
) -> Path:
    """A clip, by default of 1.6 s, whose one sound track begins late."""
    source = SOURCES[sound].format(seconds=seconds, rate=rate)
    picture = {".ogg": "theora", ".flv": "flv"}.get(path.suffix, "mpeg4")
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc=s=128x96:r=25:d={seconds + late_seconds}"),
        *("-itsoffset", late_seconds, "-f", "lavfi", "-i", source),
        *("-map", "0", "-map", "1", "-c:v", picture, "-c:a", codec, "-ac", channels),
        *("-strict", "experimental", *options, path),
    )
    return path


def played(track: str, sample_format: str) -> tuple[str, ...]:
    """What a player that starts at 0 plays of a track, as a WAV: options of an output."""
    sound = ("-map", track, "-af", "aresample=async=1:first_pts=0")
    return (*sound, "-c:a", f"pcm_{sample_format}", "-f", "wav", "-bitexact")


def samples_of(wav: bytes, sample_format: str) -> NDArray[Any]:
    """(samples, channels)."""
    num_channels, samples_at = int.from_bytes(wav[22:24], "little"), wav.index(b"data") + 8
    dtype = {"f32le": "<f4", "s32le": "<i4"}[sample_format]
    return np.frombuffer(wav, dtype, offset=samples_at).reshape(-1, num_channels)


def heard(path: Path, sample_format: str = "f32le") -> NDArray[Any]:
    """What a player that starts at 0 plays of the sound: (samples, channels)."""
    return samples_of(ffmpeg("-i", path, *played("0:a:0", sample_format), "-"), sample_format)


def click_seconds(samples: Samples, rate: int) -> list[float]:
    """Where something is heard after silence."""
    loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.25)
    first = np.concatenate([[True], np.diff(loud) > 0.1 * rate])
    return [float(place) / rate for place in loud[first]]


# Sound that MP4 cannot carry


ENCODED_TO_AAC = [
    ("wmav2", "asf", 48000, 2),
    ("wmav1", "mkv", 44100, 1),
    ("adpcm_ms", "avi", 44100, 2),
    ("adpcm_ima_wav", "mkv", 22050, 1),
    ("adpcm_ima_qt", "mov", 48000, 2),
    ("pcm_alaw", "avi", 8000, 1),
    ("pcm_mulaw", "mov", 8000, 1),
    ("pcm_mulaw", "mkv", 16000, 2),
    ("libvorbis", "mkv", 48000, 2),
    ("libvorbis", "ogg", 44100, 2),
    ("nellymoser", "flv", 22050, 1),
    ("g726", "mkv", 8000, 1),
    ("libspeex", "ogg", 16000, 1),
]


@pytest.mark.parametrize(("codec", "suffix", "rate", "channels"), ENCODED_TO_AAC)
def test_sound_that_mp4_cannot_carry_is_encoded_in_step(
    tmp_path: Path, tiny_weights: Path, codec: str, suffix: str, rate: int, channels: int
) -> None:
    clip = clip_with_sound(
        tmp_path / f"clip.{suffix}", codec, "-ar", rate, rate=rate, channels=channels
    )
    result, notes = result_of(clip, tiny_weights)
    [stream] = probed(result, "a")
    assert (stream["codec_name"], stream["channels"]) == ("aac", channels)
    assert int(stream["sample_rate"]) == rate
    [note] = notes
    assert "was encoded to AAC" in note
    assert codec.removeprefix("lib") in note
    # Not what the other FFmpeg hears of the clip, which plays the priming of WMA.
    found = heard(result)
    assert click_seconds(found, rate) == pytest.approx(CLICK_SECONDS, abs=0.006)
    assert len(found) == pytest.approx(len(heard(clip)), abs=2100)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("pcm_alaw", "mkv"), ("adpcm_ima_qt", "mov"), ("libvorbis", "mkv")]
)
def test_encoded_sound_that_begins_late_begins_as_late(
    tmp_path: Path, tiny_weights: Path, codec: str, suffix: str
) -> None:
    clip = clip_with_sound(tmp_path / f"clip.{suffix}", codec, late_seconds=0.5)
    result, _ = result_of(clip, tiny_weights)
    found = heard(result)
    expected = [0.5 + seconds for seconds in CLICK_SECONDS]
    assert click_seconds(found, RATE) == pytest.approx(expected, abs=0.004)
    assert len(found) == pytest.approx(len(heard(clip)), abs=2100)


@pytest.mark.parametrize("rate", [5512, 37800, 192000])
def test_a_rate_that_aac_does_not_have_is_changed_in_step(
    tmp_path: Path, tiny_weights: Path, rate: int
) -> None:
    clip = clip_with_sound(tmp_path / "clip.mkv", "pcm_alaw", "-ar", rate, rate=rate)
    result, _ = result_of(clip, tiny_weights)
    [stream] = probed(result, "a")
    places = click_seconds(heard(result), int(stream["sample_rate"]))
    assert places == pytest.approx(CLICK_SECONDS, abs=0.004)


@pytest.mark.parametrize(("channels", "layout"), [(1, "mono"), (2, "stereo"), (6, "5.1")])
def test_encoded_sound_keeps_its_channels_apart(
    tmp_path: Path, tiny_weights: Path, channels: int, layout: str
) -> None:
    """In each channel there is another tone."""
    tones = "|".join(f"0.5*sin({300 + 200 * n}*2*PI*t)" for n in range(channels))
    clip = tmp_path / "clip.mkv"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=s=128x96:r=25:d=1.6", "-f", "lavfi"),
        *("-i", f"aevalsrc={tones}:d=1.6:s={RATE}:c={layout}", "-c:v", "mpeg4"),
        *("-c:a", "libvorbis" if channels != 6 else "pcm_alaw", "-ar", RATE, clip),
    )
    result, _ = result_of(clip, tiny_weights)
    found = heard(result)[4800:52800]
    assert found.shape[1] == channels
    spectrum = np.abs(np.fft.rfft(found, axis=0))
    wanted = [300 + 200 * n for n in range(channels)]
    if channels == 6:
        wanted.pop(3)  # What a low-frequency channel cannot play.
        spectrum = np.delete(spectrum, 3, axis=1)
    assert [int(peak) for peak in spectrum.argmax(axis=0)] == wanted


def test_a_gap_in_the_sound_is_as_long_afterwards(tmp_path: Path, tiny_weights: Path) -> None:
    """Of three seconds, the packets of the second one are missing."""
    clip = clip_with_sound(tmp_path / "whole.mkv", "pcm_alaw", seconds=3.2)
    gap = tmp_path / "clip.mkv"
    ffmpeg(
        *("-i", clip, "-c", "copy", "-map", "0"),
        *("-bsf:a", "noise=drop='between(pts*tb,1,1.99)'", gap),
    )
    result, _ = result_of(gap, tiny_weights)
    expected = [0.25, 0.75, 2.25, 2.75]
    assert click_seconds(heard(result), RATE) == pytest.approx(expected, abs=0.004)


def test_a_sound_packet_that_is_damaged_costs_itself_alone(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = clip_with_sound(tmp_path / "whole.mkv", "libvorbis", sound="noise")
    damaged = tmp_path / "clip.mkv"
    ffmpeg(
        *("-i", clip, "-c", "copy", "-map", "0"),
        *("-bsf:a", "noise=amount='if(eq(n,30),-1,0)'", damaged),
    )
    whole, found = heard(result_of(clip, tiny_weights)[0]), None
    result, _ = result_of(damaged, tiny_weights, overwrite=True)
    found = heard(result)
    assert len(found) == pytest.approx(len(whole), abs=2100)
    same = np.abs(found[: len(whole)] - whole[: len(found)]).max(axis=1) < 0.05
    assert same[: RATE // 4].all()
    assert same[RATE:-2100].all()


@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_s24le", "libvorbis"])
def test_of_the_first_frames_only_encoded_sound_ends_with_the_picture(
    tmp_path: Path, tiny_weights: Path, codec: str
) -> None:
    clip = clip_with_sound(tmp_path / "clip.mkv", codec)
    result, _ = result_of(clip, tiny_weights, num_frames=20)
    found = heard(result)
    assert len(found) / RATE == pytest.approx(0.8, abs=0.025)
    assert click_seconds(found, RATE) == pytest.approx(CLICK_SECONDS[:2], abs=0.004)


# PCM


def slow(suffix: str) -> Any:
    return pytest.param(suffix, marks=pytest.mark.slow)


SLOW = [slow("nut"), slow("avi")]
PCM = ["s16le", "s16be", "s24le", "s24be", "s32le", "f32le", "f64le", "u8", "u16le"]
NOT_THERE = {
    *(("s16be", "avi"), ("s24be", "avi"), ("u16le", "avi"), ("u16le", "mkv"), ("u16le", "mov")),
    *(("s24be", "mkv"),),
}
PAIRWISE = [
    (suffix, channels, ("s16le", "s24le")[(row + column) % 2])
    for row, suffix in enumerate(("mkv", "nut", "avi", "mov"))
    for column, channels in enumerate((1, 2, 4, 6, 8))
]
"""Each container with each number of channels, and both kinds of samples with each of these."""

Noise = dict[tuple[str, int, str], tuple[Path, NDArray[Any]]]


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Noise:
    """Clips with noise as PCM and what is heard of them, by container, channels and kind.

    One program makes all of them, and one plays them: it takes longer to start than to do that.
    """
    folder = tmp_path_factory.mktemp("noise")
    cases = dict.fromkeys(PAIRWISE)
    for suffix in ("mkv", "nut", "avi", "mov"):
        cases |= dict.fromkeys((suffix, 2, kind) for kind in PCM if (kind, suffix) not in NOT_THERE)
    clips = [folder / "-".join(map(str, case)) / f"clip.{case[0]}" for case in cases]
    sources = ("testsrc=s=128x96:r=25:d=0.6", SOURCES["noise"].format(seconds=0.6, rate=RATE))
    making: list[object] = [word for source in sources for word in ("-f", "lavfi", "-i", source)]
    playing: list[object] = [word for clip in clips for word in ("-i", clip)]
    for number, (clip, (_, channels, kind)) in enumerate(zip(clips, cases, strict=True)):
        clip.parent.mkdir()
        making += ["-map", 0, "-map", 1, "-c:v", "mpeg4", "-c:a", f"pcm_{kind}", "-ac", channels]
        making.append(clip)
        playing += [*played(f"{number}:a:0", "s32le"), clip.with_suffix(".wav")]
    ffmpeg(*making)
    ffmpeg(*playing)
    played_of = [samples_of(clip.with_suffix(".wav").read_bytes(), "s32le") for clip in clips]
    return dict(zip(cases, zip(clips, played_of, strict=True), strict=True))


@pytest.mark.parametrize("kind", PCM)
@pytest.mark.parametrize("suffix", ["mkv", *SLOW, slow("mov")])
def test_pcm_keeps_its_samples(noise: Noise, tiny_weights: Path, kind: str, suffix: str) -> None:
    if (kind, suffix) in NOT_THERE:
        pytest.skip(f"{suffix} has no {kind}")
    clip, expected = noise[suffix, 2, kind]
    result, notes = result_of(clip, tiny_weights, overwrite=True)
    found = heard(result, "s32le")
    assert found.shape == expected.shape
    if kind in ("s32le", "f32le", "f64le"):
        assert np.abs(found.astype(np.int64) - expected).max() <= 256  # 24 bits are kept.
    else:
        assert np.array_equal(found, expected)
    copied = kind in ("s16le", "s16be")
    assert ["without loss" in note for note in notes] == [] if copied else [True]
    [stream] = probed(result, "a")
    assert stream["codec_name"] == (f"pcm_{kind}" if copied else "alac")
    assert stream["channels"] == 2
    with av.open(str(result)) as container:  # Of PCM, older ffprobe does not read it from MP4.
        assert container.streams.audio[0].layout.name == "stereo"


@pytest.mark.parametrize(("suffix", "channels", "kind"), PAIRWISE)
def test_pcm_of_any_number_of_channels_keeps_them(
    noise: Noise, tiny_weights: Path, channels: int, kind: str, suffix: str
) -> None:
    clip, expected = noise[suffix, channels, kind]
    assert expected.shape[1] == channels
    result, _ = result_of(clip, tiny_weights, overwrite=True)
    assert np.array_equal(heard(result, "s32le"), expected)


def test_more_channels_than_encoders_take_are_left_out_before_the_first_frame(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = tmp_path / "clip.mkv"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=s=128x96:r=25:d=0.4", "-f", "lavfi"),
        *("-i", f"aevalsrc={'|'.join(['0.1*sin(t)'] * 12)}:d=0.4", "-c:v", "mpeg4"),
        *("-c:a", "pcm_s24le", clip),
    )
    result, [note] = result_of(clip, tiny_weights)
    assert "was left out" in note
    assert "12 channels" in note
    assert probed(result, "a") == []


# Sound that is copied


COPIED = [
    ("aac", "ts"),
    ("aac", "mkv"),
    ("alac", "mov"),
    ("flac", "mkv"),
    ("libopus", "mkv"),
    ("libopus", "ts"),
    ("ac3", "mkv"),
    ("eac3", "ts"),
    ("dca", "mkv"),
    ("libmp3lame", "mkv"),
    ("mp2", "mkv"),
]


@pytest.mark.parametrize(("codec", "suffix"), COPIED)
def test_sound_that_mp4_can_carry_is_copied(
    tmp_path: Path, tiny_weights: Path, codec: str, suffix: str
) -> None:
    clip = clip_with_sound(tmp_path / f"clip.{suffix}", codec)
    result, notes = result_of(clip, tiny_weights)
    assert notes == []
    [before], [after] = probed(clip, "a"), probed(result, "a")
    # One name stands for all layers of MPEG audio in MP4.
    names = {"mp2": ("mp2", "mp3")}.get(before["codec_name"], (before["codec_name"],))
    assert after["codec_name"] in names
    assert len(click_seconds(heard(result), RATE)) == len(CLICK_SECONDS)


@pytest.mark.parametrize("codec", ["truehd", "mlp", "wavpack", "tta"])
def test_lossless_sound_that_players_do_not_read_in_mp4_keeps_its_samples(
    tmp_path: Path, tiny_weights: Path, codec: str
) -> None:
    clip = clip_with_sound(tmp_path / "clip.mkv", codec, sound="noise")
    result, [note] = result_of(clip, tiny_weights)
    assert "without loss" in note
    expected, found = heard(clip, "s32le"), heard(result, "s32le")
    # ffmpeg makes 32 bits of WavPack; 24 is what the note promises, and all that the others have.
    assert np.array_equal(found >> 8, expected[: len(found)] >> 8)
    assert codec == "wavpack" or np.array_equal(found, expected[: len(found)])
    assert len(found) == pytest.approx(len(expected), abs=2100)
