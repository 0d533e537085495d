"""Facts in, edit out: one file per method, on the engines `_edit` and `_train`."""

BUILTINS = {
    "base": "editbench.methods.baselines:Base",
    "ice": "editbench.methods.baselines:InContext",
    "sft": "editbench.methods.sft:Sft",
    "mixsd": "editbench.methods.mixsd:MixSD",
    "opsd": "editbench.methods.opsd:OPSD",
    "pd": "editbench.methods.pd:PD",
    "rome": "editbench.methods.rome:Rome",
    "memit": "editbench.methods.memit:Memit",
    "alphaedit": "editbench.methods.alphaedit:AlphaEdit",
    "emmet": "editbench.methods.emmet:Emmet",
    "pmet": "editbench.methods.pmet:Pmet",
}

TOOLS = {
    "trace": "trace edits nothing: it finds where a model keeps an answer. Use 'editbench trace'.",
    "stats": "stats edits nothing: it measures what weight editors keep. Use 'editbench stats'.",
}
"""Commands that may be taken for methods, and what to say then."""

PAIR = "editbench.methods.compose:compose"
"""Builds one method from two, such as ``memit+mixsd``."""

BASELINES = ("base", "ice")
