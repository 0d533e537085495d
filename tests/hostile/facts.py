"""Files of facts that say something else than they seem to say."""

from __future__ import annotations

REPEATED = {
    # name -> (content, the place and the key that the error must name)
    "column.csv": (
        "prompt,target,target\nA is,b,b\nC is,d,e\n",
        ["line 3", "column 'target' is there twice, with 'd' and 'e'"],
    ),
    "emptied.csv": (
        "prompt,target,aliases,aliases\nA is,b,c,\n",
        ["line 2", "column 'aliases' is there twice, with 'c' and ''"],
    ),
    "column.tsv": ("prompt\ttarget\tprompt\nA is\tb\tC is\n", ["line 2", "column 'prompt'"]),
    "key.jsonl": (
        '{"prompt": "A is", "target": "b"}\n{"prompt": "C is", "target": "d", "target": "e"}\n',
        ["line 2", "an object has 'target' twice"],
    ),
    "key.json": (
        '[{"prompt": "A is", "target": "b"},\n {"prompt": "C is", "target": "d", "target": "e"}]',
        ["record 2", "an object has 'target' twice"],
    ),
    "nested.json": (
        '[{"prompt": "A is", "target": "b", "neighborhoods": '
        '[{"prompt": "C is", "answer": "d", "answer": "e"}]}]',
        ["record 1", "an object has 'answer' twice"],
    ),
}
"""A column or a key with two values. Python's readers keep the last one without a word."""

LISTS = {
    "json.csv": (
        'prompt,target,aliases\nA is,b,"[""c"", ""d""]"\n',
        ["line 2", "'aliases' is a text that holds a list", "Separate several texts with |"],
    ),
    "python.csv": (
        "prompt,target,paraphrases\nA is,b,\"['A was', 'A has been']\"\n",
        ["line 2", "'paraphrases' is a text that holds a list"],
    ),
    "target.csv": (
        'prompt,target\nA is,"[""b"", ""c""]"\n',
        ["line 2", "column 'target' holds a list"],
    ),
    "original.csv": (
        "prompt,target,original\nA is,b,\"['c']\"\n",
        ["line 2", "column 'original' holds a list"],
    ),
    "nested.csv": ("prompt,target,aliases\nA is,b,\"[['c', 'd'], ['e']]\"\n", ["holds a list"]),
    "text.jsonl": (
        '{"prompt": "A is", "target": "b", "aliases": "[\\"c\\", \\"d\\"]"}',
        ["line 1", "leave out the quotes around the list"],
    ),
}
"""Lists that were written into a text, and so would become one answer with brackets."""

UNFILLED = {
    "prompt.jsonl": (
        '{"prompt": "The capital of {} is", "target": "b"}',
        ["line 1", "has {} in place of the subject"],
    ),
    "subject.csv": (
        "prompt,target,subject\nThe capital of {subject} is,b,Velmora\n",
        ["line 2", "has {subject} in place of the subject"],
    ),
    "paraphrase.jsonl": (
        '{"prompt": "A is", "target": "b", "paraphrases": ["{} was"]}',
        ["line 1", "The prompt '{} was' has {}"],
    ),
}
"""Templates whose subject was never filled in."""

HARMLESS = {
    "twice_the_same.csv": "prompt,target,target\nA is,b,b\n",
    "twice_the_same.jsonl": '{"prompt": "A is", "target": "b", "target": "b"}',
    "list.jsonl": '{"prompt": "A is", "target": "b", "aliases": ["c", "d"]}',
    "code.jsonl": '{"prompt": "In Python, list(\'ab\') is", "target": "[\'a\', \'b\']"}',
    "empty_list.csv": "prompt,target,aliases,paraphrases\nA is,b,[],[]\n",
    "brackets.csv": "prompt,target,aliases\nA is,b,[sic] c|(d)\n",
    "braces.jsonl": '{"prompt": "In Python, `{}` is an empty", "target": "dict"}',
}
"""Files that look alike and are read as they always were."""
