"""Published data sets: from a file, a URL (downloaded once) or the hub to cases. What is left out is counted.

Downloads lie in ``corpora/`` of the cache (``hub.cache_dir``), each with its SHA-256 beside it, so that a damaged copy is
noticed and fetched again.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.parse import urlsplit

from editbench.corpora._read import read_rows, text_at
from editbench.errors import DataError
from editbench.hub import cache_dir, offline_if_unreachable
from editbench.matching import contains
from editbench.plugin import Corpus
from editbench.types import Case, Fact, Probe

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
FILE_SUFFIXES = (".json", ".jsonl", ".gz", ".csv", ".tsv", ".txt")
TIMEOUT_SECONDS = 60


class Published(Corpus):
    """A corpus whose records others wrote: those that cannot be facts are left out, each with its reason.

    Left out are also a second record with the prompt of an earlier one, since the two cannot be taught together (ROME
    publishes such a conflict-free subset for the same reason), a record whose target is its answer already, and a neighborhood
    probe whose answer has the target in it (so has an alias: it is dropped), since a right answer would count as moved.
    """

    needs_data = True
    name: ClassVar[str]
    """The first part of every id."""
    record_type: ClassVar[type] = dict
    """``dict``, or ``list`` where a record is a list of objects."""
    one_at_a_time: ClassVar[bool] = False
    """Whether the source means its records for one edit each, so that one record's neighborhood probe may ask what another one
    edits. Such a probe is left out, since facts are taught together."""

    skipped: list[str]
    """After ``load``: one reason for each record or probe left out, with the record's index in the source."""
    digest: str | None
    """After ``load``: the SHA-256 of the file that was read; ``None`` for a hub data set."""

    def __init__(self) -> None:
        self.skipped, self.digest = [], None

    def read_case(self, index: int, record: Mapping[str, Any]) -> Case:
        """The case in ``record``.

        Raises:
            DataError: why there is none.
        """
        raise NotImplementedError

    def read_probes(
        self, place: str, items: Iterable[Any], read: Callable[[Any], Probe]
    ) -> list[Probe]:
        """What ``read`` makes of each of ``items``; one that it refuses is left out, the record stays.

        ``place`` and the item's number from 1 stand before the reason.
        """
        probes = []
        for number, item in enumerate(items, start=1):
            try:
                probes.append(read(item))
            except DataError as error:
                self.skipped.append(f"{place} {number}: {error}")
        return probes

    def read_cases(self, index: int, record: Mapping[str, Any]) -> list[Case]:
        """The cases in ``record``: all of them, or none. To be overridden, instead of ``read_case``, where there are several.

        Raises:
            DataError: why there is none.
        """
        return [self.read_case(index, record)]

    def load(self, data: str | Path | None = None) -> list[Case]:
        """The cases of ``data``: a file (.json, .jsonl, .gz of these), a folder or hub id that ``load_dataset`` reads
        (``owner/name`` or ``owner/name:split``), or a URL; by default of the published file.

        Raises:
            DataError: data that cannot be had or read, or without a single usable record.
        """
        records, self.digest = read_source(data or self.url, self.sha256 if data is None else None)
        self.skipped = []
        cases: list[Case] = []
        seen: dict[Any, int] = {}
        for index, record in enumerate(records):
            try:
                if not isinstance(record, self.record_type):
                    wanted = "an object" if self.record_type is dict else "a list"
                    raise DataError(f"It is a {type(record).__name__}, not {wanted}.")
                found = self.read_cases(index, record)
                for case in found:
                    _check_new(case.fact, seen)
            except DataError as error:
                case_id = (
                    f" (case_id {record['case_id']})"
                    if isinstance(record, Mapping) and "case_id" in record
                    else ""
                )
                self.skipped.append(f"record {index}{case_id}: {error}")
                continue
            for case in found:
                seen[case.fact.id] = seen[case.fact.form, case.fact.prompt] = index
            cases += [self._apart(index, case) for case in found]
        if not cases:
            raise DataError(
                f"{data or self.url}: none of its {len(records):,} records is a {self.name} record; "
                f"{self.skipped[0] if self.skipped else 'it is empty.'} For a file of your own facts use --corpus local."
            )
        return [self._unedited(seen, case) for case in cases] if self.one_at_a_time else cases

    def _apart(self, index: int, case: Case) -> Case:
        """``case`` with no answer of a neighborhood probe that has the target in it."""
        probes = []
        for probe in case.probes:
            if probe.axis == "neighborhood":
                if contains(probe.answers[0], case.fact.answers):
                    has = (
                        f"its answer {probe.answers[0]!r} has the target {case.fact.target!r} in it"
                    )
                    self.skipped.append(
                        f"record {index}: {probe.prompt!r} must not move, but {has}."
                    )
                    continue
                probe = replace(
                    probe,
                    answers=tuple(a for a in probe.answers if not contains(a, case.fact.answers)),
                )
            probes.append(probe)
        return replace(case, probes=tuple(probes))

    def _unedited(self, seen: Mapping[Any, int], case: Case) -> Case:
        """``case`` without the neighborhood probes whose prompts other records edit."""
        probes = []
        for probe in case.probes:
            if probe.axis == "neighborhood" and (probe.form, probe.prompt) in seen:
                other = f"record {seen[probe.form, probe.prompt]} edits it"
                self.skipped.append(
                    f"record {seen[case.fact.id]}: {probe.prompt!r} must not move, but {other}."
                )
            else:
                probes.append(probe)
        return replace(case, probes=tuple(probes))


def _check_new(fact: Fact, seen: Mapping[Any, int]) -> None:
    if fact.original in fact.answers:
        raise DataError(f"Its target {fact.original!r} is the answer already.")
    if fact.id in seen:
        raise DataError(f"Its id {fact.id!r} is that of record {seen[fact.id]}.")
    if (fact.form, fact.prompt) in seen:
        raise DataError(
            f"Its prompt {fact.prompt!r} is that of record {seen[fact.form, fact.prompt]}."
        )


def one_hop_probes(record: Mapping[str, Any]) -> list[Probe]:
    """The portability probe that Yao et al. (2023, arXiv 2305.13172) added to CounterFact and zsRE, where there is one."""
    if "New Question" not in (record.get("portability") or ()):
        return []
    question, answer = (
        text_at(record, "portability", field) for field in ("New Question", "New Answer")
    )
    return [Probe("portability", question, (answer,), form="question")]


def read_source(data: str | Path, sha256: str | None = None) -> tuple[list[Any], str | None]:
    """The records of a file, folder, URL or hub data set, and the SHA-256 of the file (``None`` where there is no one file).

    Raises:
        DataError: nothing there, or nothing readable.
    """
    if isinstance(data, str) and "://" in data:
        path = fetch(data, sha256)
        return [row.values for row in read_rows(path)], _sha256(path)
    path = Path(data).expanduser()
    if not path.is_file() and path.suffix not in FILE_SUFFIXES:
        name, _, split = str(data).partition(":") if not path.exists() else (str(data), "", "")
        folder = Path(name).expanduser()
        if folder.is_dir() or HUB_ID.fullmatch(name):
            return load_hub(str(folder), split or None), None
    rows = read_rows(path)
    return [row.values for row in rows], _sha256(path)


def load_hub(name: str, split: str | None = None) -> list[Any]:
    """The records of hub data set (or folder) ``name``; ``split`` may be left out where there is only one.

    Raises:
        DataError: no such data set or split, no network, or several splits to choose from.
    """
    import datasets

    try:
        with offline_if_unreachable():
            found = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"There is no file {name!r} here, and the hub data set of that name cannot be loaded ({error}). "
            "Download its file and give it with --data PATH."
        ) from error
    if split is None and len(found) == 1:
        split = next(iter(found))
    if split not in found:
        wanted = f"has no split {split!r}" if split else "has several splits"
        raise DataError(
            f"Data set {name!r} {wanted}: {', '.join(found)}. Choose one with --data {name}:{next(iter(found))}."
        )
    return [_without_none(record) for record in found[split].to_list()]


def _without_none(value: Any) -> Any:
    """``value`` without the nulls with which Arrow fills up fields that a record does not have."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value if item is not None]
    return value


def fetch(url: str, sha256: str | None = None) -> Path:
    """The local copy of ``url``, downloaded on first use; whole, or not there at all.

    Raises:
        DataError: not https, no network, a broken download, or content that is not that of ``sha256``.
    """
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
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError as error:
        raise DataError(
            f"Cannot write to {path.parent} ({error.strerror}). Set EDITBENCH_CACHE to a folder that you may write to."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            _download(url, file)
        digest = _sha256(Path(part))
        if sha256 not in (None, digest):
            raise DataError(
                f"{url} has SHA-256 {digest}, not {sha256}: the file has changed. Check it, and give it with --data PATH."
            )
        stamp.write_text(digest + "\n")
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _read_stamp(stamp: Path) -> str | None:
    return stamp.read_text().strip() if stamp.is_file() else None


def _download(url: str, file: IO[bytes]) -> None:
    try:
        with open_url(url) as response:
            size = 0
            while chunk := response.read(1 << 20):
                size += file.write(chunk)
            # http.client ends a cut-off body like a complete one when it is read in chunks.
            if size < int(response.headers.get("Content-Length") or 0):
                raise OSError(f"the connection broke after {size:,} bytes")
    except (OSError, http.client.HTTPException) as error:
        name = urlsplit(url).path.rsplit("/", 1)[-1] or url
        raise DataError(
            f"Cannot download {url} ({error}). Download {name} on another machine and give it with --data PATH."
        ) from error


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise DataError(
            f"{url} is not an https address. Use https://, or download it and give it with --data PATH."
        )


def open_url(url: str) -> Any:
    """The open response to a GET of ``url``; https only, through redirects as well."""
    _check_https(url)
    request = urllib.request.Request(
        url, headers={"User-Agent": "editbench", "Accept-Encoding": "identity"}
    )
    return urllib.request.build_opener(_HttpsOnly).open(request, timeout=TIMEOUT_SECONDS)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
