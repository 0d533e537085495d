"""Text in, cases out: one file a corpus."""

BUILTINS = {
    "demo-counterfact": "editbench.corpora.demo:DemoCounterFact",
    "demo-zsre": "editbench.corpora.demo:DemoZsre",
    "counterfact": "editbench.corpora.counterfact:CounterFact",
    "zsre": "editbench.corpora.zsre:Zsre",
    "mquake": "editbench.corpora.mquake:MQuAKE",
    "simpleqa": "editbench.corpora.simpleqa:SimpleQA",
    "kgfunc": "editbench.corpora.kgfunc:KGFunc",
    "local": "editbench.corpora.local:Local",
}
