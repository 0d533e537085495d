"""Runs written by tests: records of chosen answers, without a model."""

from editbench.files import write_json_atomic
from editbench.records.store import RunStore

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</td></table></details><h1>owned</h1>",
    "safe\u202egnp.exe\u2066",
    "\x1b[31mred\x07\x00\x9b0m",
    "[bold red]markup[/bold red] [/] :warning: {{ 7 * 7 }} {% raw %}",
    "zero\u200bwidth\u2028line\r\x85",
    "x" * 20_000,
)


PARTS = {"options": {}, "model": {}, "corpus": {}, "metrics": {}, "retention": {}, "seed": 0}


def probe(fact, index, axis, text, base_text, generation, **changes):
    return {
        "case": fact,
        "probe": index,
        "axis": axis,
        "form": "cloze",
        "prompt": f"{axis} of {fact} is",
        "answers": ["Rome"],
        "distractor": "Paris",
        "text": text,
        "base_text": base_text,
        "generation": generation,
        "argmax": 1.0,
        "likelihood": None,
        "base_generation": 0.0,
        **changes,
    }


def sample(document, output, score, base_score=1.0, task="arc"):
    return {
        "task": task,
        "member": task,
        "doc_id": document,
        "prompt": f"question {document}",
        "expected": "blue",
        "output": output,
        "score": score,
        "base_score": base_score,
        "base_output": "blue",
        "metric": "acc",
    }


def write_run(
    folder,
    cells,
    facts=({"id": "a", "prompt": "rewrite of a is", "target": "Rome", "original": "Paris"},),
    **changes,
):
    """A run folder; ``cells``: method to probes, samples and edit records, or to why it failed.

    ``changes`` go into every summary.
    """
    with RunStore(folder).open({"methods": list(cells)}) as store:
        write_json_atomic(folder / "cases.json", facts)
        for method, tables in cells.items():
            failed = isinstance(tables, str)
            summary = {
                **PARTS,
                "method": method,
                "status": "failed" if failed else "done",
                "note": tables if failed else "",
                "model": {"name": "tiny", "hash": "w"},
                "corpus": {"name": "local", "hash": "c"},
                "environment": {"code": "k", "packages": {"torch": "2"}},
                **changes,
            }
            names = ("probes", "retention", "edit_records")
            store.write_cell(
                f"{method}-0", summary, {} if failed else dict(zip(names, tables, strict=True))
            )
    return folder


def write_hostile(folder):
    """A run whose every text is hostile: prompts, answers, ids, names."""
    probes = [
        probe(
            text,
            0,
            "rewrite",
            text,
            text,
            0.0,
            prompt=text,
            answers=[text],
            argmax=None,
            base_generation=1.0,
        )
        for text in HOSTILE
    ]
    texts = [dict.fromkeys(("prompt", "expected", "base_output"), text) for text in HOSTILE]
    samples = [{**sample(i, text, 0.0), **texts[i]} for i, text in enumerate(HOSTILE)]
    facts = [{"id": text, "prompt": text, "target": text, "original": text} for text in HOSTILE]
    name = "sft@<b>[x]"
    with RunStore(folder).open({"methods": [name]}) as store:
        write_json_atomic(folder / "cases.json", facts)
        environment = {"code": HOSTILE[2], "packages": {"x": HOSTILE[0]}}
        summary = {
            **PARTS,
            "method": name,
            "status": "no_effect",
            "note": HOSTILE[0],
            "model": {"name": HOSTILE[0]},
            "corpus": {"name": HOSTILE[1]},
            "environment": environment,
        }
        edited = [{"fact": text, "text": text} for text in HOSTILE]
        store.write_cell(
            "sft-0", summary, {"probes": probes, "retention": samples, "edit_records": edited}
        )
    return folder
