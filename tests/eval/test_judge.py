"""The judge against a stub of an OpenAI-compatible endpoint on this machine."""

import json
import math
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny import editbench, write_facts, write_model

from editbench.errors import OptionError
from editbench.eval import judge as judging
from editbench.eval.judge import check_endpoint, judge


@pytest.fixture(autouse=True)
def keyless(loopback, monkeypatch):
    """The network of this machine, without a key or a proxy."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def endpoint(reply):
    """A server that answers with ``reply(comparison)``.

    That is the content of a message, or whole bytes, in a list if they drip; the
    URL and what was sent."""
    sent, ended = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent.append({"path": self.path, "key": self.headers["Authorization"], **body})
            answer = reply(json.loads(body["messages"][1]["content"]))
            if answer is None:  # says nothing until the test is over
                ended.wait(10)
                return
            code = 302 if answer == "elsewhere" else 200
            if isinstance(answer, str):
                answer = json.dumps(
                    {"choices": [{"message": {"role": "assistant", "content": answer}}]}
                ).encode()
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "http://127.0.0.1:1/stolen")
            self.end_headers()
            with suppress(OSError):  # nobody listens any more
                for piece in answer if isinstance(answer, list) else [answer]:
                    self.wfile.write(piece)
                    if isinstance(answer, list):
                        ended.wait(0.1)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", sent
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def row(text, axis="rewrite", answers=("London", "Big Smoke"), base_text="Paris"):
    return {
        "axis": axis,
        "prompt": "The capital of France is",
        "answers": list(answers),
        "text": text,
        "base_text": base_text,
    }


def by_word(comparison):
    return json.dumps({"same": "yes" if comparison["answer"] in comparison["expected"] else "no"})


def test_right_and_wrong():
    rows = [
        row("London"),
        row("Rome"),
        row("Paris", "neighborhood"),
        row("London", "neighborhood"),
        row("yes", "distracted"),
    ]
    with endpoint(by_word) as (url, sent):
        judged, told = judge(rows, url, "tiny")
    assert [one["judge"] for one in judged[:4]] == [1.0, 0.0, 1.0, 0.0] and math.isnan(
        judged[4]["judge"]
    )
    assert [{k: v for k, v in one.items() if k != "judge"} for one in judged] == rows
    assert told == {"model": "tiny", "judged": 4, "not_judged": 0, "reason": ""}
    assert {one["path"] for one in sent} == {"/v1/chat/completions"}
    assert all(
        one["model"] == "tiny" and one["temperature"] == 0 and one["key"] is None for one in sent
    )
    shown = json.loads(sent[0]["messages"][1]["content"])
    assert shown == {
        "question": "The capital of France is",
        "expected": ["London", "Big Smoke"],
        "answer": "London",
    }


def test_the_same_comparison_is_sent_once():
    with endpoint(by_word) as (url, sent):
        judged, told = judge([row("London")] * 3, url, "tiny")
    assert [one["judge"] for one in judged] == [1.0] * 3 and told["judged"] == 3 and len(sent) == 1


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"same": "YES"}\n```',
        'Thinking... so {"same": "yes"} it is.',
        '{"same": " Yes ", "why": "equal"}',
    ],
)
def test_a_verdict_is_found_in_its_wrapping(content):
    with endpoint(lambda _: content) as (url, _):
        assert judge([row("London")], url, "tiny")[0][0]["judge"] == 1.0


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "yes",
        "{}",
        '{"same": "maybe"}',
        '{"same": true}',
        "[]",
        b"",
        b"<html>",
        b'{"choices": []}',
        b"[1]",
        b"\xff\xfe",
        b'{"choices": [{"message": {"content": null}}]}',
    ],
)
def test_nonsense_is_asked_three_times_and_then_not_judged(nonsense):
    with endpoint(lambda _: nonsense) as (url, sent):
        (judged,), told = judge([row("London")], url, "tiny")
    assert math.isnan(judged["judge"]) and len(sent) == 3
    assert (told["judged"], told["not_judged"]) == (0, 1) and "neither yes nor no" in told["reason"]


def test_a_second_try_may_succeed():
    replies = iter(["what?", '{"same": "no"}'])
    with endpoint(lambda _: next(replies)) as (url, sent):
        (judged,), told = judge([row("London")], url, "tiny")
    assert judged["judge"] == 0.0 and len(sent) == 2 and told["not_judged"] == 0


def test_a_timeout_costs_one_answer_and_the_others_are_judged(monkeypatch):
    monkeypatch.setattr(judging, "TIMEOUT_SECONDS", 0.3)
    with endpoint(lambda c: None if c["answer"] == "slow" else by_word(c)) as (url, sent):
        judged, told = judge([row("London"), row("slow"), row("Rome")], url, "tiny")
    assert [one["judge"] for one in judged][::2] == [1.0, 0.0] and math.isnan(judged[1]["judge"])
    assert (told["judged"], told["not_judged"]) == (2, 1) and "timed out" in told["reason"]


def test_a_reply_that_drips_is_a_timeout(monkeypatch):
    monkeypatch.setattr(judging, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(judging, "TRIES", 1)
    verdict = json.dumps(
        {"choices": [{"message": {"content": by_word({"answer": "", "expected": [""]})}}]}
    ).encode()
    with endpoint(lambda _: [*[b" "] * 20, verdict]) as (url, _):
        (judged,), told = judge([row("London")], url, "tiny")
    assert math.isnan(judged["judge"]) and "not complete after 0.5 s" in told["reason"]
    with endpoint(lambda _: [b" ", verdict]) as (url, _):
        assert judge([row("London")], url, "tiny")[0][0]["judge"] == 1.0


def test_an_endpoint_that_is_down_is_given_up():
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        judged, told = judge([row(str(i)) for i in range(20)], url, "tiny")
    assert all(math.isnan(one["judge"]) for one in judged)
    assert (told["judged"], told["not_judged"]) == (0, 20) and "refused" in told["reason"]


def test_after_five_failures_in_a_row_nothing_more_is_sent():
    with endpoint(lambda _: "hm") as (url, sent):
        _, told = judge([row(str(i)) for i in range(9)], url, "tiny")
    assert len(sent) == 5 * 3 and told["not_judged"] == 9


def test_the_key_goes_only_where_nobody_can_read_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with endpoint(by_word) as (url, sent):
        judge([row("London")], url, "tiny")
    assert sent[0]["key"] == "Bearer secret", "this very machine"
    private = {
        "https://api.example.org/v1": True,
        "http://localhost:8000/v1": True,
        "http://[::1]:8000/v1": True,
        "http://10.0.0.5:8000/v1": False,
        "http://localhost.example.org/v1": False,
    }
    assert {url: judging._is_private(url) for url in private} == private


def test_a_redirect_is_not_followed():
    with endpoint(lambda _: "elsewhere") as (url, sent):
        _, told = judge([row("London")], url, "tiny")
    assert len(sent) == 3 and told["not_judged"] == 1 and "302" in told["reason"]


def test_no_rows():
    assert judge([], "http://127.0.0.1:1/v1", "tiny") == (
        [],
        {"model": "tiny", "judged": 0, "not_judged": 0, "reason": ""},
    )


def test_compare_with_a_judge(tmp_path):
    """Verdicts are a protocol of their own, a missing one is reported, and the run goes on."""
    model, facts, run = (
        write_model(tmp_path / "model"),
        write_facts(tmp_path / "facts.jsonl"),
        tmp_path / "run",
    )
    command = [
        "compare",
        "--methods",
        "base",
        "--model",
        model,
        "--corpus",
        "local",
        "--data",
        facts,
    ]
    command += ["-n", 2, "--tasks", "none"]
    with endpoint(
        lambda c: "hm" if c["question"].endswith("has the capital") else '{"same": "yes"}'
    ) as (url, sent):
        said = editbench(*command, "--judge", url, "--judge-model", "stub", "--output", run)
        calls = len(sent)
        again = editbench(*command, "--judge", url, "--judge-model", "stub", "--output", run)
        assert len(sent) == calls, "finished cells are kept"
    assert said.code == again.code == 0, said.err
    assert "2 answers were not judged; the last reason: the reply is neither yes nor no" in said.err
    summary = json.loads(next(run.glob("cells/base-*/summary.json")).read_text())
    judged = {
        name: scores["judge"]["mean"]
        for name, scores in summary["metrics"].items()
        if "judge" in scores
    }
    assert judged == {"efficacy": 1.0, "generalization": None, "specificity": 1.0}
    # two each of rewrite, paraphrase and neighborhood
    assert summary["judge"]["model"] == "stub" and (
        summary["judge"]["judged"],
        summary["judge"]["not_judged"],
    ) == (4, 2)
    assert (
        summary["seconds"]["judge"] >= 0 and "### Protocol judge" in (run / "README.md").read_text()
    )
    bad = editbench(*command, "--judge", "file:///etc/passwd", "--judge-model", "stub")
    assert bad.code == 2 and "not an http address" in bad.err and "Traceback" not in bad.err


@pytest.mark.parametrize(
    ("url", "model", "said"),
    [
        ("http://localhost:8000/v1", None, "--judge is given without --judge-model NAME"),
        (None, "gpt", "--judge-model is given without --judge URL"),
        ("localhost:8000/v1", "gpt", "not an http address"),
        ("file:///etc/passwd", "gpt", "not an http address"),
        ("http://", "gpt", "not an http address"),
        ("http://[::1/v1", "gpt", "not an http address"),
        ("http://host:port/v1", "gpt", "not an http address"),
        ("https://me:secret@host/v1", "gpt", "OPENAI_API_KEY"),
        ("https://host/v1?key=secret", "gpt", "OPENAI_API_KEY"),
    ],
)
def test_a_bad_endpoint_is_refused_before_anything_runs(url, model, said):
    with pytest.raises(OptionError, match=said) as error:
        check_endpoint(url, model)
    assert "secret" not in str(error.value)


def test_a_good_endpoint_or_none():
    check_endpoint(None, None)
    check_endpoint("https://api.example.org/v1", "gpt")
