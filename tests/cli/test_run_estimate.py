"""How much of a run is done and what is left of it, by a clock that is set by hand."""

import pytest

from normalisr_dask.cli.run_estimate import RunEstimate
from normalisr_dask.planning import StagePlan


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stage(name: str, seconds: float) -> StagePlan:
    return StagePlan(name, 10, 1, 1, 1, seconds, "")


PLAN = [stage("qc", 1.0), stage("de", 3.0), stage("coex", 6.0)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def estimate(clock: Clock) -> RunEstimate:
    return RunEstimate(clock)


def test_without_a_plan_nothing_is_told(estimate: RunEstimate, clock: Clock) -> None:
    estimate.start("report")
    clock.now += 60
    estimate.advance(0.5)
    assert estimate.share is None
    assert estimate.seconds_left is None


def test_stages_weigh_what_was_planned_and_last_at_the_pace_of_the_run(estimate: RunEstimate, clock: Clock) -> None:
    estimate.plan(PLAN, [])
    assert estimate.share == 0
    estimate.start("qc")
    clock.now += 20
    estimate.finish("qc")
    assert estimate.share == pytest.approx(0.1)
    assert estimate.seconds_left == pytest.approx(20 * 9)
    estimate.start("de")
    assert estimate.seconds_left == pytest.approx(20 * 9)


def test_a_stage_lasts_at_its_own_pace_once_it_has_one(estimate: RunEstimate, clock: Clock) -> None:
    estimate.plan(PLAN, [])
    estimate.start("de")
    clock.now += 30
    estimate.advance(0.05)
    assert estimate.seconds_left == pytest.approx(200 * (0.95 * 3 + 1 + 6))
    clock.now += 30
    estimate.advance(0.5)
    assert estimate.share == pytest.approx(0.15)
    assert estimate.seconds_left == pytest.approx(60 + 40 * (1 + 6))


def test_nothing_is_told_before_there_is_something_to_tell_it_from(estimate: RunEstimate, clock: Clock) -> None:
    estimate.plan(PLAN, [])
    estimate.start("qc")
    estimate.advance(0.5)
    clock.now += 4.9
    assert estimate.seconds_left is None  # too short
    estimate.advance(0.0)
    clock.now += 60
    assert estimate.seconds_left is None  # nothing done
    estimate.advance(0.2)
    assert estimate.seconds_left is not None


def test_what_an_earlier_run_has_done_counts_as_done_and_gives_no_pace(estimate: RunEstimate, clock: Clock) -> None:
    estimate.plan(PLAN, ["qc"])
    estimate.finish("qc")
    assert estimate.share == pytest.approx(0.1)
    estimate.start("de")
    estimate.stand(0.5)
    assert estimate.share == pytest.approx(0.25)
    clock.now += 60
    assert estimate.seconds_left is None
    estimate.advance(0.25)  # a quarter of its tasks: half of those that were left
    assert estimate.share == pytest.approx(0.325)
    assert estimate.seconds_left == pytest.approx(60 + 60 / 0.75 * 6)
    estimate.finish("de")
    assert estimate.seconds_left == pytest.approx(60 / 1.5 * 6)


def test_a_stage_is_whole_only_at_its_end(estimate: RunEstimate, clock: Clock) -> None:
    """The number of its tasks is an estimate."""
    estimate.plan(PLAN, [])
    estimate.start("coex")
    clock.now += 60
    estimate.advance(1.3)
    assert estimate.stage_share == pytest.approx(0.99)
    assert estimate.share < 0.6


def test_a_stage_that_is_made_again_is_not_done(estimate: RunEstimate) -> None:
    estimate.plan(PLAN, ["qc", "de", "coex"])
    assert estimate.share == 1.0
    estimate.start("coex")
    assert estimate.share == pytest.approx(0.4)


def test_a_plan_may_become_better_known(estimate: RunEstimate, clock: Clock) -> None:
    estimate.plan(PLAN, [])
    estimate.start("qc")
    clock.now += 10
    estimate.finish("qc")
    estimate.plan([*PLAN[:2], stage("coex", 1.0)], ["qc"])
    assert estimate.share == pytest.approx(0.2)
    assert estimate.seconds_left == pytest.approx(40)
