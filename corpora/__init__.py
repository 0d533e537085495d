"""Corpora read text and return cases. Each corpus has one file."""

BUILTINS = {
    "demo-counterfact": "editbench.corpora.demo:DemoCounterFact",
    "demo-zsre": "editbench.corpora.demo:DemoZsre",
    "counterfact": "editbench.corpora.counterfact:CounterFact",
    "zsre": "editbench.corpora.zsre:Zsre",
    "mquake": "editbench.corpora.mquake:MQuAKE",
    "ripple": "editbench.corpora.ripple:Ripple",
    "knowedit": "editbench.corpora.knowedit:KnowEdit",
    "conflictedit": "editbench.corpora.conflictedit:ConflictEdit",
    "templama": "editbench.corpora.templama:TempLAMA",
    "simpleqa": "editbench.corpora.simpleqa:SimpleQA",
    "kgfact": "editbench.corpora.kgfact:KGFact",
    "kgfunc": "editbench.corpora.kgfunc:KGFunc",
    "conflicts": "editbench.corpora.conflicts:Conflicts",
    "time": "editbench.corpora.timed:Timed",
    "local": "editbench.corpora.local:Local",
}
