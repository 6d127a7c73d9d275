"""A model behind an endpoint: asked again where that helps, and never twice for one answer."""

import json
import socket
import threading

import pytest
from chat_server import CLOSE, Reply, chat_server

from pellucid import endpoint
from pellucid.config_curate import TeacherConfig
from pellucid.endpoint import Answer, Ask, ChatEndpoint
from pellucid.errors import ConfigError, EndpointError, Interrupted
from pellucid.jsonl import read_jsonl


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT_S", 0.01)
    monkeypatch.setenv("no_proxy", "*")


def ask(text: str, **more) -> Ask:
    return Ask(id=f"id {text}", messages=({"role": "user", "content": text},), **more)


def word(body) -> str:
    return body["messages"][-1]["content"]


def config(base_url: str, **more) -> TeacherConfig:
    return TeacherConfig(**{"base_url": base_url, "model": "m", "retries": 2, **more})


def echo(body, before) -> Reply:
    return Reply(f"{word(body)}!")


def test_answers_come_in_order_and_are_kept(tmp_path) -> None:
    record = tmp_path / "teacher.jsonl"
    asks = [ask("a"), ask("b"), ask("c", seed=1), ask("c", seed=2)]
    seen = []
    with chat_server(echo) as server:
        with ChatEndpoint(config(server.base_url, temperature=0.5), record) as teacher:
            answers = teacher.ask_all(asks, progress=lambda *numbers: seen.append(numbers))
        assert [a.text for a in answers] == ["a!", "b!", "c!", "c!"]
        assert seen == [(n, 4) for n in (1, 2, 3, 4)]
        assert len(server.requests) == 4
        body = next(r for r in server.requests if word(r) == "a")
        message = {"role": "user", "content": "a"}
        assert body == {"model": "m", "messages": [message], "temperature": 0.5, "max_tokens": 2048}
        # Another process asks for what is new alone.
        with ChatEndpoint(config(server.base_url, temperature=0.5), record) as teacher:
            again = teacher.ask_all([ask("b"), ask("d")])
            assert ([a.text for a in again], teacher.num_asked) == (["b!", "d!"], 1)
        assert len(server.requests) == 5
    lines = list(read_jsonl(record))
    assert {line["id"] for line in lines} == {"id a", "id b", "id c", "id d"}
    assert all(set(line) == {"request", "id", "text", "is_cut", "failure"} for line in lines)


def test_equal_requests_are_sent_once(tmp_path) -> None:
    with chat_server(echo) as server:
        with ChatEndpoint(config(server.base_url), tmp_path / "t.jsonl") as teacher:
            assert [a.text for a in teacher.ask_all([ask("a"), ask("a")])] == ["a!", "a!"]
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "first",
    [
        Reply(status=500, body=b"boom"),
        Reply(status=503, body=b""),
        Reply(status=429, body=b"{}", headers={"Retry-After": "0.002"}),
        Reply(status=429, body=b"{}", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        Reply(body=b"<html>busy</html>"),
        Reply(body=b'{"choices": []}'),
        Reply(text=None),
        CLOSE,
    ],
    ids=["500", "503", "429", "429-date", "garbage", "no-choice", "no-text", "closed"],
)
def test_what_may_go_better_is_tried_again(tmp_path, first) -> None:
    with (
        chat_server(lambda body, before: first if before == 0 else echo(body, before)) as server,
        ChatEndpoint(config(server.base_url), tmp_path / "t.jsonl") as teacher,
    ):
        assert teacher.ask_all([ask("a")]) == [Answer(text="a!")]
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "reason", "attempts"),
    [
        (Reply(status=500, body=b""), "HTTP 500", 3),
        (Reply(status=400, body=b"too long"), "HTTP 400", 1),
        (Reply(status=302, body=b"", headers={"Location": "http://127.0.0.1:9/"}), "HTTP 302", 1),
        (Reply(body=b"\xff\x00"), "the answer is no chat completion", 3),
        (CLOSE, "connection lost", 3),
    ],
    ids=["500", "400", "redirect", "garbage", "closed"],
)
def test_a_request_that_fails_for_good_is_recorded_and_asked_again_next_time(
    tmp_path, reply, reason, attempts
) -> None:
    record, is_mended = tmp_path / "t.jsonl", []

    def script(body, before):
        return reply if word(body) == "bad" and not is_mended else echo(body, before)

    with chat_server(script) as server:
        with (
            ChatEndpoint(config(server.base_url), record) as teacher,
            pytest.raises(EndpointError, match=rf"1 of 2 requests .*\({reason}.* same comm"),
        ):
            teacher.ask_all([ask("bad"), ask("good")])
        assert len(server.requests) == attempts + 1
        failed = next(line for line in read_jsonl(record) if line["id"] == "id bad")
        assert failed["text"] is None
        assert failed["failure"].startswith(reason)
        is_mended.append(True)
        with ChatEndpoint(config(server.base_url), record) as teacher:
            assert [a.text for a in teacher.ask_all([ask("bad"), ask("good")])] == ["bad!", "good!"]
            assert teacher.num_asked == 1


def test_failed_items_can_be_left_out(tmp_path) -> None:
    def script(body, before):
        return Reply(status=422, body=b"") if word(body) == "bad" else echo(body, before)

    with (
        chat_server(script) as server,
        ChatEndpoint(config(server.base_url, on_failure="drop"), tmp_path / "t.jsonl") as teacher,
    ):
        answers = teacher.ask_all([ask("bad"), ask("good")])
    assert [a.text for a in answers] == [None, "good!"]
    assert answers[0].failure == "HTTP 422"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_teacher_that_is_not_there_is_one_line_and_keeps_what_was_made(tmp_path) -> None:
    record = tmp_path / "t.jsonl"
    with (
        chat_server(echo) as server,
        ChatEndpoint(config(server.base_url), record) as teacher,
    ):
        teacher.ask_all([ask("a"), ask("b")])
    gone = f"http://127.0.0.1:{free_port()}/v1"
    with ChatEndpoint(config(gone, concurrency=2), record) as teacher:
        with pytest.raises(EndpointError) as caught:
            teacher.ask_all([ask(str(n)) for n in range(50)] + [ask("a")])
        assert teacher.num_asked <= 4
    assert str(caught.value) == (
        f"the teacher at {gone}/chat/completions gives no answer (connection refused): start it or "
        "correct base_url, then run the same command; 2 answers are kept"
    )
    with ChatEndpoint(config(gone), record) as teacher:
        assert [a.text for a in teacher.ask_all([ask("a"), ask("b")])] == ["a!", "b!"]


@pytest.mark.parametrize(("status", "what"), [(401, "key_env"), (404, "base_url or model")])
def test_a_refusal_ends_the_matter_at_once(tmp_path, status, what) -> None:
    with (
        chat_server(lambda body, before: Reply(status=status, body=b"")) as server,
        ChatEndpoint(config(server.base_url, concurrency=1), tmp_path / "t.jsonl") as teacher,
        pytest.raises(EndpointError, match=rf"\(HTTP {status}\): correct {what}, then run"),
    ):
        teacher.ask_all([ask(str(n)) for n in range(20)])
    assert len(server.requests) == 1


def test_nothing_but_failures_ends_the_matter_after_a_while(tmp_path) -> None:
    with (
        chat_server(lambda body, before: Reply(body=b"nonsense")) as server,
        ChatEndpoint(
            config(server.base_url, concurrency=1, retries=0), tmp_path / "t.jsonl"
        ) as teacher,
        pytest.raises(EndpointError, match=r"no chat completion.*look at the teacher's server"),
    ):
        teacher.ask_all([ask(str(n)) for n in range(200)])
    assert len(server.requests) == 10


def test_a_slow_answer_ends_at_the_time_limit_even_if_bytes_drip(tmp_path) -> None:
    with (
        chat_server(lambda body, before: Reply("x" * 500, drip_s=0.02)) as server,
        ChatEndpoint(
            config(server.base_url, timeout_s=0.1, retries=0, on_failure="drop"),
            tmp_path / "t.jsonl",
        ) as teacher,
    ):
        assert teacher.ask_all([ask("a")]) == [Answer(text=None, failure="timed out")]


def test_at_most_so_many_requests_are_under_way(tmp_path) -> None:
    meeting = threading.Barrier(3)

    def script(body, before):
        meeting.wait(timeout=20)  # passes only if three are under way together
        return echo(body, before)

    with (
        chat_server(script) as server,
        ChatEndpoint(config(server.base_url, concurrency=3), tmp_path / "t.jsonl") as teacher,
    ):
        teacher.ask_all([ask(str(n)) for n in range(9)])
    assert server.most_at_once == 3


def test_a_wish_to_stop_keeps_what_was_answered(tmp_path) -> None:
    record, wish = tmp_path / "t.jsonl", []
    with chat_server(echo) as server:
        with (
            ChatEndpoint(config(server.base_url, concurrency=1), record) as teacher,
            pytest.raises(Interrupted),
        ):
            teacher.ask_all(
                [ask(str(n)) for n in range(30)],
                progress=lambda done, total: wish.append(done),
                should_stop=lambda: len(wish) >= 4,
            )
        before = len(server.requests)
        with ChatEndpoint(config(server.base_url), record) as teacher:
            assert len(teacher.ask_all([ask(str(n)) for n in range(30)])) == 30
        assert len(server.requests) == 30
        assert before < 30


def test_a_cut_answer_is_marked(tmp_path) -> None:
    record = tmp_path / "t.jsonl"
    with (
        chat_server(lambda body, before: Reply("half of", finish_reason="length")) as server,
        ChatEndpoint(config(server.base_url), record) as teacher,
    ):
        expected = [Answer(text="half of", is_cut=True)]
        assert teacher.ask_all([ask("a")]) == expected
    with ChatEndpoint(config(server.base_url), record) as teacher:
        assert teacher.ask_all([ask("a")]) == expected


def test_the_key_comes_from_the_environment_and_stays_out_of_the_record(
    tmp_path, monkeypatch
) -> None:
    record = tmp_path / "t.jsonl"
    with chat_server(echo) as server:
        named = config(server.base_url, key_env="PELLUCID_TEST_KEY")
        monkeypatch.delenv("PELLUCID_TEST_KEY", raising=False)
        with pytest.raises(ConfigError, match="PELLUCID_TEST_KEY, which is not set: export"):
            ChatEndpoint(named, record)
        monkeypatch.setenv("PELLUCID_TEST_KEY", "s3cret")
        with ChatEndpoint(named, record) as teacher:
            teacher.ask_all([ask("a")])
        assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in record.read_text()
    assert "s3cret" not in json.dumps(named.model_dump())
