"""Clips of every kind that FFmpeg makes come out as its own player shows them."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest

from pipeline.core.machine import available_cores
from pipeline.inference.models import Models
from tests.conformance.clips import Recipe, all_recipes
from tests.conformance.conftest import Table
from tests.conformance.verdict import Verdict, judge

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")),
    reason="needs the programs ffmpeg and ffprobe",
)
_SAMPLE = 12


def judge_all(recipes: list[Recipe], weights: Path) -> list[Verdict]:
    """In processes of their own, one a core."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(available_cores(), mp_context=context) as workers:
        return list(workers.map(partial(judge, weights=weights), recipes, chunksize=4))


def wrong_ones(verdicts: list[Verdict]) -> str:
    return "\n".join(f"{v.recipe.name}: {v.reason}" for v in verdicts if v.outcome == "wrong")


_FAMILIES = {
    family: list(of_it) for family, of_it in groupby(all_recipes(), key=lambda r: r.family)
}


@needs_ffmpeg
@pytest.mark.conformance
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", _FAMILIES)
def test_every_clip_is_shown_as_ffmpeg_shows_it(
    family: str, tiny_weights: Path, conformance_table: Table
) -> None:
    verdicts = judge_all(_FAMILIES[family], tiny_weights)
    conformance_table.add(family, verdicts)
    assert not wrong_ones(verdicts), wrong_ones(verdicts)


@needs_ffmpeg
@pytest.mark.slow
def test_a_sample_of_the_clips_is_shown_as_ffmpeg_shows_them(tiny_weights: Path) -> None:
    ranked = sorted(all_recipes(), key=lambda r: hashlib.sha256(r.name.encode()).digest())
    with Models() as models:
        verdicts = [judge(recipe, tiny_weights, models) for recipe in ranked[:_SAMPLE]]
    assert not wrong_ones(verdicts), wrong_ones(verdicts)
    assert sum(v.outcome in ("right", "warned") for v in verdicts) >= _SAMPLE // 3
