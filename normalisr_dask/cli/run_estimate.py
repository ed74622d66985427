"""How much of a run is done, and about how long the rest will take."""

import time
from collections.abc import Callable, Collection, Sequence

from normalisr_dask.planning import StagePlan

#: A run has to have gone on so long, and to have done this share of its work, before it is told what is left.
FIRST_SECONDS, FIRST_SHARE = 5.0, 0.01
#: The number of tasks of a stage is an estimate, so that its end alone makes it whole.
MOST_OF_A_STAGE = 0.99
#: From this share of a stage on, its own pace tells when it ends.
SHARE_WITH_A_PACE = 0.1


class RunEstimate:
    """Share of a run that is done, and time that is left.

    Every stage weighs as many seconds as were planned for it, of which the ratios alone matter: the pace is what the
    stages have taken so far over what was planned for them. What an earlier run has done counts as done and gives no
    pace.

    Parameters
    ----------
    clock
        Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._planned: dict[str, float] = {}
        self._done: set[str] = set()
        self._spent = self._worth = 0.0  # seconds that finished stages took, and were planned for
        self._current: str | None = None
        self._began, self._stands, self._share_now = 0.0, 0.0, 0.0

    def plan(self, stages: Sequence[StagePlan], done: Collection[str]) -> None:
        """Take the stages of a run, and which of them are done."""
        self._planned = {stage.name: stage.seconds for stage in stages}
        self._done |= set(done)

    def start(self, stage: str) -> None:
        """Begin with a stage."""
        self._done.discard(stage)
        self._current, self._began, self._stands, self._share_now = stage, self._clock(), 0.0, 0.0

    def stand(self, share: float) -> None:
        """Take it that a share of the current stage was done before."""
        self._stands = min(share, 1.0)

    def advance(self, share: float) -> None:
        """Take it that a share of the current stage has been done now, beside what was done before."""
        self._share_now = max(0.0, min(share, MOST_OF_A_STAGE - self._stands))

    def finish(self, stage: str) -> None:
        """End a stage."""
        if stage == self._current:
            if stage in self._planned:
                self._spent += self._clock() - self._began
                self._worth += (1.0 - self._stands) * self._planned[stage]
            self._current = None
        self._done.add(stage)

    @property
    def stage_share(self) -> float:
        """Share of the current stage that is done; 0 between stages."""
        return 0.0 if self._current is None else self._stands + self._share_now

    @property
    def share(self) -> float | None:
        """Share of the run that is done; None while no plan is known."""
        whole = sum(self._planned.values())
        return max(0.0, 1.0 - self._left() / whole) if whole else None

    @property
    def seconds_left(self) -> float | None:
        """Time until the end of the run, about; None as long as there is nothing to tell it from."""
        whole, planned = sum(self._planned.values()), self._planned.get(self._current or "", 0.0)
        elapsed = self._clock() - self._began if planned else 0.0
        spent, worth = self._spent + elapsed, self._worth + self._share_now * planned
        if spent < FIRST_SECONDS or worth <= FIRST_SHARE * whole:
            return None
        pace = spent / worth
        of_stage = (1.0 - self.stage_share) * planned
        if planned and self._share_now >= SHARE_WITH_A_PACE:
            return (1.0 - self.stage_share) * elapsed / self._share_now + (self._left() - of_stage) * pace
        return self._left() * pace

    def _left(self) -> float:
        """Return the seconds that were planned for what is not done."""
        left = sum(seconds for name, seconds in self._planned.items() if name not in self._done)
        return left - self.stage_share * self._planned.get(self._current or "", 0.0)
