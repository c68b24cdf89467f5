"""Which clips files, folders and patterns name, and which folder the results of each go to."""

from __future__ import annotations

import itertools
import os
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch.clips import VIDEO_SUFFIXES, find_clips, names_many
from pipeline.core.errors import UsageError

OUT = Path("out")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make(*names: str) -> None:
    """Files that are looked for by name only."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def places(*inputs: str, out: Path = OUT) -> dict[str, str]:
    """Clip -> its folder below the output folder, in the order in which they are processed."""
    return {
        str(clip.path): str(clip.output_dir.relative_to(out)) for clip in find_clips(inputs, out)
    }


def test_files_folders_and_patterns_may_be_mixed_and_keep_their_order() -> None:
    make("z.mp4", "footage/b.mkv", "footage/a.mp4", "footage/cam/c.mov", "cams/1/x/d.mp4", "q.avi")
    assert list(places("z.mp4", "footage/", "cams/**/*.mp4", "q.avi")) == [
        "z.mp4",
        "footage/a.mp4",
        "footage/b.mkv",
        "footage/cam/c.mov",
        "cams/1/x/d.mp4",
        "q.avi",
    ]


def test_every_clip_has_a_folder_with_its_own_path() -> None:
    make("a.mp4", "a.mkv", "A/x.mp4", "B/x.mp4", "footage/cam 1/x.mp4")
    named = places("a.mp4", "a.mkv", "A/x.mp4", "B/x.mp4", "footage")
    assert all(path == place for path, place in named.items())
    assert len(named) == 5


def test_a_clip_elsewhere_has_the_path_from_the_named_folder_on(tmp_path: Path) -> None:
    elsewhere = tmp_path / "nas" / "footage"
    make(str(elsewhere / "cam" / "x.mp4"), str(elsewhere / "y.mp4"))
    for named in (str(elsewhere), f"{elsewhere}/**/*.mp4", "../nas/footage/"):
        assert sorted(places(named).values()) == ["footage/cam/x.mp4", "footage/y.mp4"]
    assert list(places(str(elsewhere / "y.mp4")).values()) == ["footage/y.mp4"]


def test_the_same_file_is_one_clip_however_often_and_by_whatever_name(here: Path) -> None:
    make("footage/a.mp4")
    Path("link.mp4").symlink_to("footage/a.mp4")
    names = ["footage/a.mp4", "./footage/../footage/a.mp4", str(here / "footage/a.mp4")]
    assert list(places(*names, "footage", "link.mp4", "f*/*.mp4")) == ["footage/a.mp4"]


def test_video_files_are_known_by_their_suffix_in_either_case() -> None:
    clips = [f"footage/clip{suffix}" for suffix in VIDEO_SUFFIXES]
    make(*clips, "footage/A.MP4", "footage/notes.txt", "footage/mp4", "footage/clip.mp4.part")
    assert list(places("footage")) == sorted([*clips, "footage/A.MP4"])
    assert list(places("footage/*")) == sorted([*clips, "footage/A.MP4"])


def test_hidden_files_and_folders_are_taken_only_if_named() -> None:
    make("footage/.a.mp4", "footage/.cache/b.mp4", "footage/c.mp4")
    for named in ("footage", "footage/**/*.mp4"):
        assert list(places(named)) == ["footage/c.mp4"]
    assert list(places("footage/.a.mp4", "footage/.cache", "footage/.*.mp4")) == [
        "footage/.a.mp4",
        "footage/.cache/b.mp4",
    ]


def test_results_are_no_footage() -> None:
    make(
        *("footage/a.mp4", "footage/annotated.mp4"),
        *("footage/old/annotated.mp4", "footage/old/report.json"),
        *("footage/old/.partial/making/0000.mp4",),
        *("footage/out/a.mp4/annotated.mp4", "footage/out/other.mp4"),
    )
    for named in ("footage", ".", "footage/**/*.mp4", "footage/*"):
        assert list(places(named, out=Path("footage/out"))) == [
            "footage/a.mp4",
            "footage/annotated.mp4",  # Of somebody else: there is no report beside it.
        ]


def test_an_output_folder_around_the_footage_hides_nothing() -> None:
    make("footage/a.mp4", "footage/cam/b.mp4")
    for out in (Path(), Path("footage")):
        assert len(places("footage", out=out)) == 2
        assert len(places("footage/**/*.mp4", out=out)) == 2


def test_folders_are_searched_through_links_and_each_once() -> None:
    make("footage/a.mp4", "elsewhere/b.mp4")
    Path("footage/linked").symlink_to(Path("elsewhere").resolve())
    Path("footage/around").symlink_to(Path("footage").resolve())
    assert list(places("footage")) == ["footage/a.mp4", "footage/linked/b.mp4"]


def test_a_name_with_brackets_is_a_file_if_there_is_one() -> None:
    make("clip[1].mp4", "clip1.mp4")
    assert not names_many("clip[1].mp4")
    assert list(places("clip[1].mp4")) == ["clip[1].mp4"]
    assert names_many("clip[12].mp4")
    assert list(places("clip[12].mp4")) == ["clip1.mp4"]


@pytest.mark.parametrize("named", ["empty", "empty/**/*.mp4", "nowhere/*.mp4"])
def test_what_names_no_clip_is_told_with_what_was_looked_for(named: str) -> None:
    make("empty/notes.txt", "a.mp4")
    with pytest.raises(UsageError) as caught:
        find_clips(["a.mp4", named], OUT)
    assert str(caught.value).startswith(f"{named}: ")
    assert ".mkv, .mov, .mp4" in str(caught.value)


def test_names_that_differ_in_case_only_have_folders_that_differ_in_more() -> None:
    make("footage/clip.mp4", "footage/Clip.mp4", "footage/CLIP.MP4", "Footage/clip.mp4")
    found = places("footage", "Footage")
    assert len({place.casefold() for place in found.values()}) == 4


def test_the_pages_of_the_batch_keep_their_names() -> None:
    assert set(places("batch.json", "Batch.HTML").values()).isdisjoint({"batch.json", "Batch.HTML"})


parts = st.sampled_from(["a", "A", "b", "a.mp4", "A.mp4", "é", "e\u0301", "batch.json", "ß", "ss"])
paths = st.lists(parts, min_size=1, max_size=4).map(lambda found: str(PurePath(*found)))


@given(st.lists(paths, min_size=1, max_size=12, unique=True))
def test_no_folder_is_another_or_inside_another_also_where_case_does_not_count(
    names: list[str],
) -> None:
    folded = [PurePath(place.casefold()) for place in places(*names).values()]
    assert len(folded) == len({os.path.realpath(name) for name in names})
    for a, b in itertools.combinations(folded, 2):
        assert not a.is_relative_to(b)
        assert not b.is_relative_to(a)


lower = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(
    lambda found: str(PurePath(*found, "clip.mp4"))
)


@given(st.lists(lower, min_size=1, max_size=8, unique=True), st.data())
def test_a_clip_keeps_its_folder_when_others_are_added_or_come_in_another_order(
    names: list[str], data: st.DataObject
) -> None:
    all_places = places(*data.draw(st.permutations(names)))
    some = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    assert places(*some).items() <= all_places.items()


@given(st.lists(paths, min_size=1, max_size=8, unique=True), st.data())
def test_the_order_of_the_inputs_decides_no_folder(names: list[str], data: st.DataObject) -> None:
    assert places(*data.draw(st.permutations(names))) == places(*names)


def test_an_empty_name_is_no_clip() -> None:
    make("a.mp4")
    with pytest.raises(UsageError, match="an input is an empty name"):
        find_clips([""], Path("out"))


def test_a_link_does_not_take_the_place_of_the_file_itself() -> None:
    make("in/one.mp4")
    Path("in/link.mp4").symlink_to("one.mp4")
    assert [clip.output_dir for clip in find_clips(["in"], Path("out"))] == [Path("out/in/one.mp4")]
