"""Facts in, edit out: one file per method, on the engines `_edit` and `_train`."""

BUILTINS = {
    "base": "editbench.methods.baselines:Base",
    "ice": "editbench.methods.baselines:InContext",
    "sft": "editbench.methods.sft:Sft",
    "mixsd": "editbench.methods.mixsd:MixSD",
    "opsd": "editbench.methods.opsd:OPSD",
    "pd": "editbench.methods.pd:PD",
    "disc": "editbench.methods.disc:DiSC",
    "sdft": "editbench.methods.sdft:SDFT",
    "locft": "editbench.methods.locft:LocFT",
    "rome": "editbench.methods.rome:Rome",
    "memit": "editbench.methods.memit:Memit",
    "alphaedit": "editbench.methods.alphaedit:AlphaEdit",
    "emmet": "editbench.methods.emmet:Emmet",
    "pmet": "editbench.methods.pmet:Pmet",
    "crispedit": "editbench.methods.crispedit:CrispEdit",
    "ultraedit": "editbench.methods.ultraedit:UltraEdit",
}

EASYEDIT = {
    "easyedit-rome": "editbench.methods.easyedit:ROME",
    "easyedit-r-rome": "editbench.methods.easyedit:R_ROME",
    "easyedit-memit": "editbench.methods.easyedit:MEMIT",
    "easyedit-memit-fe": "editbench.methods.easyedit:MEMIT_FE",
    "easyedit-emmet": "editbench.methods.easyedit:EMMET",
    "easyedit-eamet": "editbench.methods.easyedit:EAMET",
    "easyedit-alphaedit": "editbench.methods.easyedit:AlphaEdit",
    "easyedit-sphere": "editbench.methods.easyedit:SPHERE",
    "easyedit-core": "editbench.methods.easyedit:CORE",
    "easyedit-pmet": "editbench.methods.easyedit:PMET",
    "easyedit-ft": "editbench.methods.easyedit:FT",
    "easyedit-lora": "editbench.methods.easyedit:LoRA",
    "easyedit-qlora": "editbench.methods.easyedit:QLoRA",
    "easyedit-dpo": "editbench.methods.easyedit:DPO",
    "easyedit-simie": "editbench.methods.easyedit:SimIE",
    "easyedit-ultraedit": "editbench.methods.easyedit:UltraEdit",
    "easyedit-grace": "editbench.methods.easyedit:GRACE",
    "easyedit-wise": "editbench.methods.easyedit:WISE",
    "easyedit-defer": "editbench.methods.easyedit:DEFER",
}
"""Methods that run an algorithm of the user's EasyEdit, where there is one."""

NOT_OFFERED = {
    "easyedit-mend": "MEND needs a hypernetwork that is trained first.",
    "easyedit-malmen": "MALMEN needs a hypernetwork that is trained first.",
    "easyedit-serac": "SERAC needs a classifier and a second model that are trained first.",
    "easyedit-kn": "KN needs the package einops, and searches neurons for minutes a fact.",
    "easyedit-ike": "IKE needs sentence_transformers and a model for it; ice is the same idea.",
    "easyedit-melo": "MELO needs hydra and omegaconf, and a PEFT of its own from 2023.",
    "easyedit-dinm": "DINM teaches a model to refuse unsafe requests, and writes no facts.",
    "easyedit-ft-api": "FT-Api calls a paid service.",
    "easyedit-deepedit-api": "DeepEdit-Api calls a paid service.",
}
"""Algorithms of EasyEdit that are no methods here, and why."""

TOOLS = {
    "trace": "trace edits nothing: it finds where a model keeps an answer. Use 'editbench trace'.",
    "stats": "stats edits nothing: it measures what weight editors keep. Use 'editbench stats'.",
}
"""Commands that may be taken for methods, and what to say then."""

PAIR = "editbench.methods.compose:compose"
"""Builds one method from two, such as ``memit+mixsd``."""

BASELINES = ("base", "ice")
