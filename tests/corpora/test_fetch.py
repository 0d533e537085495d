"""Downloads, the cache and hub data sets, without a network.

The opener is replaced, and hub data sets are local folders.
"""

import hashlib
import io
import json
import urllib.error
from email.message import Message

import pytest

from editbench.corpora import _fetch
from editbench.errors import DataError
from editbench.registry import get

URL = "https://example.org/sets/counterfact.json"
RECORD = {
    "case_id": 1,
    "prompt": "The capital of Australia is",
    "target_new": "Sydney",
    "subject": "Australia",
    "ground_truth": "Canberra",
    "locality_prompt": "The capital of France is",
    "locality_ground_truth": "Paris",
}
BODY = json.dumps([RECORD]).encode()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A one-file web: serves ``body`` or raises ``error``, and notes addresses in ``calls``."""

    class Web:
        body, error, length, calls = BODY, None, None, []

        def open(self, url):
            self.calls.append(url)
            if self.error:
                raise self.error
            response = io.BytesIO(self.body)
            response.headers = {"Content-Length": str(self.length or len(self.body))}
            return response

    web = Web()
    web.calls = []
    web.cache = tmp_path / "cache" / "corpora"
    monkeypatch.setattr(_fetch, "open_url", web.open)
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path / "cache"))
    return web


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_once(web):
    path = _fetch.fetch(URL)
    assert path.read_bytes() == BODY and path.name.endswith("-counterfact.json")
    assert names(web.cache) == [path.name, path.name + ".sha256"]
    assert (web.cache / (path.name + ".sha256")).read_text().strip() == SHA256
    web.error = OSError("no network")
    assert _fetch.fetch(URL) == path and len(web.calls) == 1


def test_a_damaged_copy_is_fetched_again(web):
    path = _fetch.fetch(URL)
    path.write_bytes(b"[")
    assert _fetch.fetch(URL).read_bytes() == BODY and len(web.calls) == 2


def test_a_declared_checksum_is_checked(web):
    assert _fetch.fetch(URL, SHA256).read_bytes() == BODY
    web.body = b"[{}]"
    with pytest.raises(DataError, match=f"has SHA-256 .*, not {'0' * 64}"):
        _fetch.fetch(URL, "0" * 64)
    assert _fetch.fetch(URL, SHA256).read_bytes() == BODY, "the good copy was lost"


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
    ],
)
def test_without_network_the_error_says_which_file_and_how(web, error):
    web.error = error
    with pytest.raises(DataError) as caught:
        get("corpora", "counterfact")().load()
    assert "https://rome.baulab.info/data/dsets/counterfact.json" in str(caught.value)
    assert "Download counterfact.json" in str(caught.value) and "--data PATH" in str(caught.value)
    assert names(web.cache) == []


def test_a_cut_off_download_leaves_nothing(web):
    web.length = len(BODY) + 1
    with pytest.raises(DataError, match="connection broke after"):
        _fetch.fetch(URL)
    assert names(web.cache) == []


def test_an_unwritable_cache_says_so(web, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="Cannot write to .* Set EDITBENCH_CACHE"):
        _fetch.fetch(URL)


@pytest.mark.parametrize(
    "url", ["http://example.org/a.json", "file:///etc/passwd", "ftp://example.org/a.json"]
)
def test_only_https_is_opened(url):
    with pytest.raises(DataError, match="not an https address"):
        _fetch.open_url(url)
    with pytest.raises(DataError, match="not an https address"):
        _fetch._HttpsOnly().redirect_request(None, None, 302, "Found", Message(), url)


@pytest.mark.parametrize("data", [None, URL])
def test_a_corpus_loads_the_published_file_or_a_url(web, data):
    corpus = get("corpora", "counterfact")()
    (case,) = corpus.load(data)
    assert case.fact.id == "counterfact-1" and corpus.digest == SHA256
    assert web.calls == [data or corpus.url]


def test_everything_is_kept_in_one_cache(web, tmp_path, monkeypatch):
    from editbench.models import cache_dir

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EDITBENCH_CACHE")
    assert cache_dir() == tmp_path / ".cache" / "editbench"
    monkeypatch.setenv("EDITBENCH_CACHE", "~/mine")
    assert (
        cache_dir() == tmp_path / "mine"
        and _fetch.fetch(URL).parent == tmp_path / "mine" / "corpora"
    )


# Hub data sets


@pytest.fixture
def folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "owner" / "set"
    folder.mkdir(parents=True)
    return folder


def test_a_folder_loads_like_the_hub(folder):
    reduced = {key: value for key, value in RECORD.items() if key != "case_id"}
    (folder / "test.json").write_text(
        json.dumps(
            [
                RECORD,
                {
                    **reduced,
                    "case_id": 2,
                    "prompt": "Australia's capital is",
                    "rephrase_prompt": "Its",
                },
            ]
        )
    )
    corpus = get("corpora", "counterfact")()
    assert [case.fact.id for case in corpus.load(folder)] == ["counterfact-1", "counterfact-2"]
    assert corpus.digest is None and corpus.skipped == []
    assert len(corpus.load(f"{folder}:test")) == 2


def test_several_splits_must_be_chosen_from(folder):
    (folder / "train.jsonl").write_text(json.dumps(RECORD))
    (folder / "test.jsonl").write_text(json.dumps({**RECORD, "case_id": 2}))
    corpus = get("corpora", "counterfact")()
    with pytest.raises(
        DataError,
        match="has several splits. Available: train, test. Choose one with --data .*:train",
    ):
        corpus.load(str(folder))
    with pytest.raises(DataError, match="has no split 'dev'. Available: train, test"):
        corpus.load(f"{folder}:dev")
    assert [case.fact.id for case in corpus.load(f"{folder}:test")] == ["counterfact-2"]


def test_an_empty_folder_is_an_error(folder):
    with pytest.raises(DataError, match="cannot be loaded .*--data PATH"):
        get("corpora", "counterfact")().load(folder)


@pytest.mark.parametrize(
    "data, wanted",
    [
        ("owner/name", ("owner/name", None)),
        ("owner/name.v1:test", ("owner/name.v1", "test")),
        ("data/facts.json", None),
        ("../up/facts", None),
        ("facts", None),
        ("a/b/c", None),
    ],
)
def test_what_is_a_hub_id_and_what_a_path(data, wanted, monkeypatch, tmp_path):
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_fetch, "load_hub", lambda *args: asked.append(args) or [])
    if wanted:
        _fetch.read_source(data)
        assert asked == [wanted]
    else:
        with pytest.raises(DataError, match=f"File {data} does not exist"):
            _fetch.read_source(data)


def test_arrow_nulls_are_dropped():
    assert _fetch._without_none({"a": None, "b": [{"c": None, "d": 1}, None]}) == {"b": [{"d": 1}]}
