"""What a file of facts would teach, before anything is trained: the report of ``editbench facts``.

``report`` looks at every fact and collects all that speaks against it, where ``check_facts`` stops
at the first contradiction. Without a model it knows no tokens and no answers, and takes no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from editbench.errors import MethodError, ModelError
from editbench.matching import contains, normalise
from editbench.run.wording import about_wording
from editbench.subjects import FUNCTION, Subject, find_subject, places, with_subject
from editbench.surgical import LONG_TARGET, SURGICAL_WORDS, divide
from editbench.types import Case, Fact, contradictions, same_answer_already, same_prompt

if TYPE_CHECKING:
    from editbench.models import LanguageModel


class Kind(NamedTuple):
    """A kind of thing that a report notes about facts."""

    label: str
    """What it is, to be read after a number of facts."""
    advice: str
    """What it means, and what can be done."""
    mend: bool = False
    """Whether a fact of this kind is refused or left out until it is mended."""


KINDS: dict[str, Kind] = {
    "unreadable": Kind(
        "refused when the file is read",
        "No command takes the file before they are mended.",
        mend=True,
    ),
    "repeated_id": Kind(
        "with an id that is used again",
        "Give each fact an id of its own, or leave the ids out.",
        mend=True,
    ),
    "duplicate": Kind(
        "given twice",
        "The file is refused. Keep one of each.",
        mend=True,
    ),
    "contradiction": Kind(
        "with one prompt and several targets",
        "Case and spaces do not tell prompts apart. The file is refused. Keep one of each, or teach"
        " them all with --allow-conflicts.",
        mend=True,
    ),
    "same_answer": Kind(
        "whose old answer already counts as the new one",
        "No answer can show that they were taught, so compare leaves them out. Change target or"
        " aliases, or take the old answer out.",
        mend=True,
    ),
    "subject_twice": Kind(
        "whose given subject occurs more than once in the prompt",
        "Weight editors read their key at one place, and refuse. Give the longer form that occurs"
        " once, or reword the prompt.",
        mend=True,
    ),
    "too_long": Kind(
        "longer than the model reads at once",
        "Shorten prompt or target.",
        mend=True,
    ),
    "placeholder": Kind(
        "whose target looks like a placeholder or an error",
        "The model would be taught to say it. Write the answer there, or take the row out.",
    ),
    "known": Kind(
        "already known to the model",
        "An edit gains nothing there. Leave them out, or keep them to see that they stay.",
    ),
    "may_contradict": Kind(
        "that may contradict each other in other words",
        "They have one subject, seem to ask the same of it, and have different targets.",
    ),
    "reworded": Kind(
        "that seem to be one fact in other words",
        "Better keep one of each and move the other prompts to its paraphrases, which test the"
        " edit.",
    ),
    "shared_subject": Kind(
        "that share a subject but not the target",
        "A weight editor writes facts about one subject at nearly the same place, and can hardly"
        " write several answers there. Use a trainer (mixsd, sft), or memit+mixsd, which gives"
        " memit one target of each subject and mixsd the others.",
    ),
    "long_target": Kind(
        "with a target that is long for a weight editor",
        f"Weight editors seldom make a model say more than {SURGICAL_WORDS} words or {LONG_TARGET}"
        " tokens. Shorten the target, or use a trainer (mixsd, sft); memit+mixsd gives targets of"
        f" more than {SURGICAL_WORDS} words to mixsd.",
    ),
    "doubtful_subject": Kind(
        "whose subject was found and may be wrong",
        "Weight editors write at the subject, so a wrong one spoils the edit. Give it in a column"
        ' "subject".',
    ),
    "repeated_subject": Kind(
        "whose subject, found by rule, occurs twice in the prompt",
        "Weight editors take the first place. Give the subject in a longer form that occurs once.",
    ),
    "subject_not_given": Kind(
        "without a given subject",
        "Weight editors take the one that was found; memit+mixsd gives such facts to mixsd.",
    ),
    "first_token": Kind(
        "with nothing before a subject of one token",
        "Weight editors leave a text's first token alone, so the bare prompt may not follow. Put a"
        " word before the subject.",
    ),
    "moved_subject": Kind(
        "whose subject the tokenizer does not keep apart",
        "Weight editors read their key at the token shown; where there is none, they cannot write"
        " the fact. Reword the prompt, or use a trainer.",
    ),
    "looks_like_question": Kind(
        "with a prompt that looks like a question, without its mark",
        "The model would continue the prompt. End it with a question mark to have it answered.",
    ),
    "prompt_end": Kind(
        "whose prompt does not stop where the target begins",
        "The target is put after the prompt. Word it so that the target completes it.",
    ),
    "odd_spaces": Kind(
        "with line ends, tabs, double or invisible spaces inside",
        "The model reads them as they stand, and seldom meets the text so. Clean the cells.",
    ),
    "target_in_prompt": Kind(
        "whose prompt holds the target",
        "A model may repeat it from there, whatever it was taught.",
    ),
    "no_paraphrases": Kind(
        "without paraphrases",
        "A table cannot show whether the fact is known in other words (generalization).",
    ),
    "no_neighborhoods": Kind(
        "without neighborhood prompts",
        "A table cannot show what else has moved (specificity).",
    ),
}
"""Name -> the kinds of notes, those to mend first."""


@dataclass(frozen=True)
class Item:
    """One thing that is noted about one or several facts."""

    facts: tuple[str, ...]
    """Ids of the facts; empty for a record that is none."""
    detail: str = ""


@dataclass(frozen=True)
class Note:
    """All things of one kind that are noted."""

    kind: str
    """A key of ``KINDS``."""
    items: tuple[Item, ...]

    @property
    def mend(self) -> bool:
        """Whether these facts are refused or left out until they are mended."""
        return KINDS[self.kind].mend

    @property
    def count(self) -> int:
        """Number of facts concerned, and of records that are none."""
        ids = {name for item in self.items for name in item.facts}
        return len(ids) + sum(not item.facts for item in self.items)


@dataclass(frozen=True)
class Heard:
    """A fact as a model reads it, and what the model says now."""

    prompt_tokens: int
    """With the chat template, for a question."""
    target_tokens: int
    answer: str | None
    """Greedy, and asked as ``compare`` asks; ``None`` if prompt and answer do not fit."""
    known: bool | None
    """Whether the answer states the target."""
    probability: float | None
    """Probability of all tokens of the target after the prompt; ``None`` if they do not fit."""


@dataclass(frozen=True)
class Row:
    """A fact as it would be taught."""

    fact: Fact
    subject: Subject
    suits: Literal["any", "trainer"]
    """``any``: one vector at its subject can carry the fact, so a weight editor may write it.
    ``trainer``: it cannot, or that vector has another fact's target already."""
    paraphrases: int
    neighborhoods: int
    heard: Heard | None = None
    """``None`` without a model."""

    def to_dict(self) -> dict[str, object]:
        """Return the row as a flat JSON object; ``Report.to_dict`` has its keys."""
        nothing = dict.fromkeys(Heard.__dataclass_fields__)
        return {
            "id": self.fact.id,
            "prompt": self.fact.prompt,
            "target": self.fact.target,
            "form": self.fact.form,
            "subject": self.subject.text,
            "subject_source": self.subject.source,
            "subject_doubt": self.subject.doubt,
            "suits": self.suits,
            "paraphrases": self.paraphrases,
            "neighborhoods": self.neighborhoods,
            **(asdict(self.heard) if self.heard else nothing),
        }


@dataclass(frozen=True)
class Report:
    """What a file of facts would teach."""

    rows: tuple[Row, ...]
    notes: tuple[Note, ...]
    """In the order of ``KINDS``; only kinds that occur."""
    model: str | None = None
    """The model that was asked."""
    no_weight_editor: str = ""
    """Why no weight editor can write this model; empty if one may."""

    @property
    def ready(self) -> bool:
        """Whether everything can be taught as it is."""
        return not any(note.mend for note in self.notes)

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that suit these facts, for ``compare --methods``."""
        if self.no_weight_editor:
            return ("mixsd", "sft")
        if all(row.suits == "any" for row in self.rows):
            return ("mixsd", "memit", "sft")
        # The pair goes by given subjects alone. Without a fact for memit, it is mixsd.
        surgical, _ = divide([row.fact for row in self.rows])
        return ("memit+mixsd", "mixsd", "sft") if surgical else ("mixsd", "sft")

    def with_subjects(self) -> Report:
        """Return the report for a file that gives the subjects which were found."""
        return replace(
            self, rows=tuple(replace(row, fact=with_subject(row.fact)) for row in self.rows)
        )

    def note(self, kind: str) -> Note:
        """Return the note of a kind; it has no items if there is nothing to note."""
        return next((note for note in self.notes if note.kind == kind), Note(kind, ()))

    def to_dict(self) -> dict[str, object]:
        """Return the report as one JSON object, to which ``editbench facts --json`` adds ``file``.

        Its keys:

        - ``model``: name, or null if none was asked;
        - ``no_weight_editor``: why no weight editor can write the model, else empty;
        - ``ready``: whether everything can be taught as it is;
        - ``methods``: names that suit the facts;
        - ``facts``: a list of objects with ``id``, ``prompt``, ``target``, ``form``, ``subject``,
          ``subject_source`` (given, rule, last word), ``subject_doubt``, ``suits`` (any, trainer),
          ``paraphrases`` and ``neighborhoods`` (how many), ``prompt_tokens``, ``target_tokens``,
          ``answer``, ``known`` and ``probability`` (the last five null without a model);
        - ``notes``: a list of objects with ``kind``, ``mend`` (whether it must be mended),
          ``count``, ``label``, ``advice`` and ``items``, each with ``facts`` (ids) and ``detail``.

        With ``--write-probes`` the command adds ``drafted``, an object with ``file``, how many
        ``paraphrases`` and ``neighborhoods`` it drafted, and ``missing``: fact id -> why it has
        fewer than two neighbors.
        """
        return {
            "model": self.model,
            "no_weight_editor": self.no_weight_editor,
            "ready": self.ready,
            "methods": list(self.methods),
            "facts": [row.to_dict() for row in self.rows],
            "notes": [
                {
                    "kind": note.kind,
                    "mend": note.mend,
                    "count": note.count,
                    "label": KINDS[note.kind].label,
                    "advice": KINDS[note.kind].advice,
                    "items": [
                        {"facts": list(item.facts), "detail": item.detail} for item in note.items
                    ],
                }
                for note in self.notes
            ],
        }


def report(
    cases: Sequence[Case],
    model: LanguageModel | None = None,
    unreadable: Iterable[str] = (),
) -> Report:
    """Return all that there is to know about the facts of ``cases`` before they are taught.

    Args:
        model: asked for each fact; its weights stay as they are.
        unreadable: a sentence for each record of the file that is no fact.

    Raises:
        ModelError: The model cannot be asked at all, because of its chat template or its logits.
    """
    facts = [case.fact for case in cases]
    subjects = [_subject(fact) for fact in facts]
    heard = _hear(model, cases) if model is not None else [None] * len(cases)
    suited = _suited(facts, subjects, heard)
    rows = tuple(
        Row(
            case.fact,
            subject,
            suits,
            sum(probe.axis == "paraphrase" for probe in case.probes),
            sum(probe.axis == "neighborhood" for probe in case.probes),
            said,
        )
        for case, subject, suits, said in zip(cases, subjects, suited, heard, strict=True)
    )
    found: defaultdict[str, list[Item]] = defaultdict(list)
    found["unreadable"] = [Item((), sentence) for sentence in unreadable]
    for kind, item in (*_about_single(rows), *_about_several(rows), *_about_tokens(model, rows)):
        found[kind].append(item)
    notes = tuple(Note(kind, tuple(found[kind])) for kind in KINDS if found[kind])
    if model is None:
        return Report(rows, notes)
    return Report(rows, notes, model.name, _no_weight_editor(model))


Found = Iterator[tuple[str, Item]]
"""Kinds of notes with what was found."""


def _subject(fact: Fact) -> Subject:
    try:
        return find_subject(fact)
    except MethodError:  # it occurs twice, of which there is a note
        assert fact.subject is not None
        return Subject(fact.subject, places(fact.subject, fact.prompt)[0], "given")


def _suited(
    facts: Sequence[Fact], subjects: Sequence[Subject], heard: Sequence[Heard | None]
) -> list[Literal["any", "trainer"]]:
    """Return for each fact what suits it, by the rule of ``memit+mixsd`` and its tokens.

    That pair looks at given subjects alone; here those that were found count as well.
    """
    # Ids may repeat, so that a fact's place in the list has to tell it apart.
    named = [
        replace(fact, id=str(i), subject=subject.text)
        for i, (fact, subject) in enumerate(zip(facts, subjects, strict=True))
    ]
    surgical = {fact.id for fact in divide(named)[0]}
    return [
        "any"
        if str(i) in surgical and (said is None or said.target_tokens <= LONG_TARGET)
        else "trainer"
        for i, said in enumerate(heard)
    ]


def _no_weight_editor(model: LanguageModel) -> str:
    """Return why no layer of ``model`` has a weight that an editor can write; empty if one has."""
    try:
        depth = model.layout.depth
    except ModelError as error:
        return str(error)
    reason = ""
    for layer in range(depth):
        try:
            model.layout.weight_name(layer)
        except ModelError as error:
            reason = reason or str(error)
        else:
            return ""
    return reason


# --- what the model says ------------------------------------------------------------------------


def _hear(model: LanguageModel, cases: Sequence[Case]) -> list[Heard]:
    """Ask ``model`` for the facts as ``compare`` asks for efficacy, and score their targets."""
    from editbench import asking

    questions = [
        asking.Question(rewrite.prompt, rewrite.form, rewrite.answers, rewrite.max_new_tokens)
        for rewrite in (case.probes[0] for case in cases)
    ]
    facts = [case.fact for case in cases]
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in facts]
    limit = model.context_length
    fitting = [
        i
        for i, (prompt, target) in enumerate(pairs)
        if limit is None
        or len(prompt) + max(len(target), asking.room(model, questions[i]).tokens) <= limit
    ]
    written = asking.answers(model, [questions[i] for i in fitting])
    answers = dict(zip(fitting, written, strict=True))
    scored = [i for i, pair in enumerate(pairs) if limit is None or sum(map(len, pair)) <= limit]
    logps = model.target_logprobs([pairs[i] for i in scored], what="scoring targets")
    chances = {i: logp_T.sum().exp().item() for i, logp_T in zip(scored, logps, strict=True)}
    return [
        Heard(
            len(prompt),
            len(target),
            answers.get(i),
            contains(answers[i], facts[i].answers, facts[i].prompt) if i in answers else None,
            chances.get(i),
        )
        for i, (prompt, target) in enumerate(pairs)
    ]


def _about_tokens(model: LanguageModel | None, rows: Sequence[Row]) -> Found:
    """Find what only a model and its tokenizer can tell."""
    if model is None:
        return
    limit = model.context_length
    for row in rows:
        fact, heard = row.fact, row.heard
        assert heard is not None
        tokens = heard.prompt_tokens + heard.target_tokens
        if limit is not None and tokens > limit:
            yield "too_long", Item((fact.id,), f"{tokens} tokens of at most {limit}")
        if heard.known:
            yield "known", Item((fact.id,), f"says {heard.answer!r}")
        yield from _about_place(model, row)


def _about_place(model: LanguageModel, row: Row) -> Found:
    """Find subjects that a weight editor cannot find, or finds at an unexpected token."""
    fact, subject = row.fact, row.subject
    if subject.source == "given" and len(places(subject.text, fact.prompt)) > 1:
        return  # of which there is a note
    try:
        last = model.subject_last(fact)
    except ModelError as error:
        yield "moved_subject", Item((fact.id,), str(error))
        return
    if last == 0:
        yield "first_token", Item((fact.id,), repr(subject.text))
    ids = model.prompt_ids(fact.prompt, fact.form)[: last + 1]
    read = model.decode(ids)
    # The replacement character stands for half a letter, of which no more can be said.
    if "\ufffd" not in read and not _letters(read).endswith(_letters(subject.text)):
        token = model.decode(ids[-1:])
        yield "moved_subject", Item((fact.id,), f"{subject.text!r} is read at {token!r}")


def _letters(text: str) -> str:
    """Return ``text`` as it is compared with what a tokenizer makes of it: without spaces."""
    import unicodedata

    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


# --- what each fact says ------------------------------------------------------------------------


def _about_single(rows: Sequence[Row]) -> Found:
    """Find what is wrong with a fact by itself."""
    for row in rows:
        fact, subject, one = row.fact, row.subject, (row.fact.id,)
        if same := same_answer_already(fact):
            yield "same_answer", Item(one, same)
        occurs = len(places(subject.text, fact.prompt))
        if occurs > 1 and subject.source != "last word":
            kind = "subject_twice" if subject.source == "given" else "repeated_subject"
            yield kind, Item(one, f"{subject.text!r} occurs {occurs} times in {fact.prompt!r}")
        if subject.doubt:
            yield "doubtful_subject", Item(one, f"{subject.text!r}: {subject.doubt}")
        if fact.subject is None:
            yield "subject_not_given", Item(one)
        if long := _length(row):
            yield "long_target", Item(one, long)
        yield from ((kind, Item(one, detail)) for kind, detail in about_wording(fact))
        if not row.paraphrases:
            yield "no_paraphrases", Item(one)
        if not row.neighborhoods:
            yield "no_neighborhoods", Item(one)


def _length(row: Row) -> str:
    """Return the length of a target that is long for a weight editor; empty for a short one."""
    words = len(row.fact.target.split())
    tokens = row.heard.target_tokens if row.heard else 0
    if words <= SURGICAL_WORDS and tokens <= LONG_TARGET:
        return ""
    return f"{words} words" + (f", {tokens} tokens" if tokens else "")


# --- what facts say together --------------------------------------------------------------------


def _about_several(rows: Sequence[Row]) -> Found:
    """Find facts that do not go together."""
    for name, same in _groups(rows, lambda row: row.fact.id):
        prompts = "; ".join(repr(row.fact.prompt) for row in same)
        yield "repeated_id", Item((name,), f"{len(same)} facts: {prompts}")
    for (_, prompt), same in _groups(rows, lambda row: (row.fact.form, row.fact.prompt)):
        if len(targets := _targets(same)) == 1:
            yield "duplicate", Item(_ids(same), f"{prompt!r} -> {targets[0]!r}")
    for _, same in _groups(rows, lambda row: (row.fact.form, same_prompt(row.fact.prompt))):
        if any(contradictions(row.fact for row in same)):
            yield "contradiction", Item(_ids(same), _wordings(same))
    for _, same in _groups(rows, _gist):
        one = len({normalise(target) for target in _targets(same)}) == 1
        if len({row.fact.prompt for row in same}) > 1 and (one or _are_other_prompts(same)):
            yield "reworded" if one else "may_contradict", Item(_ids(same), _wordings(same))
    for _, same in _groups(rows, lambda row: normalise(row.subject.text) or row.subject.text):
        targets = _targets(same)
        if len(targets) > 1 and _are_other_prompts(same):
            yield "shared_subject", Item(_ids(same), f"{same[0].subject.text!r}{_one_key(same)}")


def _groups(rows: Sequence[Row], key: Callable[[Row], object]) -> Iterator[tuple[Any, list[Row]]]:
    """Yield the groups of at least two rows with the same key; ``None`` is no key."""
    groups: defaultdict[object, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    for shared, same in groups.items():
        if shared is not None and len(same) > 1:
            yield shared, same


def _ids(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.fact.id for row in rows))


def _targets(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.fact.target for row in rows))


def _are_other_prompts(rows: Sequence[Row]) -> bool:
    """Return whether the prompts differ in more than case and spaces."""
    return len({same_prompt(row.fact.prompt) for row in rows}) > 1


def _wordings(rows: Sequence[Row]) -> str:
    """Return each prompt with its targets."""
    targets: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if (target := repr(row.fact.target)) not in targets[row.fact.prompt]:
            targets[row.fact.prompt].append(target)
    return "; ".join(f"{prompt!r} -> {' / '.join(said)}" for prompt, said in targets.items())


def _gist(row: Row) -> tuple[str, object] | None:
    """Return the subject and what is asked of it; equal for prompts that seem to ask the same.

    That is the relation, where it is given, else the set of the words that carry a meaning.
    """
    fact, subject = row.fact, row.subject
    if fact.relation is not None:
        return normalise(subject.text), fact.relation
    rest = fact.prompt[: subject.start] + " " + fact.prompt[subject.last + 1 :]
    # One letter is the "s" of a possessive, one character of a script without spaces a word.
    words = {
        word for word in normalise(rest).split() if len(word) > 1 or not word.isascii()
    } - FUNCTION
    return (normalise(subject.text), frozenset(words)) if words else None


def _one_key(rows: Sequence[Row]) -> str:
    """Say so if the prompts are equal up to the end of the subject, and their targets differ."""
    starts: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        starts[row.fact.form, row.fact.prompt[: row.subject.last + 1]].add(row.fact.target)
    same = any(len(targets) > 1 for targets in starts.values())
    return " (equal up to the subject: one key)" if same else ""
