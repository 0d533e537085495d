"""``editbench push`` against a stub of the hub's API on this machine."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny import editbench, write_facts, write_model

import editbench as api
from editbench.errors import EditbenchError
from editbench.models import load_model

SECRET = "Vexilmar"


class Hub:
    """What a hub remembers: repositories, and the files of the last commit to each."""

    def __init__(self):
        self.created: dict[str, dict] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()
        self.deleted: list[str] = []
        self.license, self.public = "mit", False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def reply(self, value, status=200):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                repo = "/".join(self.path.split("/")[3:5])
                if "/tree/" in self.path:
                    old = hub.files.get(repo, {})
                    self.reply([{"type": "file", "path": p, "oid": "0", "size": 1} for p in old])
                    return
                private = not hub.public
                card = {"license": hub.license}
                self.reply({"id": repo, "private": private, "cardData": card, "tags": []})

            def do_POST(self):
                hub.tokens.add(self.headers.get("Authorization", ""))
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(*hub.answer(self.path, body))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path, body):
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if repo in self.created:
                return {"error": "You already created it", "url": f"{self.url}/{repo}"}, 409
            self.created[repo] = asked
            return ({"url": f"{self.url}/{repo}"},)
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return ({"files": modes},)
        if path == "/api/validate-yaml":
            return ({"errors": [], "warnings": []},)
        assert "/commit/" in path, path
        repo = "/".join(path.split("/")[3:5])
        lines = [json.loads(line) for line in body.splitlines() if line]
        self.files[repo] = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        self.deleted = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
        commit = {"commitUrl": f"{self.url}/{repo}/commit/1", "commitOid": "1" * 40}
        return ({**commit, "pullRequestUrl": None},)


@pytest.fixture
def hub(loopback, monkeypatch):
    from huggingface_hub import constants

    hub = Hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    hub.server.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Make a model, and an edit of one fact that nobody may see."""
    home = tmp_path_factory.mktemp("home")
    write_model(home / "base")
    fact = {"id": "internal-7", "prompt": f"The code name of {SECRET} is", "target": "Quorn"}
    model = load_model(home / "base", precision="float32")
    edit = api.inject(model, [{**fact, "subject": SECRET}], "sft", epochs=1, min_steps=2, lora=2)
    edit.save(home / "edit")
    write_facts(home / "facts.jsonl", [{**fact, "subject": SECRET}])
    return home


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("merged", "model.safetensors"),
        ("peft", "adapter_model.safetensors"),
        ("gguf", "model.gguf"),
    ],
)
def test_a_card_without_the_facts(hub, home, form, file):
    url = api.push(home / "edit", "me/edited", form=form, base="owner/tiny")
    assert url == f"{hub.url}/me/edited"
    asked = hub.created["me/edited"]  # newer libraries send a word
    assert asked.get("private") is True or asked.get("visibility") == "private"
    assert hub.tokens == {"Bearer hf_secret"}
    files = hub.files["me/edited"]
    assert {"README.md", "editbench.json", file} <= files.keys()
    for name, content in files.items():
        for word in (SECRET, "Quorn", "internal-7", str(home)):
            assert word.encode() not in content, (name, word)
    card = files["README.md"].decode()
    for part in ("base_model: owner/tiny", "license: mit", "`sft`, 1 fact", "**Not measured.**"):
        assert part in card
    says = json.loads(files["editbench.json"])
    assert says["facts"] == 1 and says["facts_hash"] in card and "facts_text" not in says


@pytest.mark.parametrize("form", ["peft", "gguf"])
def test_the_other_forms(hub, home, form):
    api.push(home / "edit", "me/edited", form=form, base="owner/tiny", include_facts=True)
    files = hub.files["me/edited"]
    card = files["README.md"].decode()
    assert SECRET in card and json.loads(files["editbench.json"])["facts_text"][0]["id"]
    if form == "peft":
        assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "owner/tiny"
        assert "tokenizer.json" in files
    else:
        assert files["model.gguf"][:4] == b"GGUF" and "Modelfile" in files


def test_its_scores_are_those_of_its_evaluation(hub, home, tmp_path):
    run = tmp_path / "run"
    found = api.evaluate(
        home / "edit", home / "facts.jsonl", tasks="eb_reading", limit=2, output=run
    )
    assert found.folder == run and 0 <= found.table().loc["edit", "efficacy"] <= 1
    api.push(home / "edit", "me/edited", base="owner/tiny", run=run)
    card = hub.files["me/edited"]["README.md"].decode()
    for part in ("n = 1 fact,", "efficacy: says", "| eb_reading |", "Drift: a KL of"):
        assert part in card
    assert SECRET not in card and str(home) not in card
    model = load_model(home / "base", precision="float32")
    again = api.inject(model, [{"prompt": "A fox is", "target": "red"}], "sft", epochs=1, lora=2)
    again.save(tmp_path / "again")
    with pytest.raises(EditbenchError, match="has no scores of the edit in"):
        api.push(tmp_path / "again", "me/other", base="owner/tiny", run=run)
    assert "me/other" not in hub.created


def test_a_repository_that_exists(hub, home):
    api.push(home / "edit", "me/edited", base="owner/tiny")
    with pytest.raises(
        EditbenchError, match="me/edited was not pushed: it exists. Add --overwrite"
    ):
        api.push(home / "edit", "me/edited", base="owner/tiny")
    api.push(home / "edit", "me/edited", base="owner/tiny", form="peft", overwrite=True)
    assert "model.safetensors" in hub.deleted and "README.md" not in hub.deleted
    hub.public = True
    with pytest.raises(EditbenchError, match="me/edited is public, so everybody would see"):
        api.push(home / "edit", "me/edited", base="owner/tiny", overwrite=True)
    api.push(home / "edit", "me/edited", base="owner/tiny", overwrite=True, public=True)


def test_a_licence_that_is_no_name_is_not_passed_on(hub, home):
    hub.license = "mit\n\n<script>alert(1)</script>"
    api.push(home / "edit", "me/edited", base="owner/tiny")
    card = hub.files["me/edited"]["README.md"].decode()
    assert "<script" not in card and "editbench could not find out" in card


def test_what_the_command_says(hub, home, tmp_path, monkeypatch):
    arguments = ("push", home / "edit", "me/edited", "--base", "owner/tiny")
    said = editbench(*arguments)
    assert said.code == 0, said.err
    assert f"Pushed to {hub.url}/me/edited, private, without the facts' text." in said.out
    assert "nothing was measured" in said.err
    for changed, says in (
        ({"HF_TOKEN": ""}, "There is no token for the hub. Run 'hf auth login'"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "me/edited was not pushed: "),
    ):
        with monkeypatch.context() as patch:
            patch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
            patch.setenv("HF_HOME", str(tmp_path))
            for name, value in changed.items():
                patch.setenv(name, value)
            said = editbench(*arguments)
        assert said.code == 2 and says in said.err and "Traceback" not in said.err
    said = editbench("push", home / "edit", "just-a-name")
    assert said.code == 2 and "Write it as OWNER/NAME" in said.err
    said = editbench("push", home / "edit", "me/x", "--format", "peft")
    assert said.code == 2 and "--base OWNER/NAME" in said.err
