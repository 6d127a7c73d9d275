"""A verdict is a function of one record: neither order nor what was graded before changes it."""

import random

from pellucid.evidence.core.grade import BY_ANSWER, BY_RESPONSE, Regrader
from pellucid.rewards.vectors import load_vectors


def test_graders_give_every_response_the_verdict_that_it_gets_alone():
    """All vectors of all graders that need no package, three times through one regrader."""
    known = {*BY_ANSWER, *BY_RESPONSE}
    vectors = [v for v in load_vectors() if v.grader in known]
    alone = [Regrader().outcome(v.grader, v.gold, v.response) for v in vectors]
    assert {v.grader for v in vectors} == known
    regrader, order = Regrader(), list(range(len(vectors)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        for number in order:
            vector = vectors[number]
            assert regrader.outcome(vector.grader, vector.gold, vector.response) == alone[number]
