"""The fixed texts of a page: the meaning of its columns, and the notes below its tables."""

from __future__ import annotations

FACT_DEFINITIONS = """\
- **Efficacy**: share of facts whose rewrite prompt is answered with the target.
- **Generalization**: the same for paraphrases of the prompt.
- **Specificity**: share of neighborhood probes on which the edit changed nothing. Under
  `generation`, the edited model still gives the base model's own answer: both are right, or
  their first clauses are the same. Under `argmax`, the same tokens are the most probable as in
  the base. Under `likelihood`, the true answer is more probable than the edit's target.
"""
RETENTION_DEFINITION = """\
- **Retention**: score of the edited model / score of the base on lm-eval tasks, as a mean over
  the tasks that the base scores on; the errors of the tasks are taken as independent. The change
  per task is paired by sample: (8↓ 2↑) says that 8 samples were right before and are wrong now,
  and 2 the other way.
"""
COST_DEFINITIONS = """\
- **Score**, the ranking key: harmonic mean of the four above, each clamped to [0, 1].
- **Seconds**: injection, then `+` what is cached for the next injection.
"""
MEMORY_DEFINITION = """\
- **Peak memory**: the highest of the whole cell, evaluation included.
"""
INTERVAL_DEFINITIONS = """\
- **Intervals**: 95 %, over cases: Wilson's on the effective sample size for shares, Bonett and
  Price's for paired changes. The formulas are in `editbench/stats.py`, their coverage in
  `benchmarks/coverage.md`. **–**: not measured.
- **Bold**: ahead of every other method. Every pair is compared case by case in every column
  (sign-flip permutation test of the mean difference), and Holm's method adjusts all p of one
  table; bold means better than all others at a family-wise 5 %. Base and ice are references and
  take no part. No bold, no winner.
- **Detectable**: the difference that any two methods of the table would show with 80 % power at
  that corrected level, from the widest spread of the paired differences. Smaller differences may
  exist and stay unseen."""
DEFINITIONS_WITHOUT_FACTS = RETENTION_DEFINITION + MEMORY_DEFINITION + INTERVAL_DEFINITIONS
"""For a page that has retention alone."""
DEFINITIONS = (
    FACT_DEFINITIONS
    + RETENTION_DEFINITION
    + COST_DEFINITIONS
    + MEMORY_DEFINITION
    + INTERVAL_DEFINITIONS
)
MORE_DEFINITIONS = """
- **Portability**: share of probes answered with what follows from the facts. **In-context**:
  share of probes answered right whose prompt holds all that is needed. Neither enters the score,
  because only some corpora ask them."""
MIXING_DEFINITION = """
- **lambda**: share of the tokens of the mixed texts that the naive branch wrote, which reads the
  prompt without the fact. Effective is what was trained on. It is usually smaller than asked: only
  texts that state their fact are trained on, and a text without it is written on by the expert."""
DIAGNOSTICS_DEFINITIONS = """
- **Target NLL**: mean over the tokens of the training targets of -log p under the base, in nats;
  **NLL > 5** and **p < .01**: share of those tokens beyond that bound.
- **First 5 %**: of each target's tokens, at least one. **NLL** and **gradient**: means over the
  tokens of a part, of -log p under the base and of the norm of its gradient with respect to all
  weights. **Of tokens**, **of NLL**, **of gradients**: the share of the sum over all target tokens
  that the first 5 % have.
- **Fisher displacement**: sum over the weights of F_j d_j^2, where d is the edit's change and F the
  diagonal of the base's Fisher information; **squared norm**: sum of d_j^2. **Alignment ratio R**:
  (Fisher displacement / squared norm) / mean of F over all weights of the model. That is the
  movement along Fisher-sensitive directions against that of a random change of the same size, whose
  R is 1. **Top 1 % share**: share of the squared norm in the 1 % of the changed weights with the
  largest F.
- **KL**: from the base to the edited model, in nats a token, on text that the base wrote.
- **Lost**: answers that the base had right and the edited model has wrong, by the first class that
  fits. Format: nothing to grade. Leakage: a taught name that nothing in the question calls for.
  Collapse: at most 80 characters beside "The answer is ...", and at most a quarter of the words of
  the base's answer. Genuine: any other. `eval/diagnostics/errors.py` has the rules in full."""
EVALUATOR_DEFINITIONS = """
- **{titles}**: mean over cases of the scores of the evaluator plug-in{s} {names}, with 95 %
  intervals over cases. No part of the score, and not compared between methods."""
SEEDS = """
- **Seeds**: means over the seeds, each with its interval and, after ±, the standard deviation of
  the seeds' means. The intervals hold the spread of the cases (a case that several seeds drew
  counts once) and that of the seeds' means. A few seeds say little about their own spread: two or
  three cannot bound a shift between seeds that is larger than the standard error of one seed. Bold
  holds for the seeds that were run."""
ABOUT_MORE = {
    "generation": "Denial and reversion are asked of a third of the cases. Fluency is in bits.",
    "argmax": "Tokens: the share of the expected answer's tokens that are the most probable ones, "
    "or (EasyEdit) the base's.",
    "likelihood": "CounterFact score: ROME's S, the harmonic mean of efficacy, generalization and "
    "specificity above.",
}
"""Protocol -> the remark above its second table."""
TWICE = (
    "Each fact is asked right after its own chunk and again, by the same probes, at the end. The "
    "ranking is that of the end, over all facts. Right after is no score of the final model (it is "
    "what EasyEdit reports of a sequence). Facts that were not injected, or that a later fact "
    "replaced, are in neither column. Change is paired by probe."
)
UNTUNED = "† not tuned: no search on the dev slice chose its hyper-parameters."
INFEASIBLE = (
    "§ tuned, but no trial kept the required retention, so the search chose the nearest one."
)
PARTIAL = "‡ the score leaves out parts that were not measured."
OTHER_MACHINES = (
    "The cells come from different machines, devices or numbers of threads, so seconds and memory "
    "cannot be compared."
)
NO_BASE = "The base is not among these cells; its retention scores come from the other cells."
