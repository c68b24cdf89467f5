"""The study of many nodes: the same tables each time, and sums that can be checked by hand."""

from __future__ import annotations

import pytest
from simulate_cluster import Measured, archive, study, table, works_with_spread

from pipeline.measure.sizing import Costs, JobOptions

# 100 frames per second for an actor of four cores, and no costs beside the frames.
FREE = Measured(Costs(), 25.0, (1.0,))


def test_one_node_works_all_the_time_on_one_clip() -> None:
    found = study(FREE, archive(1, 3600), 1, seed=0)
    # Sixty segments of 1500 frames, 15 seconds each, on four actors.
    assert found.schedule.wall_seconds == pytest.approx(15 * 15)
    assert found.schedule.utilisation == pytest.approx(1)


def test_nodes_for_which_there_are_no_segments_do_not_help() -> None:
    clips = archive(4, 3600)
    in_turn = study(FREE, clips, 100, seed=0)
    assert in_turn.schedule.wall_seconds == pytest.approx(4 * 15)
    assert study(FREE, clips, 100, seed=0, clips_at_once=4).schedule.wall_seconds == pytest.approx(
        15
    )


def test_segments_are_spread_as_they_were_measured_and_the_same_for_a_seed() -> None:
    measured = Measured(Costs(), 25.0, (0.5, 1.5))
    options = JobOptions(fps_per_core=25.0, cores=16)
    drawn = [works_with_spread(measured, archive(3, 3600), options, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    seconds = [s for work in drawn[0] for s in work.segment_seconds]
    assert set(seconds) == {7.5, 22.5}


def test_a_table_is_markdown_with_a_row_for_every_job() -> None:
    found = study(FREE, archive(4, 3600), 1, seed=0)
    head, rule, row = table(("nodes",), [((1,), found)])
    assert len({line.count("|") for line in (head, rule, row)}) == 1
    # 3.6 GB, read three times and written three times in a quarter of an hour.
    assert row.startswith("| 1 | 4 | 15.0 | 100% |")
    assert row.endswith("| 0.01 | 0.01 |")
