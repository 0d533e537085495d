"""Push an edit to the Hugging Face Hub, with a model card that says what it gained and lost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from editbench.aliases import ALIASES
from editbench.edit import Edit
from editbench.errors import EditbenchError, OptionError, RecordError
from editbench.export import FORMATS, export
from editbench.models import LanguageModel
from editbench.records.reading import load_run
from editbench.records.schema import CellSummary
from editbench.run.artifact import Artifact
from editbench.run.card import license_name, license_of, model_card
from editbench.run.life import base_of
from editbench.sharing import HUB_ID, about, check_base, hub_base


def push(
    edit: str | Path,
    repo: str,
    *,
    model: LanguageModel | str | None = None,
    form: str = "merged",
    run: str | Path | None = None,
    base: str | None = None,
    include_facts: bool = False,
    public: bool = False,
    overwrite: bool = False,
) -> str:
    """Push a saved edit to the hub, and return the address of the repository.

    The token is that of ``hf auth login``, or ``HF_TOKEN``. The facts' text stays here unless
    ``include_facts``; the card and ``editbench.json`` have their number and hash.

    Args:
        edit: the folder of the edit.
        repo: OWNER/NAME.
        model: its base; by default the model that the edit names.
        form: ``merged``, ``peft`` or ``gguf`` (``editbench.export``).
        run: the run folder of ``evaluate``, whose scores go into the card.
        base: the hub id of the base, where it is not known.
        public: make a new repository public; by default it is private. A public repository that
            exists is refused without it.
        overwrite: put a new version into a repository that exists, in the place of all its files.

    Raises:
        EditbenchError: something of it is wrong, there is no token, or the hub refuses.
    """
    folder = Path(edit)
    stored = Edit.load(folder)
    check_push(repo, form, base)
    scores = None if run is None else evaluation_of(folder, Path(run))
    handle = base_of(stored, model)
    named = check_base(base) if base is not None else hub_base(handle.name)
    says = about(stored, named, include_facts)
    with tempfile.TemporaryDirectory() as temporary:
        new = export(
            stored, handle, form, Path(temporary) / "edit", base=base, include_facts=include_facts
        )
        with hub_errors(repo):
            license = license_of(handle.name) or _license_on_hub(named)
            card = model_card(repo, form, says, license, scores, quantized(handle))
            (new / "README.md").write_text(card, encoding="utf-8")
            return _upload(new, repo, public, overwrite)


def check_push(repo: str, form: str, base: str | None) -> None:
    """Check what can be checked before a model is loaded.

    Raises:
        OptionError: the name, the format or the base is none, or there is no token.
    """
    import huggingface_hub

    if not HUB_ID.fullmatch(repo):
        raise OptionError(f"{repo!r} is no name on the hub. Write it as OWNER/NAME.")
    if form not in FORMATS:
        raise OptionError(f"--format {form!r} is not one of {', '.join(FORMATS)}.")
    if base is not None:
        check_base(base)
    if not huggingface_hub.get_token():
        raise OptionError(
            "There is no token for the hub. Run 'hf auth login', or set HF_TOKEN to one that may"
            " write."
        )


def quantized(model: LanguageModel) -> str:
    """Return a sentence about a base that is a quantized copy of the one on the hub, or nothing."""
    if model.name not in ALIASES:
        return ""
    return (
        "What was edited is a quantized copy of that model, so its weights differ a little from the"
        " original's in every place."
    )


def evaluation_of(folder: Path, run: Path) -> tuple[CellSummary, CellSummary]:
    """Return the rows of the base and of the edit in ``folder``, from a run that scored it.

    Raises:
        RecordError: the run did not score this very edit, or its row failed.
    """
    content = Artifact(path=str(folder)).options()["content"]
    _, summaries = load_run(run)
    base = next((each for each in summaries if each["method"] == "base"), None)
    for summary in summaries:
        artifact: Mapping[str, Any] = summary.get("artifact") or {}
        if artifact.get("content") == content and summary["status"] == "done" and base:
            return base, summary
    raise RecordError(
        f"{run} has no scores of the edit in {folder}, as it is now. Run 'editbench evaluate"
        f" {folder}' and name its run folder."
    )


def _license_on_hub(base: str | None) -> str | None:
    if base is None:
        return None
    try:
        card = _api().model_info(base).card_data
    except Exception:  # the licence is then said to be unknown, which nothing depends on
        return None
    return license_name(card.get("license") if card is not None else None)


def _api() -> Any:
    from huggingface_hub import HfApi

    # The library reads the environment at import only.
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="editbench")


def _upload(folder: Path, repo: str, public: bool, overwrite: bool) -> str:
    api = _api()
    url = api.create_repo(repo, private=not public, exist_ok=overwrite)
    if overwrite and not public and not api.model_info(repo).private:
        raise RecordError(
            f"{repo} is public, so everybody would see the edit. Add --public, or make it private"
            " on the hub first."
        )
    api.upload_folder(
        repo_id=repo,
        folder_path=folder,
        commit_message="Push an edit by editbench",
        # Files of an earlier format or of another edit, such as an adapter beside merged weights.
        delete_patterns="*" if overwrite else None,
    )
    return str(url)


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn what the hub's library raises into one sentence.

    Raises:
        RecordError: the reason.
    """
    try:
        yield
    except EditbenchError:
        raise
    except Exception as error:  # of the library, of its HTTP client, or of the network
        status = getattr(getattr(error, "response", None), "status_code", None)
        reasons = {
            401: "the token is not valid; run 'hf auth login' again.",
            403: "the token may not write there.",
            409: "it exists. Add --overwrite to put a new version on top; the old one stays in its"
            " history.",
        }
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecordError(f"{repo} was not pushed: {reasons.get(status or 0, first)}") from error
