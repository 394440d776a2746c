"""Living through many histories of a machine: the same ones each time, or others for as long as one likes."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test

#: How many histories the long tests live through, and how many steps each has at most. Others every time;
#: ``--hypothesis-seed=N`` has those of a seed again.
HISTORIES = int(os.environ.get("RUSHLIGHT_HISTORIES", "300"))
STEPS = int(os.environ.get("RUSHLIGHT_STEPS", "100"))
#: Seconds for all of them, many times what they need.
LONGEST = 600 + 10 * HISTORIES


class Machine(RuleBasedStateMachine):
    """A machine that counts how much it has lived through."""

    histories: ClassVar[int] = 0
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).histories += 1
        # The look before the first step is none.
        type(self).steps -= 1

    @invariant()
    def step_is_counted(self) -> None:
        type(self).steps += 1


def live_through(machine: type[Machine], histories: int, steps: int, **kwargs: Any) -> None:
    """Runs histories of a machine and prints how many; the shortest that goes wrong is told step by step."""
    machine.histories = machine.steps = 0
    profile = settings(
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=True,
        max_examples=histories,
        stateful_step_count=steps,
        **kwargs,
    )
    run_state_machine_as_test(machine, settings=profile)
    print(f"{machine.__name__}: {machine.histories} histories, {machine.steps} steps")
