"""The two tasks that every library is given."""

import time


def noop(x):
    """Nothing."""
    return x


def spin(x):
    """One millisecond of CPU, whoever else wants the core."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass
    return x


TASKS = {"noop": noop, "spin": spin}
