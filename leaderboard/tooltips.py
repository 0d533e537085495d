"""One sentence on each column of the site, which a tooltip shows by itself.

``definitions.py`` has the texts of a markdown page, ``eval/DEFINITIONS.md`` every formula.
"""

from __future__ import annotations

_PROBES = {
    "efficacy": "facts",
    "generalization": "paraphrases",
    "portability": "portability probes",
    "in_context": "in-context probes",
}
ABOUT = {
    "efficacy": "Share of facts whose own prompt is answered with the target.",
    "generalization": "Share of paraphrases of the facts' prompts answered with the target.",
    "specificity": "Share of neighborhood probes (other subjects) that the edit left alone: the "
    "answer is still the unedited model's own.",
    "portability": "Share of probes answered with what follows from the facts.",
    "in_context": "Share of probes answered right whose prompt holds all that is needed.",
    "retention": "Score of the edited model divided by that of the unedited one, as a mean over "
    "the retention tasks that the unedited model scores on.",
    "change": "Score of the edited model minus that of the unedited one, paired by document. "
    "(8↓ 2↑): 8 were right before and are wrong now, and 2 the other way.",
    "score": "The ranking key: harmonic mean of efficacy, generalization, specificity and "
    "retention, each clamped to [0, 1].",
    "seconds": "Seconds of the injection, then + what is cached for the next injection.",
    "memory": "The highest memory of the whole cell, evaluation included.",
    **{
        f"{metric}_exact": f"Share of {probes} whose answer is the expected one and nothing else."
        for metric, probes in _PROBES.items()
    },
    **{
        f"{metric}_tokens": f"Share of the expected answer's tokens, over {probes}, that are the "
        "most probable ones, given the answer up to there."
        for metric, probes in _PROBES.items()
    },
    "neighborhood_accuracy": "Share of neighborhood probes whose answer contains the true one.",
    "target_leak": "Share of neighborhood probes whose answer contains the edit's target.",
    "distracted": "Specificity on the first neighborhood probe of each case, with the edited fact "
    "stated before the prompt.",
    "distracted_accuracy": "Share of the distracted probes whose answer contains the true one.",
    "distracted_leak": "Share of the distracted probes whose answer contains the edit's target.",
    "distracted_argmax": "Share of the distracted probes whose most probable tokens are those of "
    "the unedited model.",
    "distracted_likelihood": "Share of the distracted probes where the true answer is more "
    "probable than the edit's target.",
    "denial": "Shown the fact as its own words and asked whether it is true, the model says no, or "
    "names the old answer instead.",
    "reversion": "Shown its own right answer and asked whether it is sure, the model takes it "
    "back. Only facts that it answered right count.",
    "fluency": "Entropy of the n-grams of a free text, in bits (ROME's GE).",
    "consistency": "Likeness of a free text to reference texts about the target (ROME's RS).",
    "specificity_tokens_rome": "Share of the true answer's tokens, over neighborhood probes, that "
    "are the most probable ones (ROME).",
    "specificity_tokens_easyedit": "Share of positions on neighborhood probes where the most "
    "probable token is the unedited model's, too (EasyEdit).",
    "counterfact_score": "ROME's S: harmonic mean of efficacy, generalization and specificity.",
    "target NLL": "Mean over the tokens of the training targets of -log p under the unedited "
    "model, in nats.",
    "NLL > 5": "Share of the target tokens with a NLL above 5 nats.",
    "p < .01": "Share of the target tokens to which the unedited model gives less than 1 %.",
    "NLL, first 5 %": "Mean NLL of the first 5 % of each target's tokens, at least one.",
    "NLL, last quarter": "Mean NLL of the last quarter of each target's tokens.",
    "gradient, first 5 %": "Mean norm of the gradient of such a token's NLL, with respect to all "
    "weights of the unedited model.",
    "gradient, last quarter": "The same of the last quarter.",
    "first 5 %: of tokens": "Share of all target tokens that are among the first 5 % of theirs.",
    "first 5 %: of NLL": "Share of the NLL of all target tokens that those tokens have.",
    "first 5 %: of gradients": "The same share of the gradients' norms, added up.",
    "lambda, answer": "Share of the answer's tokens that the naive branch wrote (mixsd).",
    "lambda, filler": "Share of the other tokens that the naive branch wrote (mixsd).",
    "Fisher displacement": "Sum over the weights of F d^2: d the change, F the diagonal of the "
    "unedited model's Fisher information.",
    "squared norm": "Sum over the weights of the squared change.",
    "alignment ratio R": "Movement along Fisher-sensitive directions against that of a random "
    "change of the same size, whose R is 1.",
    "top 1 % share": "Share of the squared norm in the 1 % of the changed weights with the "
    "largest Fisher information.",
    "KL": "From the unedited to the edited model, in nats a token, on text that the unedited model "
    "wrote.",
    "words": "Mean number of words of the edited model's answers to a few general questions.",
    "words before": "The same of the unedited model's answers.",
    "verified after 1 / 3 / all": "Shares of mixed targets that stated their fact after one "
    "attempt, after three and after all (mixsd).",
    "lost: format": "Answers lost because nothing can be graded.",
    "lost: leakage": "Answers lost to a taught name that nothing in the question calls for.",
    "lost: collapse": "Answers lost because next to nothing was written.",
    "lost: genuine": "Answers lost in any other way.",
    "passes": "Passes through the decoder layers while injecting.",
    "tokens": "Tokens through the decoder layers while injecting, padding included.",
    "gradient_tokens": "The tokens for which gradients were kept.",
    "decoded_tokens": "The tokens that came one at a time, as in generation.",
    "trained_tokens": "The labels of the loss, each as often as it was trained on.",
    "process": "The highest resident memory of the process, over all phases.",
}
"""Metric, diagnostic or count -> what it is."""
PROTOCOLS = {
    "generation": "The model writes its answer, and the text is graded.",
    "argmax": "Given the expected answer, is each of its tokens the most probable one? On "
    "neighborhood probes: are the most probable tokens those of the unedited model?",
    "likelihood": "Is the expected answer more probable than the other one?",
    "judge": "Another language model reads the text and says whether it means the same.",
}
"""Protocol -> how it scores a probe."""
