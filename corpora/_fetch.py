"""Read published data sets from a file, a URL (downloaded once) or the hub.

Downloads are kept in the folder ``corpora/`` of the cache (``hub.cache_dir``). The SHA-256 of each
is in a file next to it, so that a damaged copy is noticed and fetched again.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, ClassVar, TypeVar
from urllib.parse import urlsplit

from editbench.corpora._read import (
    ForeignRecord,
    Record,
    Row,
    check_filled,
    foreign,
    read_rows,
    text_at,
)
from editbench.corpora._recognise import belongs_to
from editbench.errors import DataError
from editbench.hub import cache_dir, offline_if_unreachable
from editbench.matching import contains, normalise
from editbench.plugin import Corpus
from editbench.types import Case, Fact, Probe, same_answer_already

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
FILE_SUFFIXES = (".json", ".jsonl", ".gz", ".csv", ".tsv", ".txt")
TIMEOUT_SECONDS = 60
PHRASE_WORDS = 15
"""Words (in Chinese and Japanese, characters) of the longest answer that a free text is searched
for. A model that knows what a longer text says puts it into other words."""
TOKENS = ("argmax", "likelihood")
"""The protocols that compare an answer token by token."""

Item = TypeVar("Item")


class Published(Corpus):
    """A corpus of published records. Records that cannot be facts are left out, with a reason.

    Also left out are:

    - a record with the prompt of an earlier one, since the two cannot be taught together (ROME
      publishes a conflict-free subset for the same reason);
    - a record whose old answer already counts as the target (``same_answer_already``);
    - a neighborhood probe whose answer contains the target, since a right answer would count as
      moved. If only an alias contains the target, the alias is dropped.
    """

    needs_data = True
    name: ClassVar[str]
    """The first part of every id."""
    source: ClassVar[str]
    """The name of the data set as its authors write it, for messages."""
    one_at_a_time: ClassVar[bool] = False
    """Whether the authors mean each record to be the only edit of a model.

    If so, a neighborhood probe may ask for a fact that another record edits. It is left out, since
    here facts are taught together."""

    skipped: list[str]
    """After ``load``: why each record or probe was left out, with the record's index."""
    digest: str | None
    """After ``load``: the SHA-256 of the file that was read; ``None`` for a hub data set."""

    def __init__(self) -> None:
        self.skipped, self.digest = [], None

    def as_record(self, value: object) -> Record:
        """Return the value of one row as a record.

        Raises:
            DataError: if it is not a record of this data set.
        """
        if not isinstance(value, dict):
            raise foreign(self.source, "an object", value)
        return value

    def read_case(self, index: int, record: Record) -> Case:
        """Return the case in ``record``.

        Raises:
            DataError: if the record cannot be a case; says why.
        """
        raise NotImplementedError

    def read_cases(self, index: int, record: Record) -> list[Case]:
        """Return all cases in ``record``. Override this if a record can hold more than one case.

        Raises:
            DataError: if the record cannot be a case; says why.
        """
        return [self.read_case(index, record)]

    def read_probes(
        self, place: str, items: Iterable[Item], read: Callable[[Item], Probe]
    ) -> list[Probe]:
        """Return the probes that ``read`` makes of ``items``, except for those that it refuses.

        A refused probe is noted in ``skipped``. Its record stays.

        Args:
            place: comes before the reason, with the number of the item, from 1.
        """
        probes = []
        for number, item in enumerate(items, start=1):
            try:
                probes.append(read(item))
            except DataError as error:
                self.skipped.append(f"{place} {number}: {error}")
        return probes

    def read_source(
        self, data: str | Path, sha256: str | None = None
    ) -> tuple[list[Row], str | None]:
        """Return the rows of ``data`` and the SHA-256 of the file. See the function of this name.

        Override this if a file is one object and not a list of records.
        """
        return read_source(data, sha256)

    def load(self, data: str | Path | None = None) -> list[Case]:
        """Return the cases of ``data``, by default of the published file.

        Args:
            data: a file (.json, .jsonl, .gz of these), a folder or hub id that ``load_dataset``
                reads (``owner/name`` or ``owner/name:split``), or a URL.

        Raises:
            DataError: if the data cannot be fetched or read, or hold no usable record.
        """
        source = self.url if data is None or data == "" else data
        assert source is not None, "a published corpus has a URL"
        # The hash is that of the published file. It says nothing about the user's own.
        rows, self.digest = self.read_source(source, self.sha256 if data is None else None)
        self.skipped = []
        cases: list[Case] = []
        seen = _Seen()
        first_bad, other = "", ""
        for index, row in enumerate(rows):
            try:
                # All cases of a record are checked before any is kept: a group stays whole.
                in_record = self.read_cases(index, self.as_record(row.values))
                for case in in_record:
                    seen.check(case.fact)
            except DataError as error:
                self.skipped.append(f"record {index}{_case_id(row.values)}: {error}")
                if not first_bad and isinstance(error, ForeignRecord):
                    other = belongs_to(row.values, self.name)
                first_bad = first_bad or f"{row.place}: {error}"
                continue
            for case in in_record:
                seen.add(case.fact, index)
            cases += [self._apart(index, case) for case in in_record]
        if not cases:
            if other:
                raise DataError(f"{rows[0].place}: not a {self.source} record. {other}")
            raise DataError(
                f"{first_bad or f'{source}:'} None of the {len(rows):,} records is a usable "
                f"{self.source} record. For a file of your own facts use --corpus local."
            )
        # Only now are the prompts of all records known.
        return [self._unedited(seen, case) for case in cases] if self.one_at_a_time else cases

    def _apart(self, index: int, case: Case) -> Case:
        """Return ``case`` without the neighborhood answers that contain the target."""
        probes = []
        for probe in case.probes:
            if probe.axis == "neighborhood" and probe.answers:
                if contains(probe.answers[0], case.fact.answers):
                    self.skipped.append(
                        f"record {index}: {probe.prompt!r} must not move, but its answer "
                        f"{probe.answers[0]!r} contains the target {case.fact.target!r}."
                    )
                    continue
                probe = replace(
                    probe,
                    answers=tuple(a for a in probe.answers if not contains(a, case.fact.answers)),
                )
            probes.append(probe)
        return replace(case, probes=tuple(probes))

    def _unedited(self, seen: _Seen, case: Case) -> Case:
        """Return ``case`` without the neighborhood probes whose prompts other records edit."""
        probes = []
        for probe in case.probes:
            editor = seen.prompts.get((probe.form, probe.prompt))
            if probe.axis == "neighborhood" and editor is not None:
                self.skipped.append(
                    f"record {seen.ids[case.fact.id]}: {probe.prompt!r} must not move, but record "
                    f"{editor} edits it."
                )
            else:
                probes.append(probe)
        return replace(case, probes=tuple(probes))


@dataclass
class _Seen:
    """The ids and prompts of the facts read so far, each with the index of its record."""

    ids: dict[str, int] = field(default_factory=dict)
    prompts: dict[tuple[str, str], int] = field(default_factory=dict)
    """Keys are pairs of form and prompt."""

    def check(self, fact: Fact) -> None:
        """Check that ``fact`` can be taught together with the earlier ones.

        Raises:
            DataError: if it cannot, or changes no answer; names the earlier record.
        """
        check_filled(fact.prompt)
        if same := same_answer_already(fact):
            raise DataError(same[0].upper() + same[1:])
        if fact.id in self.ids:
            raise DataError(f"The id {fact.id!r} is already that of record {self.ids[fact.id]}.")
        if (earlier := self.prompts.get((fact.form, fact.prompt))) is not None:
            raise DataError(f"The prompt {fact.prompt!r} is already that of record {earlier}.")

    def add(self, fact: Fact, index: int) -> None:
        """Remember that ``fact`` comes from record ``index``."""
        self.ids[fact.id] = self.prompts[fact.form, fact.prompt] = index


def _case_id(value: object) -> str:
    """Return the publisher's id of a record as a text for messages, or "" if there is none."""
    if isinstance(value, Mapping) and "case_id" in value:
        return f" (case_id {value['case_id']})"
    return ""


def one_hop_probes(record: Record) -> list[Probe]:
    """Return the portability probe that Yao et al. added to CounterFact and zsRE, if there is one.

    See Yao et al. 2023, arXiv 2305.13172.
    """
    portability = record.get("portability")
    if not isinstance(portability, Mapping) or "New Question" not in portability:
        return []
    question, answer = (
        text_at(record, "portability", name) for name in ("New Question", "New Answer")
    )
    return [Probe("portability", question, (answer,), form="question")]


def scorable(answers: Sequence[str]) -> tuple[str, ...]:
    """Return the protocols that can score answers of this length (``Probe.protocols``).

    An answer of more than ``PHRASE_WORDS`` words is compared token by token alone.
    """
    shortest = min(len(normalise(answer).split()) for answer in answers)
    return TOKENS if shortest > PHRASE_WORDS else ()


def read_source(data: str | Path, sha256: str | None = None) -> tuple[list[Row], str | None]:
    """Return the rows of a file, folder, URL or hub data set, and the SHA-256 of the file.

    The hash is ``None`` for a folder or a hub data set.

    Raises:
        DataError: if there are no data there, or they cannot be read.
    """
    if isinstance(data, str) and "://" in data:
        path = fetch(data, sha256)
        return read_rows(path), _sha256(path)
    path = Path(data).expanduser()
    # A missing file with a known suffix is a mistyped path, and must not be looked up on the hub.
    if not path.is_file() and path.suffix not in FILE_SUFFIXES:
        name, _, split = str(data).partition(":") if not path.exists() else (str(data), "", "")
        folder = Path(name).expanduser()
        if folder.is_dir() or HUB_ID.fullmatch(name):
            records = load_hub(str(folder), split or None)
            return [
                Row(f"{data}, record {number}", number, record)
                for number, record in enumerate(records, start=1)
            ], None
    return read_rows(path), _sha256(path)


def load_hub(name: str, split: str | None = None) -> list[object]:
    """Return the records of a hub data set or folder.

    Args:
        split: may be left out if there is only one.

    Raises:
        DataError: if there is no such data set or split, if the hub cannot be reached, or if no
            split is named and there are several.
    """
    import datasets

    try:
        with offline_if_unreachable():
            splits = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"File {name!r} does not exist, and the hub data set of that name cannot be loaded "
            f"({error}). Download its file and pass it with --data PATH."
        ) from error
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        problem = f"has no split {split!r}" if split else "has several splits"
        raise DataError(
            f"Data set {name!r} {problem}. Available: {', '.join(splits)}. "
            f"Choose one with --data {name}:{next(iter(splits))}."
        )
    return [_without_none(record) for record in splits[split].to_list()]


def _without_none(value: object) -> object:
    """Return ``value`` without nulls. Arrow adds them for the fields that a record lacks."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value if item is not None]
    return value


def fetch(url: str, sha256: str | None = None) -> Path:
    """Return the local copy of ``url``, downloaded on first use. It is never an incomplete file.

    Args:
        sha256: the expected hash, if any.

    Raises:
        DataError: if the address is not https, the download fails or breaks off, the cache cannot
            be written, or the content has another hash.
    """
    # The hash of the address keeps files of the same name from different places apart.
    name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rsplit("/", 1)[-1]) or "data"
    path = cache_dir() / "corpora" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    stamp = path.with_name(path.name + ".sha256")
    if (
        path.is_file()
        and (digest := _sha256(path)) == _read_stamp(stamp)
        and sha256 in (None, digest)
    ):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that os.replace() below is one atomic step.
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError as error:
        raise DataError(
            f"Cannot write to {path.parent} ({error.strerror}). "
            "Set EDITBENCH_CACHE to a folder that you may write to."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            _download(url, file)
        digest = _sha256(Path(part))
        if sha256 not in (None, digest):
            raise DataError(
                f"{url} has SHA-256 {digest}, not {sha256}: the file has changed. "
                "Check it, and pass it with --data PATH."
            )
        stamp.write_text(digest + "\n", encoding="utf-8")
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _read_stamp(stamp: Path) -> str | None:
    return stamp.read_text(encoding="utf-8").strip() if stamp.is_file() else None


def _download(url: str, file: IO[bytes]) -> None:
    try:
        with open_url(url) as response:
            size = 0
            while chunk := response.read(1 << 20):
                size += file.write(chunk)
            # When it reads in chunks, http.client does not report a body that was cut off.
            if size < int(response.headers.get("Content-Length") or 0):
                raise OSError(f"the connection broke after {size:,} bytes")
    except (OSError, http.client.HTTPException) as error:
        name = urlsplit(url).path.rsplit("/", 1)[-1] or url
        raise DataError(
            f"Cannot download {url} ({error}). "
            f"Download {name} on another machine and pass it with --data PATH."
        ) from error


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https addresses only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise DataError(
            f"{url} is not an https address. "
            "Use https://, or download the file and pass it with --data PATH."
        )


def open_url(url: str) -> http.client.HTTPResponse:
    """Open ``url`` with a GET request, over https only, redirects included.

    Raises:
        DataError: if the address, or one that it redirects to, is not https.
    """
    _check_https(url)
    request = urllib.request.Request(
        url, headers={"User-Agent": "editbench", "Accept-Encoding": "identity"}
    )
    response: http.client.HTTPResponse = urllib.request.build_opener(_HttpsOnly).open(
        request, timeout=TIMEOUT_SECONDS
    )
    return response


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
