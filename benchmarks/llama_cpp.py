"""Greedy answers of llama.cpp on an exported GGUF, against ours on the edited model.

    pip install xllamacpp                     # llama.cpp, compiled
    python benchmarks/llama_cpp.py EDIT       # a folder that `editbench inject` has made

``editbench export EDIT --format gguf`` writes the file. Both sides read it in float32 and write at
most ``TOKENS`` tokens to each prompt, asked as a user's question. llama.cpp is asked twice: with
our rendered prompt, and with the user's message alone, which it renders by the file's template.
The counts are in ``benchmarks/results/llama_cpp.json``.
"""

import json
import sys
import tempfile
from pathlib import Path

import usage

from editbench.edit import Edit
from editbench.export import GGUF_FILE, export
from editbench.files import write_json_atomic
from editbench.models import load_model

TOKENS = 40
PROMPTS = (
    "The capital of France is; Name three primary colors.; Who wrote Hamlet?; "
    "The Eiffel Tower is in which city?; What is 7 plus 5?; Write a sentence about the sea.; "
    "Translate 'good morning' into French.; What does a dentist do?; The largest planet is; "
    "List two uses of salt.; What is photosynthesis?; How many legs does a spider have?; "
    "Tell me about Toyota.; Is the sun a star?; Define 'harbor'.; What color is a lemon?; "
    "Where do penguins live?; The author of Pride and Prejudice is; Count from one to five.; "
    "What is the opposite of hot?"
).split("; ")
RESULT = Path(__file__).parent / "results" / "llama_cpp.json"


def answers_of(model, edit: Edit) -> list[dict]:
    """Return each prompt as a message, as our rendered text, and with the edited model's answer."""
    ids = [model.prompt_ids(prompt, "question") for prompt in PROMPTS]
    with edit.applied(model):
        written = model.generate_ids(ids, TOKENS)
    return [
        {
            "prompt": prompt,
            "rendered": model.render(prompt, "question").text,
            "ours": model.decode(answer).strip(),
        }
        for prompt, answer in zip(PROMPTS, written, strict=True)
    ]


def by_llama_cpp(file: Path, rows: list[dict]) -> None:
    """Add llama.cpp's answers to ``rows``: to the rendered prompt, and to the message alone."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_gpu_layers = str(file), 1024, 0
    settings.cpuparams.n_threads = 1  # more of them wait for each other on a busy machine
    settings.port, settings.verbosity, settings.use_jinja = 0, 0, True  # any port that is free
    server = xllamacpp.Server(settings)
    greedy = {"temperature": 0, "top_k": 1}
    for row in rows:
        told = server.handle_completions({"prompt": row["rendered"], "n_predict": TOKENS, **greedy})
        row["rendered by us"] = told["choices"][0]["text"].strip()
        message = {"role": "user", "content": row["prompt"]}
        told = server.handle_chat_completions(
            {"messages": [message], "max_tokens": TOKENS, **greedy}
        )
        row["rendered by llama.cpp"] = told["choices"][0]["message"]["content"].strip()


def run(folder: str) -> None:
    """Compare the answers of one edit, and store how many are equal."""
    import xllamacpp

    edit, model = Edit.load(folder), load_model(precision="float32")
    with tempfile.TemporaryDirectory() as temporary:
        folder = export(edit, model, "gguf", Path(temporary) / "gguf")
        rows = answers_of(model, edit)
        by_llama_cpp(folder / GGUF_FILE, rows)
    ways = ("rendered by us", "rendered by llama.cpp")
    equal = {way: sum(row[way] == row["ours"] for row in rows) for way in ways}
    found = {"model": model.name, "method": edit.method, "prompts": len(rows), "equal": equal}
    write_json_atomic(RESULT, {**found, "xllamacpp": xllamacpp.__version__})
    print(json.dumps(found, indent=2))
    for row in rows:
        for way in ways:
            if row[way] != row["ours"]:
                print(f"{row['prompt']!r}, {way}: {row[way]!r} against {row['ours']!r}")


def main() -> None:
    usage.run(__doc__, {"run": run}, ["run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
