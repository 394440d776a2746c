"""A queue of tasks and workers that take from it: a small grid, evaluated in parallel.

python examples/queue_tasks.py
"""

from rushlight import Rush


def measure(worker):
    """Take tasks from the queue until told to leave; results are dicts, an entry for each column."""
    while not worker.terminated:
        task = worker.pop_task(timeout=1)
        if task is not None:
            worker.finish_task(task.key, {"area": task.xs["width"] * task.xs["height"]})


def main():
    """Queue twenty rectangles, wait for all of them, print the largest."""
    with Rush() as rush:
        rush.start_workers(measure, n_workers=2)
        keys = rush.push_tasks([{"width": w, "height": h} for w in range(1, 6) for h in range(1, 5)])
        result = rush.wait_for_tasks(keys, timeout=60)
        print(f"{len(result.done)} done, {len(result.failed)} failed, {len(result.pending)} pending")
        table = rush.fetch_finished_tasks()
        print(table.select("width", "height", "area").sort("area", descending=True).head(5))
        rush.reset()


if __name__ == "__main__":
    main()
