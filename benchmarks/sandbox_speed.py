"""Programs judged a second: warm jails, against a fresh jail for each. Prints JSON.

Each program is distinct, is compiled, and answers three tests. The median of several rounds.
"""

import json
import os
import statistics
import sys
import time

from pellucid.sandbox import Job, Outcome, Sandbox, judge, take_apart, why_missing
from pellucid.sandbox.jail import Jail
from pellucid.sandbox.records import Limits

ROUNDS, PROGRAMS, FRESH = 5, 400, 20
PROGRAM = """
import re
from collections import Counter

def most_common_words(text, n, salt={salt}):
    words = re.findall(r"[a-z]+", text.lower())
    return sorted(Counter(words).most_common(n), key=lambda pair: (-pair[1], pair[0]))
"""
TESTS = (
    "assert most_common_words('a b a', 1) == [('a', 2)]",
    "assert most_common_words('', 3) == []",
    "assert most_common_words('x y z x y x', 2) == [('x', 3), ('y', 2)]",
)


def main() -> None:
    if why := why_missing():
        sys.exit(f"not run: {why}")
    plan = take_apart(TESTS)
    rates = []
    with Sandbox() as sandbox:
        for round_ in range(ROUNDS + 1):
            programs = [PROGRAM.format(salt=round_ * PROGRAMS + i) for i in range(PROGRAMS)]
            start = time.perf_counter()
            got = sandbox.map(lambda program: judge(sandbox, program, plan), programs)
            rates.append(PROGRAMS / (time.perf_counter() - start))
            assert all(one.outcome is Outcome.PASSED for one in got)
    start = time.perf_counter()
    for i in range(FRESH):
        with Jail() as jail:
            jail.run(Job(code=PROGRAM.format(salt=i)), Limits())
    fresh = FRESH / (time.perf_counter() - start)
    warm = rates[1:]  # the first round starts the jails
    report = {
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "programs_per_s": {
            "median": round(statistics.median(warm), 1),
            "rounds": [round(rate, 1) for rate in warm],
        },
        "one_jail_per_program_one_core_per_s": round(fresh, 1),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
