"""Sound in the result: what a player hears of it, when, and what the user is told.

Clips are made, and results decoded, by the programs of FFmpeg, which are another version than the
one that the pipeline brings along. One program makes or plays many clips, and a clip has many
tracks: a program takes longer to start than to do that.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
CLICKS = "aevalsrc='if(lt(mod(t+0.25,0.5),0.002),0.9,0)':d={seconds}:s={rate}"
NOISE = "anoisesrc=d={seconds}:r={rate}:a=0.3:seed=3"
DARK = "color=c=0x202020:s=128x96:r=25:d={seconds}"
"""A picture in which nothing is found."""


@dataclass(frozen=True)
class Track:
    """A sound track to be recorded; source: in lavfi."""

    codec: str
    rate: int = RATE
    channels: int = 2
    source: str = CLICKS


@dataclass(frozen=True)
class Recording:
    """A clip to be made, by default of 1.6 s, whose sound tracks begin late."""

    path: Path
    tracks: Sequence[Track]
    seconds: float = 1.6
    late_seconds: float = 0.0


def record(*recordings: Recording) -> set[str]:
    """Make clips; returns the encoders that this ffmpeg lacks, whose tracks are left out."""
    missing = set[str]()
    while True:
        command = ("ffmpeg", "-v", "error", "-y", *_making(recordings, missing))
        done = subprocess.run(command, capture_output=True, check=False)
        unknown = re.search(r"Unknown encoder '(\w+)'", done.stderr.decode())
        if unknown is None:
            assert done.returncode == 0, done.stderr.decode()
            return missing
        missing.add(unknown[1])


def _making(recordings: Sequence[Recording], missing: set[str]) -> list[str]:
    inputs: dict[tuple[object, ...], int] = {}

    def number(source: str, late_seconds: float) -> int:
        words = ("-itsoffset", late_seconds, "-f", "lavfi", "-i", source)
        return inputs.setdefault(words, len(inputs))

    outputs: list[object] = []
    for clip in recordings:
        picture = DARK.format(seconds=clip.seconds + clip.late_seconds)
        codec = {".ogg": "theora", ".flv": "flv"}.get(clip.path.suffix, "mpeg4")
        outputs += ["-map", number(picture, 0), "-c:v", codec]
        for place, track in enumerate(t for t in clip.tracks if t.codec not in missing):
            source = track.source.format(seconds=clip.seconds, rate=track.rate)
            outputs += ["-map", number(source, clip.late_seconds), f"-c:a:{place}", track.codec]
            outputs += [f"-ac:a:{place}", track.channels, f"-ar:a:{place}", track.rate]
        outputs += ["-strict", "experimental", clip.path]
    return [str(word) for words in inputs for word in words] + [str(word) for word in outputs]


@dataclass(frozen=True)
class Heard:
    """What a player that starts at 0 finds of a track: what it is, and samples (N, channels)."""

    codec: str
    rate: int
    samples: NDArray[Any]


def heard(*paths: Path, sample_format: str = "f32le") -> list[list[Heard]]:
    """All sound tracks of each of these clips."""
    numbers = [len(sound_streams(path)) for path in paths]
    words: list[object] = [word for path in paths for word in ("-i", path)]
    for place, (path, number) in enumerate(zip(paths, numbers, strict=True)):
        words += ["-map", f"{place}:a", "-c", "copy", "-frames:a", 1]
        words += ["-f", "framehash", "-hash", "adler32", _beside(path, "tracks")]
        for track in range(number):
            words += ["-map", f"{place}:a:{track}", "-af", "aresample=async=1:first_pts=0"]
            words += ["-c:a", f"pcm_{sample_format}", "-f", "wav", _beside(path, track)]
    ffmpeg(*words)
    found = []
    for path, number in zip(paths, numbers, strict=True):
        header = _beside(path, "tracks").read_text()
        codecs = re.findall(r"^#codec_id \d+: (\w+)$", header, re.MULTILINE)
        rates = map(int, re.findall(r"^#sample_rate \d+: (\d+)$", header, re.MULTILINE))
        samples = [samples_of(_beside(path, track), sample_format) for track in range(number)]
        found.append([Heard(*of) for of in zip(codecs, rates, samples, strict=True)])
    return found


def _beside(path: Path, name: object) -> Path:
    return path.with_name(f"{path.name}.{name}")


def sound_streams(path: Path) -> list[int]:
    """Their places in a clip."""
    with av.open(str(path)) as container:
        return [stream.index for stream in container.streams.audio]


def samples_of(wav: Path, sample_format: str) -> NDArray[Any]:
    """(samples, channels)."""
    content = wav.read_bytes()
    num_channels, samples_at = int.from_bytes(content[22:24], "little"), content.index(b"data") + 8
    dtype = {"f32le": "<f4", "s32le": "<i4"}[sample_format]
    return np.frombuffer(content, dtype, offset=samples_at).reshape(-1, num_channels)


def click_seconds(samples: Samples, rate: int) -> list[float]:
    """Where something is heard after silence."""
    loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.25)
    first = np.concatenate([[True], np.diff(loud) > 0.1 * rate])
    return [float(place) / rate for place in loud[first]]


@dataclass(frozen=True)
class Kept:
    """A track in the clip and in the result, and what the user is told of it."""

    source: Heard
    result: Heard
    notes: list[str]


class Sounds:
    """What becomes of tracks, by the name of their clip: each clip is one run."""

    def __init__(
        self,
        folder: Path,
        weights: Path,
        tracks: Mapping[str, Sequence[Track]],
        *,
        sample_format: str = "f32le",
        num_frames: int | None = None,
        **options: Any,
    ) -> None:
        """options: of the recordings."""
        clips = [folder / name.replace(".", "-") / name for name in tracks]
        for clip in clips:
            clip.parent.mkdir()
        missing = record(*(Recording(clip, tracks[clip.name], **options) for clip in clips))
        results = [result_of(clip, weights, num_frames=num_frames) for clip in clips]
        self.results = dict(zip(tracks, results, strict=True))
        found = heard(*clips, *(path for path, _ in results), sample_format=sample_format)
        self._kept: dict[tuple[str, Track], Kept] = {}
        for number, clip in enumerate(clips):
            there = [track for track in tracks[clip.name] if track.codec not in missing]
            before, after = found[number], found[len(clips) + number]
            streams = sound_streams(clip)
            for track, source, result, stream in zip(there, before, after, streams, strict=True):
                notes = [n for n in results[number][1] if n.startswith(f"stream {stream} (")]
                self._kept[clip.name, track] = Kept(source, result, notes)

    def of(self, name: str, track: Track) -> Kept:
        if (name, track) not in self._kept:
            pytest.skip(f"this ffmpeg lacks an encoder: {track.codec}")
        return self._kept[name, track]


def name_of(value: str | Track) -> str:
    return value if isinstance(value, str) else value.codec


def by_clip(cases: Iterable[tuple[str, Track]]) -> dict[str, list[Track]]:
    tracks: dict[str, list[Track]] = {}
    for name, track in cases:
        tracks.setdefault(name, []).append(track)
    return tracks


# Sound that MP4 cannot carry


ENCODED_TO_AAC = [
    ("clip.asf", Track("wmav2")),
    ("wma.mkv", Track("wmav1", 44100, 1)),  # It begins before 0, and with it all of its clip.
    ("clip.avi", Track("adpcm_ms", 44100)),
    ("clip.mkv", Track("adpcm_ima_wav", 22050, 1)),
    ("clip.mov", Track("adpcm_ima_qt")),
    ("clip.avi", Track("pcm_alaw", 8000, 1)),
    ("clip.mov", Track("pcm_mulaw", 8000, 1)),
    ("clip.mkv", Track("pcm_mulaw", 16000)),
    ("clip.mkv", Track("libvorbis")),
    ("clip.ogg", Track("libvorbis", 44100)),
    ("clip.flv", Track("nellymoser", 22050, 1)),
    ("clip.mkv", Track("g726", 8000, 1)),
    ("clip.ogg", Track("libspeex", 16000, 1)),
]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Sounds:
    return Sounds(tmp_path_factory.mktemp("encoded"), tiny_weights, by_clip(ENCODED_TO_AAC))


@pytest.mark.parametrize(("name", "track"), ENCODED_TO_AAC, ids=name_of)
def test_sound_that_mp4_cannot_carry_is_encoded_in_step(
    encoded: Sounds, name: str, track: Track
) -> None:
    kept = encoded.of(name, track)
    assert (kept.result.codec, kept.result.rate) == ("aac", track.rate)
    assert kept.result.samples.shape[1] == track.channels
    [note] = kept.notes
    assert "was encoded to AAC" in note
    assert track.codec.removeprefix("lib") in note
    # Not what the other FFmpeg hears of the clip, which plays the priming of WMA.
    found = kept.result.samples
    assert click_seconds(found, track.rate) == pytest.approx(CLICK_SECONDS, abs=0.006)
    assert len(found) == pytest.approx(len(kept.source.samples), abs=2100)


def test_of_sound_that_is_encoded_nothing_else_is_said(encoded: Sounds) -> None:
    for name, tracks in by_clip(ENCODED_TO_AAC).items():
        assert len(encoded.results[name][1]) <= len(tracks)


LATE = [
    ("clip.mkv", Track("pcm_alaw")),
    ("clip.mov", Track("adpcm_ima_qt")),
    ("clip.mkv", Track("libvorbis")),
]


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Sounds:
    folder = tmp_path_factory.mktemp("late")
    return Sounds(folder, tiny_weights, by_clip(LATE), late_seconds=0.5)


@pytest.mark.parametrize(("name", "track"), LATE, ids=name_of)
def test_encoded_sound_that_begins_late_begins_as_late(
    late: Sounds, name: str, track: Track
) -> None:
    kept = late.of(name, track)
    expected = [0.5 + seconds for seconds in CLICK_SECONDS]
    assert click_seconds(kept.result.samples, RATE) == pytest.approx(expected, abs=0.004)
    assert len(kept.result.samples) == pytest.approx(len(kept.source.samples), abs=2100)


def tones(channels: int, layout: str) -> str:
    """In each channel another one."""
    waves = "|".join(f"0.5*sin({300 + 200 * n}*2*PI*t)" for n in range(channels))
    return f"aevalsrc={waves}:d={{seconds}}:s={{rate}}:c={layout}"


OTHER_RATES = [Track("pcm_alaw", rate) for rate in (5512, 37800, 192000)]
IN_TONES = [
    Track("libvorbis", channels=1, source=tones(1, "mono")),
    Track("libvorbis", channels=2, source=tones(2, "stereo")),
    Track("pcm_alaw", channels=6, source=tones(6, "5.1")),
]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Sounds:
    tracks = {"clip.mkv": [*OTHER_RATES, *IN_TONES]}
    return Sounds(tmp_path_factory.mktemp("other"), tiny_weights, tracks)


@pytest.mark.parametrize("track", OTHER_RATES, ids=lambda track: str(track.rate))
def test_a_rate_that_aac_does_not_have_is_changed_in_step(other: Sounds, track: Track) -> None:
    sound = other.of("clip.mkv", track).result
    places = click_seconds(sound.samples, sound.rate)
    assert places == pytest.approx(CLICK_SECONDS, abs=0.004)


@pytest.mark.parametrize("track", IN_TONES, ids=lambda track: str(track.channels))
def test_encoded_sound_keeps_its_channels_apart(other: Sounds, track: Track) -> None:
    """In each channel there is another tone."""
    found = other.of("clip.mkv", track).result.samples[4800:52800]
    assert found.shape[1] == track.channels
    spectrum = np.abs(np.fft.rfft(found, axis=0))
    wanted = [300 + 200 * n for n in range(track.channels)]
    if track.channels == 6:
        wanted.pop(3)  # What a low-frequency channel cannot play.
        spectrum = np.delete(spectrum, 3, axis=1)
    assert [int(peak) for peak in spectrum.argmax(axis=0)] == wanted


def test_a_gap_in_the_sound_is_as_long_afterwards(tmp_path: Path, tiny_weights: Path) -> None:
    """Of three seconds, the packets of the second one are missing."""
    whole, clip = tmp_path / "whole.mkv", tmp_path / "clip.mkv"
    record(Recording(whole, [Track("pcm_alaw")], seconds=3.2))
    drop = "noise=drop='between(pts*tb,1,1.99)'"
    ffmpeg("-i", whole, "-c", "copy", "-map", "0", "-bsf:a", drop, clip)
    result, _ = result_of(clip, tiny_weights)
    [[sound]] = heard(result)
    expected = [0.25, 0.75, 2.25, 2.75]
    assert click_seconds(sound.samples, RATE) == pytest.approx(expected, abs=0.004)


def test_a_sound_packet_that_is_damaged_costs_itself_alone(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clips = [tmp_path / "whole" / "clip.mkv", tmp_path / "clip.mkv"]
    clips[0].parent.mkdir()
    if record(Recording(clips[0], [Track("libvorbis", source=NOISE)])):
        pytest.skip("this ffmpeg lacks an encoder: libvorbis")
    damage = "noise=amount='if(eq(n,30),1,0)'"
    ffmpeg("-i", clips[0], "-c", "copy", "-map", "0", "-bsf:a", damage, clips[1])
    [[first], [second]] = heard(*(result_of(clip, tiny_weights)[0] for clip in clips))
    whole, found = first.samples, second.samples
    assert len(found) == pytest.approx(len(whole), abs=2100)
    same = np.abs(found[: len(whole)] - whole[: len(found)]).max(axis=1) < 0.05
    assert same[: RATE // 4].all()
    assert not same[RATE // 2 : RATE].all()
    # Encoded anew, noise differs here and there; of a sample earlier or later, all of it.
    assert same[RATE:-2100].mean() > 0.9


FIRST = [Track("pcm_alaw"), Track("pcm_s24le"), Track("libvorbis")]


@pytest.fixture(scope="module")
def first_frames(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Sounds:
    folder = tmp_path_factory.mktemp("first")
    return Sounds(folder, tiny_weights, {"clip.mkv": FIRST}, num_frames=20)


@pytest.mark.parametrize("track", FIRST, ids=lambda track: track.codec)
def test_of_the_first_frames_only_encoded_sound_ends_with_the_picture(
    first_frames: Sounds, track: Track
) -> None:
    found = first_frames.of("clip.mkv", track).result.samples
    assert len(found) / RATE == pytest.approx(0.8, abs=0.025)
    assert click_seconds(found, RATE) == pytest.approx(CLICK_SECONDS[:2], abs=0.004)


# PCM


PCM = ["s16le", "s16be", "s24le", "s24be", "s32le", "f32le", "f64le", "u8", "u16le"]
CONTAINERS = ["mkv", "nut", "avi", "mov"]
NOT_THERE = {
    *(("s16be", "avi"), ("s24be", "avi"), ("u16le", "avi"), ("u16le", "mkv"), ("u16le", "mov")),
    *(("s24be", "mkv"),),
}
OF_EVERY_KIND = [
    (suffix, kind) for suffix in CONTAINERS for kind in PCM if (kind, suffix) not in NOT_THERE
]
PAIRWISE = [
    (suffix, channels, ("s16le", "s24le")[(row + column) % 2])
    for row, suffix in enumerate(CONTAINERS)
    for column, channels in enumerate((1, 2, 4, 6, 8))
]
"""Each container with each number of channels, and both kinds of samples with each of these."""


def pcm(kind: str, channels: int = 2) -> Track:
    return Track(f"pcm_{kind}", channels=channels, source=NOISE)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Sounds:
    cases = dict.fromkeys((f"clip.{suffix}", pcm(kind)) for suffix, kind in OF_EVERY_KIND)
    cases |= dict.fromkeys((f"clip.{suffix}", pcm(kind, n)) for suffix, n, kind in PAIRWISE)
    folder = tmp_path_factory.mktemp("noise")
    return Sounds(folder, tiny_weights, by_clip(cases), sample_format="s32le", seconds=0.6)


@pytest.mark.parametrize(("suffix", "kind"), OF_EVERY_KIND)
def test_pcm_keeps_its_samples(noise: Sounds, kind: str, suffix: str) -> None:
    kept = noise.of(f"clip.{suffix}", pcm(kind))
    expected, found = kept.source.samples, kept.result.samples
    assert found.shape == expected.shape
    if kind in ("s32le", "f32le", "f64le"):
        assert np.abs(found.astype(np.int64) - expected).max() <= 256  # 24 bits are kept.
    else:
        assert np.array_equal(found, expected)
    copied = kind in ("s16le", "s16be")
    assert ["without loss" in note for note in kept.notes] == ([] if copied else [True])
    assert kept.result.codec == (f"pcm_{kind}" if copied else "alac")


@pytest.mark.parametrize(("suffix", "channels", "kind"), PAIRWISE)
def test_pcm_of_any_number_of_channels_keeps_them(
    noise: Sounds, channels: int, kind: str, suffix: str
) -> None:
    kept = noise.of(f"clip.{suffix}", pcm(kind, channels))
    assert kept.source.samples.shape[1] == channels
    assert np.array_equal(kept.result.samples, kept.source.samples)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_pcm_of_two_channels_is_stereo(noise: Sounds, suffix: str) -> None:
    with av.open(str(noise.results[f"clip.{suffix}"][0])) as container:
        layouts = [stream.layout for stream in container.streams.audio]
    assert {layout.name for layout in layouts if layout.nb_channels == 2} == {"stereo"}


def test_more_channels_than_encoders_take_are_left_out_before_the_first_frame(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = tmp_path / "clip.mkv"
    source = f"aevalsrc={'|'.join(['0.1*sin(t)'] * 12)}:d={{seconds}}:s={{rate}}"
    record(Recording(clip, [Track("pcm_s24le", channels=12, source=source)], seconds=0.4))
    result, [note] = result_of(clip, tiny_weights)
    assert "was left out" in note
    assert "12 channels" in note
    assert probed(result, "a") == []


# Sound that is copied


COPIED = [
    ("clip.ts", Track("aac")),
    ("clip.mkv", Track("aac")),
    ("clip.mov", Track("alac")),
    ("clip.mkv", Track("flac")),
    ("clip.mkv", Track("libopus")),
    ("clip.ts", Track("libopus")),
    ("clip.mkv", Track("ac3")),
    ("clip.ts", Track("eac3")),
    ("clip.mkv", Track("dca")),
    ("clip.mkv", Track("libmp3lame")),
    ("clip.mkv", Track("mp2")),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Sounds:
    return Sounds(tmp_path_factory.mktemp("copied"), tiny_weights, by_clip(COPIED))


@pytest.mark.parametrize(("name", "track"), COPIED, ids=name_of)
def test_sound_that_mp4_can_carry_is_copied(copied: Sounds, name: str, track: Track) -> None:
    assert copied.results[name][1] == []
    kept = copied.of(name, track)
    # One name stands for all layers of MPEG audio in MP4.
    names = {"mp2": ("mp2", "mp3")}.get(kept.source.codec, (kept.source.codec,))
    assert kept.result.codec in names
    assert len(click_seconds(kept.result.samples, RATE)) == len(CLICK_SECONDS)


LOSSLESS = [Track(codec, source=NOISE) for codec in ("truehd", "mlp", "wavpack", "tta")]


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Sounds:
    folder = tmp_path_factory.mktemp("lossless")
    return Sounds(folder, tiny_weights, {"clip.mkv": LOSSLESS}, sample_format="s32le")


@pytest.mark.parametrize("track", LOSSLESS, ids=lambda track: track.codec)
def test_lossless_sound_that_players_do_not_read_in_mp4_keeps_its_samples(
    lossless: Sounds, track: Track
) -> None:
    kept = lossless.of("clip.mkv", track)
    [note] = kept.notes
    assert "without loss" in note
    expected, found = kept.source.samples, kept.result.samples
    # ffmpeg makes 32 bits of WavPack; 24 is what the note promises, and all that the others have.
    assert np.array_equal(found >> 8, expected[: len(found)] >> 8)
    assert track.codec == "wavpack" or np.array_equal(found, expected[: len(found)])
    assert len(found) == pytest.approx(len(expected), abs=2100)
