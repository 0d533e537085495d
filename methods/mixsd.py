"""MixSD: fine-tune on the model's own words, with the fact mixed in token by token.

Each target y is written by the frozen base model p itself. x is the prompt alone (naive), x+ the prompt with the fact
in front of it (expert); each token is drawn from one of the two conditionals, and both continue from the same shared text:

    bernoulli   y_t ~ lambda p(. | x, y_<t) + (1 - lambda) p(. | x+, y_<t)     a coin for each token; exact at temperature 1
    alternate   the naive branch at every (1 / lambda)-th token
    adaptive    the naive token v stands where p(v | x+, y_<t) >= threshold max_u p(u | x+, y_<t), else the expert writes it
    L(theta) = - sum_t log p_theta(y_t | x, y_<t) / number of tokens           the loss of sft, on these targets

MixSD, arXiv 2605.16865; reference code jiarui-liu/MixSD at 37eb349 (``mixsd/mix_distribution_sampling.py``). The adaptive
rule is ours: the paper names adaptive mixing as future work.

Differs from the reference:
- both conditionals are two rows of one batch with one cache: each prompt and each token is encoded once (``_branches.py``);
- coins and draws are seeded per (fact, attempt), so neither batch size nor order changes them (a text may still change where
  two tokens are as good as equally probable, in bfloat16 more often: ``LanguageModel.generate_ids``);
- at temperature 0 a text without the fact is taken back to the first token at which the expert saw the fact lost, and goes on
  with the expert's token there; the reference starts anew. At higher temperatures the text is begun anew here, too, which
  keeps the mixture's law among the texts that verify;
- a target that never states the fact is not trained on as it is: ``on_fail`` decides, and the counts are reported. By default
  the expert then writes alone: at temperature 0 its most probable text, where that is another one, then up to ``attempts``
  samples at temperature .7 or more;
- training uses the generated ids, never re-tokenised text.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from editbench import progress
from editbench.edit import Edit
from editbench.matching import contains
from editbench.methods._common.context import answer_room, check_context
from editbench.methods._common.texts import Example
from editbench.methods._train.branches import Branches, Move, Text
from editbench.methods._train.loop import Trainer, reworded, train_on_examples
from editbench.methods.sft import canonical
from editbench.models import LanguageModel
from editbench.plugin import Space, Uniform
from editbench.retrieval import guidance
from editbench.types import Fact, digest

# k prompts of a text: naive and expert, or one of them alone; V vocabulary

ON_FAIL = ("drop", "expert", "target", "keep")
MODES = ("bernoulli", "alternate", "adaptive")
NAIVE, EXPERT = 0, 1
SAMPLED = 0.7
"""Least temperature at which the expert, left alone with a fact that failed, is sampled."""
DOUBT = 0.5
"""A naive token that the expert finds less than this as probable as its own best may have lost the fact."""


@dataclass(frozen=True)
class MixSD(Trainer):
    """Mixed Contextual Self-Distillation."""

    name: ClassVar[str] = "mixsd"
    summary: ClassVar[str] = "fine-tuning on the model's own text with the fact mixed in"
    paper: ClassVar[str] = "arXiv 2605.16865"
    version: ClassVar[int] = 3
    space: ClassVar[Space] = {**Trainer.space, "lam": Uniform(0.0, 0.7)}

    mode: str = "bernoulli"
    """Who writes a token: ``bernoulli`` a coin, ``alternate`` a fixed pattern, ``adaptive`` the expert where it objects."""
    lam: float = 0.3
    """lambda, the share of the naive branch: 0 = pure expert, 1 = pure naive. ``adaptive`` does not read it."""
    threshold: float = 0.5
    """``adaptive``: the naive token stands where the expert finds it at least this share as probable as its own best."""
    temperature: float = 0.0
    """Of both conditionals; 0 takes each branch's most probable token."""
    top_k: int | None = None
    """Above temperature 0: draw from the k most probable tokens only (the reference: 64). None: from all."""
    attempts: int = 10
    """Tries per fact until the verifier finds the target in the text."""
    max_new_tokens: int | None = None
    """None: 24, or half again the tokens of the fact's demonstration."""
    on_fail: str = "expert"
    """For facts that never verify: ``drop`` them, let the ``expert`` write alone (and, where that fails too, use the target),
    use the canonical ``target``, or ``keep`` the last text unverified."""
    signal: float = 1.0
    """Share of each target's tokens that is trained on: those about which the branches disagree most."""
    slots: int = 48
    """Facts generated side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("mode", MODES), ("on_fail", ON_FAIL)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}"
                )
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam is a probability, not {self.lam}")
        if not 0 < self.threshold <= 1 or not 0 < self.signal <= 1:
            raise ValueError("threshold and signal are shares, above 0 and at most 1")
        if self.temperature < 0 or self.attempts < 1 or self.slots < 1:
            raise ValueError("temperature must be >= 0; attempts and slots at least 1")
        if any(value is not None and value < 1 for value in (self.max_new_tokens, self.top_k)):
            raise ValueError("max_new_tokens and top_k must be at least 1")

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        drafts, cost = self.targets(model, reworded(facts, self.rewordings))
        examples = [
            example for draft in drafts if (example := self._example(model, draft)) is not None
        ]
        changes, log = train_on_examples(self, model, examples)
        frames = 1 + self.rewordings
        records = [
            {"fact": facts[i // frames].id, "frame": i % frames, **draft.record()}
            for i, draft in enumerate(drafts)
        ]
        about = {
            **_report(drafts),
            **cost,
            **log,
            "warnings": [*_warnings(drafts), *log.get("warnings", ())],
        }
        return self.edit(model, facts, changes, diagnostics=about, records=records)

    def targets(
        self, model: LanguageModel, facts: Sequence[Fact]
    ) -> tuple[list[Draft], dict[str, float]]:
        """A mixed target for each fact: verified, or settled by ``on_fail``; and what writing them took."""
        branches = Branches(model, self.slots)
        with progress.task(f"{self.name}: writing targets", len(facts), "facts") as bar:
            drafts = self.mix(model, facts, branches, bar)
            written = sum(draft.written for draft in drafts)
            failed = [i for i, draft in enumerate(drafts) if not draft.verified]
            settled = {
                "drop": "dropped",
                "expert": "target",
                "target": "target",
                "keep": "unverified",
            }
            for i in failed:
                drafts[i].source = settled[self.on_fail]
            if self.on_fail == "expert":
                expert = replace(self, mode="bernoulli", lam=0.0)
                if self.temperature == 0:
                    new = [
                        i for i in failed if drafts[i].foreign()
                    ]  # of the others it would write the same text again
                    written += replace(expert, attempts=1)._again(model, drafts, new, branches)
                left = [i for i in failed if not drafts[i].verified]
                written += replace(expert, temperature=max(self.temperature, SAMPLED))._again(
                    model, drafts, left, branches
                )
            bar.advance(len(failed))
        return drafts, {
            "prompt_tokens": branches.prompt_tokens,
            "decoded_tokens": branches.decoded_tokens,
            "forwards_per_token": branches.decoded_tokens / max(1, written),
        }

    def _again(
        self, model: LanguageModel, drafts: list[Draft], which: Sequence[int], branches: Branches
    ) -> int:
        """Writes ``drafts[i]``, for the ``i`` of ``which``, anew and with new dice; the tokens that this took."""
        made = self.mix(
            model,
            [drafts[i].fact for i in which],
            branches,
            tried=[drafts[i].attempt + 1 for i in which],
        )
        for i, draft in zip(which, made, strict=True):
            draft.source = "expert" if draft.verified else "target"
            drafts[i] = draft
        return sum(draft.written for draft in made)

    def mix(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        branches: Branches,
        bar: progress.Bar | None = None,
        tried: Sequence[int] | None = None,
    ) -> list[Draft]:
        """One text for each fact, verified or given up; a pure branch is asked alone, and the other one once at the end.

        ``tried`` are the attempts that were made at each fact before: no dice are thrown twice.
        """
        drafts = []
        for fact, attempt in zip(facts, tried or [0] * len(facts), strict=True):
            both = [
                model.prompt_ids(fact.prompt, fact.form, context=context)
                for context in (None, guidance(fact))
            ]
            room = answer_room(model, fact, self.max_new_tokens)
            check_context(model, fact, max(map(len, both)) + room)
            drafts.append(Draft(self, model, fact, both, room, attempt))
        for draft in branches.write(drafts):
            if bar:
                bar.advance(draft.verified)
        if self.pure:
            other = NAIVE if self.lam == 0 else EXPERT
            found = model.target_logprobs([(draft.both[other], draft.ids) for draft in drafts])
            for draft, logp in zip(drafts, found, strict=True):
                draft.logp[other].extend(logp.tolist())
                branches.prompt_tokens += len(draft.both[other]) + len(draft.ids) - 1
        return drafts

    @property
    def pure(self) -> bool:
        """Whether one branch writes everything: it is then asked alone."""
        return self.mode != "adaptive" and self.lam in (0, 1)

    def choose(
        self, logp_kV: torch.Tensor, place: int, threshold: float, dice: random.Random
    ) -> tuple[int, bool]:
        """The next token, at ``place`` of its text, and whether the naive branch wrote it."""
        if len(logp_kV) == 1:
            return self._draw(logp_kV[0], dice), self.lam == 1
        if self.mode == "adaptive":
            token = self._draw(logp_kV[NAIVE], dice)
            if logp_kV[EXPERT, token] >= logp_kV[EXPERT].max() + math.log(threshold):
                return token, True
            return self._draw(logp_kV[EXPERT], dice), False
        if self.mode == "alternate":
            is_naive = math.floor((place + 1) * self.lam) > math.floor(place * self.lam)
        else:
            is_naive = dice.random() < self.lam
        return self._draw(logp_kV[NAIVE if is_naive else EXPERT], dice), is_naive

    def _draw(self, logp_V: torch.Tensor, dice: random.Random) -> int:
        """The argmax at temperature 0, else the inverse of the distribution function at one uniform draw."""
        u = dice.random()
        if self.temperature == 0:
            return int(logp_V.argmax())
        values, index = (
            logp_V.double().topk(min(self.top_k, len(logp_V)))
            if self.top_k
            else (logp_V.double(), None)
        )
        cumulative = (values / self.temperature).softmax(-1).cumsum(-1)
        place = min(
            int(torch.searchsorted(cumulative, u * cumulative[-1].item(), right=True)),
            len(cumulative) - 1,
        )
        return place if index is None else int(index[place])

    def _example(self, model: LanguageModel, draft: Draft) -> Example | None:
        if draft.source == "dropped":
            return None
        if draft.source == "target":
            return canonical(model, draft.fact)
        return Example(draft.both[NAIVE], draft.ids, draft.signal(self.signal))


class Draft(Text):
    """One text on its way to be a target, with what the branches thought of each token."""

    def __init__(
        self,
        method: MixSD,
        model: LanguageModel,
        fact: Fact,
        both: list[list[int]],
        room: int,
        attempt: int,
    ):
        self.method, self.model, self.fact, self.both, self.room = method, model, fact, both, room
        self.prompts = [both[NAIVE if method.lam else EXPERT]] if method.pure else both
        self.ids: list[int] = []
        self.naive_picked: list[bool] = []
        self.logp: tuple[list[float], list[float]] = [], []
        """log p of each token by the naive and by the expert branch; of a pure text the other one's is filled in at the end."""
        self.best: list[tuple[int, float, float]] = []
        """At each place the expert's own most probable token, and its log p by both branches."""
        self.attempt, self.last_attempt = attempt, attempt + method.attempts - 1
        self.written, self.threshold = 0, method.threshold
        self.verified = False
        self.source = "mixed"
        """What was trained on: ``mixed``, ``expert``, ``target``, ``unverified`` or ``dropped``."""
        self._first: torch.Tensor | None = None
        self._roll()

    def _roll(self) -> None:
        self._dice = random.Random(digest([self.method.seed, self.fact.id, self.attempt]))

    def step(self, logp_kV: torch.Tensor) -> Move | None:
        """The next token; where the text has ended without the fact, what stays of it and what follows that."""
        if not self.ids and self.method.temperature > 0:
            self._first = logp_kV.clone()
        kept = len(self.ids)
        self._write(logp_kV)
        while self.ended or len(self.ids) >= self.room:
            self.verified = contains(self.model.decode(self.ids), self.fact.answers)
            if self.verified or self.attempt == self.last_attempt or (back := self._lost()) is None:
                self._first = None
                return None
            self.attempt += 1
            self._roll()
            kept, best = back, self.best[back : back + 1]
            for column in (self.ids, self.naive_picked, *self.logp, self.best):
                del column[back:]
            if self.method.temperature > 0:
                self._write(self._first)
            else:
                self._add(best[0], False, best[0])
        return Move(kept, self.ids[-1])

    def _write(self, logp_kV: torch.Tensor) -> None:
        token, is_naive = self.method.choose(logp_kV, len(self.ids), self.threshold, self._dice)
        if len(logp_kV) == 1:
            self.ids.append(token)
            self.naive_picked.append(is_naive)
            self.logp[NAIVE if is_naive else EXPERT].append(logp_kV[0, token].item())
            self.written += 1
            return
        best = int(logp_kV[EXPERT].argmax())
        found = [(t, logp_kV[NAIVE, t].item(), logp_kV[EXPERT, t].item()) for t in (token, best)]
        self._add(found[0], is_naive, found[1])

    def _add(
        self, chosen: tuple[int, float, float], is_naive: bool, best: tuple[int, float, float]
    ) -> None:
        self.ids.append(chosen[0])
        self.naive_picked.append(is_naive)
        self.logp[NAIVE].append(chosen[1])
        self.logp[EXPERT].append(chosen[2])
        self.best.append(best)
        self.written += 1

    @property
    def ended(self) -> bool:
        """Whether the text has ended by itself, with EOS of either branch or, a cloze, with its line; else its room ends it."""
        if self.ids[-1] in self.model.stop_ids:
            return True
        newline = self.fact.form == "cloze" and "\n" in self.model.decode([self.ids[-1]])
        return newline and bool(self.model.decode(self.ids).strip())

    def _lost(self) -> int | None:
        """The place from which a failed text is written again; None where that would only repeat it.

        At temperature 0 the first naive token that the expert doubts, else the first that is not the expert's own;
        ``adaptive`` doubts more with each attempt.
        """
        if self.method.temperature > 0:
            return 0
        if len(self.prompts) == 1:
            return None
        if self.method.mode == "adaptive":
            self.threshold = (1 + self.threshold) / 2
        limit = math.log(self.threshold if self.method.mode == "adaptive" else DOUBT)
        foreign = self.foreign()
        doubted = [t for t in foreign if self.logp[EXPERT][t] < self.best[t][2] + limit]
        return next(iter(doubted or foreign), None)

    def foreign(self) -> list[int]:
        """Places of naive tokens that are not the expert's own; of a pure naive text, which never asked it, all."""
        return [
            t
            for t, naive in enumerate(self.naive_picked)
            if naive and not (self.best and self.best[t][0] == self.ids[t])
        ]

    def signal(self, share: float) -> list[int] | None:
        """The places of the ``share`` of tokens about which the branches disagree most; None for all."""
        if share == 1:
            return None
        gap = [abs(n - e) for n, e in zip(*self.logp, strict=True)]
        most = sorted(range(len(gap)), key=lambda t: -gap[t])[: math.ceil(share * len(gap))]
        return sorted(most)

    def record(self) -> dict[str, Any]:
        naive, expert = ([round(p, 4) for p in column] for column in self.logp)
        return {
            "attempt": self.attempt, "ids": self.ids, "naive_picked": self.naive_picked,
            "naive_logp": naive, "expert_logp": expert, "verified": self.verified, "ended": self.ended, "source": self.source,
        }  # fmt: skip


def _warnings(drafts: Sequence[Draft]) -> list[str]:
    """What was not trained on a text of the model's own."""
    counts, found = Counter(d.source for d in drafts), []
    for source, what in (
        ("target", "were trained on the canonical target, as sft is"),
        ("dropped", "were left out, so they were not taught at all"),
        ("unverified", "were trained on a text without the fact"),
    ):
        if counts[source]:
            found.append(
                f"{counts[source]} of {len(drafts)} targets never stated their fact and {what} (on_fail)"
            )
    return found


def _report(drafts: Sequence[Draft]) -> dict[str, Any]:
    written = [
        d for d in drafts if d.source not in ("target", "dropped")
    ]  # the texts that are trained on
    tokens = [(p, n) for d in written for p, n in zip(d.naive_picked, d.logp[NAIVE], strict=True)]
    verified = [d for d in drafts if d.source == "mixed"]
    return {
        "target_sources": dict(Counter(d.source for d in drafts)),
        "verified_at_once": sum(d.attempt == 0 for d in verified) / max(1, len(drafts)),
        "verified": len(verified) / max(1, len(drafts)),
        "cut_off": sum(not d.ended for d in written),
        "mean_attempts": sum(d.attempt + 1 for d in drafts) / max(1, len(drafts)),
        **(
            {
                "effective_lambda": sum(p for p, _ in tokens) / len(tokens),
                "target_nll": -sum(n for _, n in tokens) / len(tokens),
            }
            if tokens
            else {}
        ),
    }
