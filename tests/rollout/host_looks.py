"""What the host does between two chunks of the device's loop, for tests on a CPU and on a GPU."""

from pellucid.rollout.resident import ResidentRollout

LOOK, RECORD, WAIT = "look", "record", "wait"


def watch_looks(monkeypatch, trace: list[tuple]) -> None:
    """Writes (LOOK, counts, steps to come) where the host decides how many steps to start."""
    chunk = ResidentRollout._chunk

    def watched(rollout, look):
        steps = chunk(rollout, look)
        trace.append((LOOK, look.counts, steps))
        return steps

    monkeypatch.setattr(ResidentRollout, "_chunk", watched)


def waits(trace: list[tuple]) -> list[tuple[bool, bool, bool]]:
    """For each wait for an event: whether it is the one recorded last, behind the chunk in flight;
    whether nothing was left to start; and whether samples were waiting. The trace has (RECORD,
    event) and (WAIT, event), too."""
    found = []
    newest = counts = steps = None
    for what, *of in trace:
        if what == LOOK:
            counts, steps = of
        elif what == RECORD:
            (newest,) = of
        elif what == WAIT:
            found.append((of == [newest], steps == 0, counts.is_waiting))
    return found
