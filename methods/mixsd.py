"""MixSD: fine-tune on the model's own words, with the fact mixed in token by token.

The frozen base model p writes each target y itself. x is the prompt alone (naive branch), x+ the
prompt together with the fact (expert branch, ``_train/expert.py``). Each token is drawn from one of
the two conditionals, and both continue the same shared text:

    bernoulli   y_t ~ lambda p(. | x, y_<t) + (1 - lambda) p(. | x+, y_<t)
                a coin for each token; exact at temperature 1
    alternate   the naive branch writes every (1 / lambda)-th token
    adaptive    the naive token v is kept where p(v | x+, y_<t) >= threshold max_u p(u | x+, y_<t);
                elsewhere the expert writes the token

    L(theta) = - sum_t log p_theta(y_t | x, y_<t) / number of tokens      as sft, on these targets

MixSD, arXiv 2605.16865; reference code jiarui-liu/MixSD at 37eb349
(``mixsd/mix_distribution_sampling.py``). The adaptive rule is ours: the paper names adaptive mixing
as future work.

Differs from the reference:

- Both conditionals are two rows of one batch with one cache. Each prompt and each token is encoded
  once (``_train/branches.py``).
- Coins and draws are seeded per fact and attempt, so neither batch size nor order changes them. A
  text may still change where two tokens are almost equally probable, in bfloat16 more often (see
  ``LanguageModel.generate_ids``).
- The expert's prompt is in words of our own, and clozes have one, too (``expert_prompt``).
- At temperature 0, a text without the fact is cut at the first token at which the expert saw the
  fact lost, and continues with the expert's token there. The reference starts again, as
  ``retry="anew"`` does. At higher temperatures the text starts again here as well, which keeps the
  mixture's law among the texts that verify.
- A text that never states the fact is not simply trained on, as in the reference: ``on_fail``
  decides, and the counts are reported. By default the expert then writes alone. At temperature 0 it
  first writes its most probable text, unless that is the text that failed. After that it writes up
  to ``attempts`` samples at temperature 0.7 or more.
- The token budget of a text follows the expert's own answer (``_train/rooms.py``), and a text that
  reaches it has failed. The reference gives 8192 tokens, and its chat template ends a text that was
  cut off; ``on_fail="keep"`` does the same.
- The verifier looks for the target or an alias in the text. The reference compares the contents of
  the last ``\\boxed{}`` of text and demonstration, so its prompts ask for one.
- Training uses the generated ids. The reference saves decoded text and tokenizes it again.

``recipe=paper`` writes out the published options. Given the same coins, the texts then equal the
original's token by token, and the steps those of TRL on the same batches (``tests/methods/
test_mixsd_as_published.py``). What it cannot set: 8192 tokens do not fit into every context, and a
text ends where the context does, as it does in the original at 10000 tokens; batches hold texts of
similar length, and the last batch of an epoch may be smaller, while the original leaves it out. The
original saves a checkpoint every 20 steps. Here ``stop_after`` gives the model at any step: the
steps that are made keep their order and learning rates.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch

from editbench import processes, progress
from editbench.edit import Edit
from editbench.matching import contains
from editbench.memory import Phase, Texts
from editbench.methods._common.texts import Example
from editbench.methods._train.branches import Branches, Move
from editbench.methods._train.expert import EXPERT_PROMPTS, ExpertPrompt, borrowed
from editbench.methods._train.lessons import (
    LOSS_ON,
    Lesson,
    LossOn,
    check_first,
    lessons_of,
    opening,
)
from editbench.methods._train.loop import train_on_examples
from editbench.methods._train.mixed_text import (
    EXPERT,
    MIXING_FIGURES,
    NAIVE,
    Candidate,
    MixedText,
    State,
    WritingReport,
    report,
    warnings,
)
from editbench.methods._train.rooms import rooms as measured_rooms
from editbench.methods._train.rooms import usual_length
from editbench.methods._train.trainer import FORWARDED, PUBLISHED_TRAINING, Trainer
from editbench.models import LanguageModel, float64_device
from editbench.outline import Outline
from editbench.pace import Work
from editbench.plugin import Space, Uniform
from editbench.report import EditRecord, Figure
from editbench.types import Fact, digest

# k prompts of a text: naive and expert, or one of them alone; V vocabulary

ON_FAIL = {"drop": "dropped", "expert": "target", "target": "target", "keep": "unverified"}
"""Value of ``on_fail`` -> the source of the training text of a fact that never verifies."""
Mode = Literal["bernoulli", "alternate", "adaptive"]
OnFail = Literal["drop", "expert", "target", "keep"]
Retry = Literal["rewind", "anew"]
SAMPLED = 0.7
"""Lowest temperature at which the expert alone is sampled for a fact that failed."""
DOUBT = 0.5
"""A naive token may have lost the fact if its probability under the expert is below this share of
the expert's best token."""


@dataclass(frozen=True)
class MixSD(Trainer):
    """Mixed Contextual Self-Distillation."""

    name: ClassVar[str] = "mixsd"
    summary: ClassVar[str] = "fine-tuning on the model's own text with the fact mixed in"
    paper: ClassVar[str] = "arXiv 2605.16865"
    version: ClassVar[int] = 5
    over_processes: ClassVar[bool] = True
    space: ClassVar[Space] = {**Trainer.space, "lam": Uniform(0.0, 0.7)}
    figures: ClassVar[dict[str, Figure]] = {
        **Trainer.figures,
        **MIXING_FIGURES,
        "forwarded_tokens": FORWARDED,
    }
    added: ClassVar[frozenset[str]] = frozenset({"first"})
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {
            **PUBLISHED_TRAINING,
            "loss_on": "turn",
            "expert_prompt": "paper",
            "mode": "bernoulli",
            "lam": 0.3,
            "temperature": 0.0,
            "attempts": 101,
            "retry": "anew",
            "max_new_tokens": 8192,
            "on_fail": "keep",
            "signal": 1.0,
        }
    }

    mode: Mode = "bernoulli"
    """Which branch writes a token: ``bernoulli`` flips a coin, ``alternate`` follows a fixed
    pattern, and with ``adaptive`` the expert writes where it rejects the naive token."""
    lam: float = 0.3
    """lambda, the share of the naive branch: 0 is the pure expert, 1 the pure naive branch.
    ``adaptive`` ignores it."""
    expert_prompt: ExpertPrompt = "after"
    """How the expert is shown the fact: ``after`` the question, ``before`` it, or in the words of
    the ``paper`` (``_train/expert.py``)."""
    threshold: float = 0.5
    """``adaptive``: the naive token is kept if its probability under the expert is at least this
    share of the expert's best token."""
    temperature: float = 0.0
    """Temperature of both conditionals; 0 takes each branch's most probable token."""
    top_k: int | None = None
    """Above temperature 0: draw from the k most probable tokens only (the reference: 64). None:
    draw from all tokens."""
    attempts: int = 10
    """Maximum number of attempts per fact until the verifier finds the target in a whole text."""
    retry: Retry = "rewind"
    """The next attempt at temperature 0: ``rewind`` takes the failed text back to where it lost the
    fact, and ``anew`` begins it again with new coins, as every attempt does above temperature 0."""
    max_new_tokens: int | None = None
    """Token budget of a text, or what the context has left if that is less. None: twice the length
    of the expert's own answer, at least 48 (``_train/rooms.py``). A text that reaches it has
    failed."""
    texts: int = 1
    """Mixed texts for each fact in each frame, each with coins of its own."""
    canonical: bool = False
    """Train on the canonical answer of each fact and frame as well."""
    on_fail: OnFail = "expert"
    """For facts that never verify: ``drop`` them, let the ``expert`` write alone (and use the
    target if that fails as well), use the canonical ``target``, or ``keep`` the last text
    unverified."""
    loss_on: LossOn = "answer"
    """Tokens that carry loss: those of the ``answer`` with the token that ends it, or those of the
    model's whole ``turn``, with the role header before it and what the chat template writes behind
    it. Raw text has no turn, and both are the same."""
    signal: float = 1.0
    """Share of each target's tokens that carry loss: those on which the branches disagree most."""
    first: float = 1.0
    """Share of each target, from its first token, that carries loss; at least one token."""
    slots: int = 48
    """Number of texts that are written side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("on_fail", self.on_fail, get_args(OnFail)),
            ("retry", self.retry, get_args(Retry)),
            ("expert_prompt", self.expert_prompt, EXPERT_PROMPTS),
            ("loss_on", self.loss_on, LOSS_ON),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam is a probability, not {self.lam}")
        if not 0 < self.threshold <= 1 or not 0 < self.signal <= 1:
            raise ValueError("threshold and signal are shares, above 0 and at most 1")
        if self.signal < 1 and self.loss_on == "turn":
            raise ValueError("signal chooses among the tokens of the answer: use loss_on=answer")
        check_first(self.first, self.loss_on)
        if self.first < 1 and self.signal < 1:
            raise ValueError("first and signal both choose the tokens that carry loss: give one")
        if self.temperature < 0 or min(self.attempts, self.slots, self.texts) < 1:
            raise ValueError("temperature must be >= 0; attempts, slots and texts at least 1")
        if self.texts > 1 and self.temperature == 0 and (self.pure or self.mode != "bernoulli"):
            raise ValueError("several texts of a fact need coins (mode=bernoulli) or a temperature")
        if any(value is not None and value < 1 for value in (self.max_new_tokens, self.top_k)):
            raise ValueError("max_new_tokens and top_k must be at least 1")

    def answer_tokens(self, texts: Texts) -> int:
        return usual_length(self.max_new_tokens, texts)

    def before_training(self, model: Outline, texts: Texts) -> Sequence[Phase]:
        rows = min(self.slots, texts.facts * self.texts * (1 + self.rewordings))
        # The expert's prompt also holds the fact.
        prompt = 2 * texts.prompt + texts.target
        held = model.writing((1 if self.pure else 2) * rows, prompt, self.answer_tokens(texts))
        return [Phase("writing", held)]

    def writing(self, texts: Texts) -> Work:
        n = texts.facts * self.texts * (1 + self.rewordings)
        answer, branches = self.answer_tokens(texts), 1 if self.pure else 2
        # Without a given length the expert first writes alone, to tell how long the text should be.
        alone = 0 if self.max_new_tokens else texts.facts * (1 + self.rewordings) * answer
        prompt = branches * texts.prompt + texts.prompt + texts.target
        return Work(
            read=n * prompt,
            written=branches * n * answer + alone,
            writing=answer * (math.ceil(n / self.slots) + bool(alone)),
        )

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Write a mixed target for each fact, train on them, and return the change as an edit."""
        self.check_work(model, len(facts) * (self.texts + self.canonical))
        # The id seeds the coins of a text.
        copies = [
            replace(fact, id=f"{fact.id}@{n}") if n else fact
            for fact in facts
            for n in range(self.texts)
        ]
        drafts, cost = self.targets(
            model, lessons_of(model, copies, self.rewordings, self.expert_prompt)
        )
        examples = [self._example(draft) for draft in drafts if draft.source != "dropped"]
        plain = lessons_of(model, facts, self.rewordings) if self.canonical else []
        examples += [lesson.canonical(self.loss_on, self.first) for lesson in plain]
        changes, training = train_on_examples(self, model, examples)
        # lessons_of() lists each fact followed by its rewordings: text i is frame i % frames.
        frames = 1 + self.rewordings
        records: list[EditRecord] = [
            {"fact": facts[i // (frames * self.texts)].id, "frame": i % frames, **draft.record()}
            for i, draft in enumerate(drafts)
        ]
        records += [
            {
                "fact": facts[i // frames].id,
                "frame": i % frames,
                "ids": [*lesson.canonical().target_ids],
                "source": "canonical",
            }
            for i, lesson in enumerate(plain)
        ]
        # Of writing and training together.
        forwarded = (
            {
                "forwarded_tokens": training["forwarded_tokens"]
                + cost["prompt_tokens"]
                + cost["decoded_tokens"]
                + cost.get("reread_tokens", 0)
            }
            if training
            else {}
        )
        diagnostics = {
            **report(drafts),
            **cost,
            **training,
            **forwarded,
            "warnings": [
                *borrowed(facts, self.expert_prompt),
                *warnings(drafts),
                *training.get("warnings", ()),
            ],
        }
        return self.edit(model, facts, changes, diagnostics=diagnostics, records=records)

    def _example(self, draft: Draft) -> Example:
        if draft.source == "target":
            return draft.lesson.canonical(self.loss_on, self.first)
        counted = draft.signal(self.signal) or opening(len(draft.ids), self.first)
        return draft.lesson.example(draft.ids, self.loss_on, counted)

    def targets(
        self, model: LanguageModel, lessons: Sequence[Lesson]
    ) -> tuple[list[Draft], WritingReport]:
        """Write a target for each fact. ``on_fail`` settles the targets that do not verify.

        Several processes share the facts out, and each returns all targets.
        """
        drafts, counts = self._written(model, processes.share([*lessons]))
        if processes.count() > 1:
            drafts = self._gathered(drafts, lessons)
            counts = [int(n) for n in processes.summed(*counts)]
        written, prompt_tokens, decoded_tokens, reread_tokens = counts
        cost: WritingReport = {
            "prompt_tokens": prompt_tokens,
            "decoded_tokens": decoded_tokens,
            "forwards_per_token": decoded_tokens / max(1, written),
        }
        if reread_tokens:
            cost["reread_tokens"] = reread_tokens
        return drafts, cost

    def _gathered(self, drafts: Sequence[Draft], lessons: Sequence[Lesson]) -> list[Draft]:
        """Return the drafts of all processes, one for each lesson, given those of this process."""
        gathered: list[Draft] = []
        shares = processes.gathered([draft.state() for draft in drafts])
        for i, lesson in enumerate(lessons):
            state = shares[i % len(shares)][i // len(shares)]
            draft = Draft(self, lesson, state.room, state.attempt)
            draft.take(state)
            gathered.append(draft)
        return gathered

    def _written(
        self, model: LanguageModel, lessons: Sequence[Lesson]
    ) -> tuple[list[Draft], list[int]]:
        """Write a target for each of ``lessons``.

        Returns:
            The targets, and the tokens that were written, encoded in prompts, decoded, and read
            again.
        """
        branches = Branches(model, self.slots)
        with progress.task(f"{self.name}: writing targets", len(lessons), "facts") as bar:
            drafts = self.mix(lessons, branches, bar)
            written = sum(draft.written for draft in drafts)
            failed = [i for i, draft in enumerate(drafts) if not draft.verified]
            for i in failed:
                drafts[i].source = ON_FAIL[self.on_fail]
            if self.on_fail == "expert":
                written += self._ask_expert(drafts, failed, branches)
            bar.advance(len(failed))
        counts = [branches.prompt_tokens, branches.decoded_tokens, branches.reread_tokens]
        return drafts, [written, *counts]

    def _ask_expert(self, drafts: list[Draft], failed: Sequence[int], branches: Branches) -> int:
        """Let the expert write the failed drafts alone; return how many tokens it wrote."""
        # lambda = 0 is the pure expert.
        expert, written = replace(self, mode="bernoulli", lam=0.0, texts=1), 0
        if self.temperature == 0:
            # A draft without foreign tokens is the text that the expert alone would write again.
            # One attempt, because greedy decoding would repeat itself.
            other = [i for i in failed if drafts[i].foreign()]
            written += replace(expert, attempts=1)._rewrite(drafts, other, branches)
        left = [i for i in failed if not drafts[i].verified]
        sampling = replace(expert, temperature=max(self.temperature, SAMPLED))
        return written + sampling._rewrite(drafts, left, branches)

    def _rewrite(self, drafts: list[Draft], places: Sequence[int], branches: Branches) -> int:
        """Write the drafts at ``places`` again with new dice; return how many tokens it took."""
        lessons = [drafts[i].lesson for i in places]
        new = self.mix(
            lessons,
            branches,
            rooms=[drafts[i].room for i in places],
            tried=[drafts[i].attempt + 1 for i in places],
        )
        for i, draft in zip(places, new, strict=True):
            draft.source = "expert" if draft.verified else "target"
            drafts[i] = draft
        return sum(draft.written for draft in new)

    def mix(
        self,
        lessons: Sequence[Lesson],
        branches: Branches,
        bar: progress.Bar | None = None,
        rooms: Sequence[int] | None = None,
        tried: Sequence[int] | None = None,
    ) -> list[Draft]:
        """Write one text for each fact, until it verifies or its attempts are used up.

        At lambda 0 or 1 one branch writes alone, and the other branch scores its text at the end.

        Args:
            rooms: token budget of each text; None: found as ``max_new_tokens`` says.
            tried: number of earlier attempts at each fact, so that no dice are thrown twice.

        Raises:
            MethodError: if a fact's answer does not fit into the model's context.
        """
        if rooms is None:
            rooms = measured_rooms(lessons, self.max_new_tokens, branches)
        tried = tried or [0] * len(lessons)
        drafts = [Draft(self, *one) for one in zip(lessons, rooms, tried, strict=True)]
        for draft in branches.write(drafts):
            if bar:
                bar.advance(draft.verified)
        if self.pure:
            other = NAIVE if self.lam == 0 else EXPERT
            pairs = [(draft.both[other], draft.ids) for draft in drafts]
            for draft, logp in zip(drafts, branches.model.target_logprobs(pairs), strict=True):
                draft.logp[other].extend(logp.tolist())
                # The last token predicts nothing that is asked, so it is not encoded.
                branches.prompt_tokens += len(draft.both[other]) + len(draft.ids) - 1
        return drafts

    @property
    def pure(self) -> bool:
        """Whether one branch writes everything. The other branch is then not run at each token."""
        return self.mode != "adaptive" and self.lam in (0, 1)

    def choose(
        self, logp_kV: torch.Tensor, place: int, threshold: float, dice: random.Random
    ) -> tuple[int, bool]:
        """Return the token at position ``place``, and whether the naive branch writes it."""
        if len(logp_kV) == 1:
            return self._draw(logp_kV[0], dice), self.lam == 1
        if self.mode == "adaptive":
            token = self._draw(logp_kV[NAIVE], dice)
            # p(v | x+) >= threshold max_u p(u | x+), in logarithms
            if logp_kV[EXPERT, token] >= logp_kV[EXPERT].max() + math.log(threshold):
                return token, True
            return self._draw(logp_kV[EXPERT], dice), False
        if self.mode == "alternate":
            # True whenever lambda t passes a whole number: the naive tokens are spread evenly.
            is_naive = math.floor((place + 1) * self.lam) > math.floor(place * self.lam)
        else:
            # lambda is the probability of the naive branch.
            is_naive = dice.random() < self.lam
        return self._draw(logp_kV[NAIVE if is_naive else EXPERT], dice), is_naive

    def _draw(self, logp_V: torch.Tensor, dice: random.Random) -> int:
        """Return the argmax at temperature 0, else the inverse CDF at one uniform number."""
        # Drawn at temperature 0 as well, so that all temperatures flip the same coins.
        u = dice.random()
        if self.temperature == 0:
            return int(logp_V.argmax())
        # float64: sums over a whole vocabulary would round away improbable tokens.
        exact_V = logp_V.to(float64_device(logp_V.device)).double()
        values, index = (
            exact_V.topk(min(self.top_k, len(exact_V))) if self.top_k else (exact_V, None)
        )
        cumulative = (values / self.temperature).softmax(-1).cumsum(-1)
        # The last sum is 1 up to rounding, so u is scaled by it. right=True passes over tokens of
        # probability 0.
        place = min(
            int(torch.searchsorted(cumulative, u * cumulative[-1].item(), right=True)),
            len(cumulative) - 1,
        )
        return place if index is None else int(index[place])


class Draft(MixedText):
    """One text that may become a target: written, verified, and written again if it failed."""

    def __init__(self, method: MixSD, lesson: Lesson, room: int, attempt: int):
        self.method, self.room = method, room
        self.both = (lesson.prompt_ids, lesson.expert_ids)
        prompts = [self.both[NAIVE if method.lam else EXPERT]] if method.pure else self.both
        super().__init__(lesson, prompts, attempt)
        self.last_attempt = attempt + method.attempts - 1
        self.threshold = method.threshold
        self._dice = self._new_dice()
        self._first_kV: torch.Tensor | None = None
        """Log-probabilities of the first token, from which a new attempt starts."""

    def state(self) -> State:
        """Return what was written, for another process."""
        return State(*(getattr(self, name) for name in State._fields))

    def take(self, state: State) -> None:
        """Become the text that another process has written."""
        for name, value in state._asdict().items():
            setattr(self, name, value)

    @property
    def begins_anew(self) -> bool:
        """Whether the next attempt starts from the first token, with new dice."""
        method = self.method
        if method.temperature > 0:
            return True
        # At temperature 0 only the coins of a mixture differ between two attempts.
        return method.retry == "anew" and method.mode == "bernoulli" and not method.pure

    def _new_dice(self) -> random.Random:
        # Seeded by fact and attempt: neither the order of the facts nor the slots change a draw.
        return random.Random(digest([self.method.seed, self.fact.id, self.attempt]))

    def step(self, logp_kV: torch.Tensor) -> Move | None:
        """Write the next token. If the text then ends without the fact, start the next attempt."""
        # A clone: the tensor is a view of the whole batch, which would stay in memory.
        if not self.ids and self.begins_anew:
            self._first_kV = logp_kV.clone()
        kept = len(self.ids)
        self._write(logp_kV)
        # A loop, because the token that starts the next attempt may end the text at once.
        while self.ended or len(self.ids) >= self.room:
            # A text without an end is no answer, even if it names the target.
            self.verified = self.ended and contains(
                self.model.answer(self.ids), self.fact.answers, self.fact.prompt
            )
            is_last = self.verified or self.attempt == self.last_attempt
            restart = None if is_last else self._restart()
            if restart is None:
                self._first_kV = None  # k numbers for each token of the vocabulary
                return None
            kept = restart
        return Move(kept, self.ids[-1])

    def _write(self, logp_kV: torch.Tensor) -> None:
        """Append the token that the method chooses from the branches."""
        token, is_naive = self.method.choose(logp_kV, len(self.ids), self.threshold, self._dice)
        if len(logp_kV) == 1:
            self.add_alone(token, is_naive, logp_kV[0, token].item())
            return
        chosen, best = (
            Candidate(t, logp_kV[NAIVE, t].item(), logp_kV[EXPERT, t].item())
            for t in (token, int(logp_kV[EXPERT].argmax()))
        )
        self.add(chosen, is_naive, best)

    def _restart(self) -> int | None:
        """Start the next attempt: take tokens back and write one in their place.

        Returns:
            The number of tokens kept; None if another attempt would only repeat this one.
        """
        if self._first_kV is not None:
            self._next_attempt(0)
            self._write(self._first_kV)
            return 0
        if self.method.retry == "anew":
            return None
        # The expert's best token takes the place of the one that lost the fact.
        place = self._lost()
        if place is not None:
            best = self.best[place]
            self._next_attempt(place)
            self.add(best, False, best)
        return place

    def _next_attempt(self, place: int) -> None:
        self.attempt += 1
        self._dice = self._new_dice()
        self.cut(place)

    def _lost(self) -> int | None:
        """Return the position at which the fact was lost, at temperature 0.

        It is that of the first naive token that the expert doubts, else that of the first naive
        token that differs from the expert's own. ``adaptive`` doubts more with each attempt. None
        if there is no such token.
        """
        if len(self.prompts) == 1:
            return None
        if self.method.mode == "adaptive":
            # At a threshold of 1 only the expert's own tokens would be kept.
            self.threshold = (1 + self.threshold) / 2
        limit = math.log(self.threshold if self.method.mode == "adaptive" else DOUBT)
        foreign = self.foreign()
        doubted = [t for t in foreign if self.logp[EXPERT][t] < self.best[t].expert_logp + limit]
        return next(iter(doubted or foreign), None)
