"""Measure MixSD's targets: our schedule against a faithful copy of the reference's, in one run.

    python benchmarks/mixing_speed.py            # some minutes on two cores, alone

Both get the same facts and the same coins: 64 dev facts of kgfact, lambda 0.3, temperature 0, up to
10 tries. The reference (jiarui-liu/MixSD at 37eb349) asks its engine for one token at a time. The
branch that the coin names encodes what it has not seen, from its last whole block of 16 tokens on
(vLLM's prefix cache), and a text without the fact starts anew. Here that engine is a torch model
with such a cache, and its seconds are those of its forward passes alone. Stored in
``benchmarks/results/mixing_speed.json``.
"""

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from editbench import registry
from editbench.matching import contains
from editbench.methods._train.branches import Branches
from editbench.methods._train.lessons import lessons_of
from editbench.methods.mixsd import EXPERT, NAIVE, MixSD
from editbench.models import cached_states, decoding_cache, load_model
from editbench.retrieval import guidance
from editbench.slices import slice_cases
from editbench.text import pad_left
from editbench.types import digest

FACTS, SLOTS, BLOCK, ROOM = 64, 100, 16, 24
RESULT = Path(__file__).parent / "results" / "mixing_speed.json"


class Slot:
    """One text of the reference's schedule, with the (keys, values) by layer of each branch."""

    def __init__(self, model, fact):
        self.fact, self.attempt, self.right = fact, 0, False
        self.prompts = [
            model.prompt_ids(fact.prompt, fact.form, context=context)
            for context in (None, guidance(fact))
        ]
        self.kept = [[], []]
        self.begin()

    def begin(self):
        self.ids, self.dice = [], random.Random(digest([0, self.fact.id, self.attempt]))
        for branch, prompt in enumerate(self.prompts):  # what follows it is of the last attempt
            self.kept[branch] = [
                (k[:, :, : len(prompt)], v[:, :, : len(prompt)]) for k, v in self.kept[branch]
            ]

    def cut(self, branch):
        """Drop what is no whole block or no longer in the text; return the tokens to encode."""
        full = self.prompts[branch] + self.ids
        have = self.kept[branch][0][0].shape[2] if self.kept[branch] else 0
        seen = min(have, len(full) - 1) // BLOCK * BLOCK
        self.kept[branch] = [(k[:, :, :seen], v[:, :, :seen]) for k, v in self.kept[branch]]
        return full[seen:], seen


def stacked(states, width):
    """Stack keys or values (1, heads, T, head width), padded on the left to ``width`` tokens."""
    return torch.cat([F.pad(one, (0, 0, width - one.shape[2], 0)) for one in states])


@torch.no_grad()
def reference(model, facts, lam, attempts):
    """Return the texts, the tokens forwarded, and the seconds of the forward passes."""
    slots, tokens, seconds = [Slot(model, fact) for fact in facts[:SLOTS]], 0, 0.0
    waiting, done = list(facts[SLOTS:]), []
    with model.compute(weights_fixed=True):
        while slots:
            branches = [NAIVE if slot.dice.random() < lam else EXPERT for slot in slots]
            cuts = [slot.cut(branch) for slot, branch in zip(slots, branches, strict=True)]
            tokens += sum(len(new) for new, _ in cuts)
            ids_BT, new_BT = pad_left([new for new, _ in cuts], model.device)
            width = max(seen for _, seen in cuts)
            kept = None
            if width:
                rows = [slot.kept[branch] for slot, branch in zip(slots, branches, strict=True)]
                empty = [(k[:, :, :0], v[:, :, :0]) for k, v in next(filter(None, rows))]
                kept = [
                    tuple(
                        stacked([(row or empty)[layer][i] for row in rows], width) for i in (0, 1)
                    )
                    for layer in range(len(empty))
                ]
            old_BP = torch.tensor(
                [[0] * (width - seen) + [1] * seen for _, seen in cuts], device=model.device
            )
            mask_BP = torch.cat([old_BP.to(new_BT.dtype), new_BT], dim=1)
            cache = decoding_cache(model.model, whole=True, kept=kept)
            began = time.perf_counter()
            logp_BV = model.logits(model.hidden(ids_BT, mask_BP, cache)[:, -1]).log_softmax(-1)
            seconds += time.perf_counter() - began
            states = cached_states(cache)
            for row, (slot, branch, (new, _)) in enumerate(zip(slots, branches, cuts, strict=True)):
                added = [
                    (k[row : row + 1, :, -len(new) :], v[row : row + 1, :, -len(new) :])
                    for k, v in states
                ]
                old = slot.kept[branch]
                slot.kept[branch] = (
                    [
                        tuple(torch.cat([a, b], dim=2) for a, b in zip(before, after, strict=True))
                        for before, after in zip(old, added, strict=True)
                    ]
                    if old
                    else [(k.clone(), v.clone()) for k, v in added]
                )
                slot.dice.random()  # the draw, which temperature 0 does not need
                slot.ids.append(int(logp_BV[row].argmax()))
                if slot.ids[-1] in model.stop_ids or len(slot.ids) == ROOM:
                    slot.right = contains(model.decode(slot.ids), slot.fact.answers)
                    if slot.attempt == 0:
                        slot.first = list(slot.ids)
                    slot.attempt += 1
                    if slot.right or slot.attempt == attempts:
                        done.append(slot)
                    else:
                        slot.begin()
            slots = [slot for slot in slots if slot not in done]
            slots += [
                Slot(model, waiting.pop(0)) for _ in range(min(len(waiting), SLOTS - len(slots)))
            ]
    return done, tokens, seconds


def main() -> None:
    model = load_model()
    cases = slice_cases(registry.get("corpora", "kgfact")().load(), "dev", FACTS, 0)
    facts = [case.fact for case in cases]
    method = MixSD(max_new_tokens=ROOM, expert_prompt="before")
    lessons = lessons_of(model, facts, expert_prompt="before")
    first = replace(method, attempts=1).mix(lessons, Branches(model, SLOTS))
    rows = []
    for attempts in (1, 10):
        began = time.perf_counter()
        branches = Branches(model, SLOTS)
        ours = replace(method, attempts=attempts).mix(lessons, branches)
        seconds = time.perf_counter() - began
        theirs, tokens, their_seconds = reference(model, facts, method.lam, attempts)
        texts = {slot.fact.id: slot.first for slot in theirs}
        row = {
            "tries": attempts,
            "ours": {
                "tokens_forwarded": branches.prompt_tokens + branches.decoded_tokens,
                "prompts": branches.prompt_tokens,
                "written": sum(d.written for d in ours),
                "seconds": seconds,
                "verified": sum(d.verified for d in ours),
            },
            "reference": {
                "tokens_forwarded": tokens,
                "seconds": their_seconds,
                "verified": sum(s.right for s in theirs),
            },
            "first_texts_equal": sum(d.ids == texts[d.fact.id] for d in first) / FACTS,
        }
        row["tokens_ratio"] = tokens / row["ours"]["tokens_forwarded"]
        row["seconds_ratio"] = their_seconds / seconds
        rows.append(row)
        print(json.dumps(row), flush=True)
    RESULT.write_text(
        json.dumps({"facts": FACTS, "precision": model.precision, "rows": rows}, indent=1)
    )


if __name__ == "__main__":
    main()
