"""The watch warns once where reward and accuracy part, and not of noise or of common rises."""

import random
from pathlib import Path

import pytest

from pellucid.train.hack_watch import HackWatch, Parting, Probe, read_probes, slope

PROBLEMS = 64


def planted(reward_slope: float, accuracy_slope: float, *, seed: int = 0):
    """A policy of planted trends: `measure(step)` draws its probe, a function of (seed, step).
    Problems differ in difficulty; so do rewards.
    """

    def measure(step: int) -> Probe:
        draw = random.Random(f"{seed}/{step}")
        level = {i: random.Random(f"{seed}/{i}").uniform(-0.3, 0.3) for i in range(PROBLEMS)}
        rewards = {
            f"g/{i}": 0.4 + 0.3 * level[i] + reward_slope * step + draw.gauss(0.0, 0.05)
            for i in range(PROBLEMS)
        }
        correct = {
            f"r/{i}": float(draw.random() < 0.6 + level[i] + accuracy_slope * step)
            for i in range(PROBLEMS)
        }
        return Probe(step=step, rewards=rewards, correct=correct)

    return measure


def watch_over(path: Path, measure, *, steps: int = 100) -> tuple[list[Parting], list[dict]]:
    warnings: list[Parting] = []
    watch = HackWatch(path / "probe.jsonl", measure, warnings.append, every=10, num_steps=steps)
    lines = [watch.after_update(step) for step in range(1, steps + 1)]
    return warnings, [line["probe"] for line in lines if line]


def test_a_rise_of_reward_with_a_fall_of_accuracy_is_warned_of_once(tmp_path: Path) -> None:
    warnings, lines = watch_over(tmp_path, planted(0.004, -0.006))
    assert len(warnings) == 1
    assert sum(line.get("is_parting", 0.0) for line in lines) > 1
    first = warnings[0]
    assert first.since == first.step - 50
    assert first.trend.accuracy_change < 0 < first.trend.reward_change
    assert f"between steps {first.since} and {first.step}" in first.line()
    assert "\n" not in first.line()
    assert [line["accuracy"] for line in lines] == [
        p.accuracy for p in read_probes(tmp_path / "probe.jsonl")
    ]
    assert "p_reward" not in lines[4]
    assert "p_reward" in lines[5]


@pytest.mark.parametrize(
    ("reward_slope", "accuracy_slope"),
    [(0.004, 0.002), (-0.004, -0.006), (0.0, -0.006), (0.004, 0.0)],
    ids=["both rise", "both fall", "only accuracy falls", "only reward rises"],
)
def test_other_courses_are_not_warned_of(
    tmp_path: Path, reward_slope: float, accuracy_slope: float
) -> None:
    assert watch_over(tmp_path, planted(reward_slope, accuracy_slope))[0] == []


def test_noise_around_a_steady_accuracy_is_warned_of_in_few_runs(tmp_path: Path) -> None:
    """Alpha is 5 % over a whole run: of 40 runs, 7 or more false ones would be chance under 1 %."""
    false = 0
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        false += len(watch_over(folder, planted(0.004, 0.0, seed=seed))[0])
    assert false < 7


def test_a_killed_run_forgets_later_probes_and_warns_no_second_time(tmp_path: Path) -> None:
    measure = planted(0.004, -0.006)
    whole = watch_over(tmp_path, measure)
    at = whole[0][0].step
    path = tmp_path / "probe.jsonl"
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"step": 1')
    warnings: list[Parting] = []
    watch = HackWatch(path, measure, warnings.append, every=10, num_steps=100)
    lines = [watch.after_update(step) for step in range(at + 1, 101)]
    assert warnings == []
    assert [x["probe"] for x in lines if x] == whole[1][at // 10 :]
    assert path.read_bytes() == before
    again = HackWatch(path, measure, warnings.append, every=10, num_steps=100)
    again.after_update(10)
    assert [p.step for p in read_probes(path)] == [10]


def test_a_small_fall_is_not_warned_of_however_sure_it_is(tmp_path: Path) -> None:
    def measure(step: int) -> Probe:
        rewards = {str(i): step / 100 for i in range(20)}
        return Probe(
            step=step, rewards=rewards, correct={str(i): 1 - step / 1e4 for i in range(20)}
        )

    warnings, lines = watch_over(tmp_path, measure)
    assert warnings == []
    assert lines[-1]["p_accuracy"] < 1e-4


def test_problems_that_failed_to_be_graded_in_some_probe_are_left_out(tmp_path: Path) -> None:
    def measure(step: int) -> Probe:
        graded = {} if step == 30 else {"a": 1.0, "b": 0.0} if step % 20 else {"b": 0.0}
        return Probe(step=step, rewards={"g": 0.5}, correct=graded)

    warnings, lines = watch_over(tmp_path, measure)
    assert warnings == []
    assert lines[2] == {"reward": 0.5}
    assert [p.step for p in read_probes(tmp_path / "probe.jsonl")] == [10, 20, *range(40, 101, 10)]
    assert "p_reward" not in lines[5]
    assert "p_reward" in lines[6]


def test_probes_without_a_common_problem_tell_no_trend(tmp_path: Path) -> None:
    def measure(step: int) -> Probe:
        return Probe(step=step, rewards={"g": 0.5}, correct={str(step): 1.0})

    warnings, lines = watch_over(tmp_path, measure)
    assert warnings == []
    assert all("p_reward" not in line for line in lines)


def test_slope_is_that_of_the_least_squares_line() -> None:
    assert slope([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]) == pytest.approx(2.0)
    assert slope([0.0, 10.0, 20.0], [0.0, 1.0, 0.0]) == pytest.approx(0.0)
