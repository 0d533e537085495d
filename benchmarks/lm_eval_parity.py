"""Compare lm-eval's command line with ours: the same documents, prompts and numbers, by sample.

    python benchmarks/lm_eval_parity.py ../shared/data

The model is saved as a plain folder. ``python -m lm_eval`` asks it from local files, without this
package except for the grader of the pack's task; then ``retention.evaluate`` asks the same model in
memory. Both use float32 and one batch size. ``benchmarks/results/lm_eval_parity.json`` holds counts
and mean scores only, no text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editbench.eval import retention, standard_tasks, task_rows
from editbench.models import LanguageModel, load_model, quiet_transformers

TASKS = {
    "hellaswag": ("hellaswag/hellaswag_val_10042.jsonl", 40),
    "lambada_openai": ("lambada/lambada_test.jsonl", 40),
    "gsm8k": ("gsm8k/test.jsonl", 8),
    "eb_arithmetic": (None, 40),
    "eb_instruct": (None, 24),
}
"""Task -> its file in the data folder, and how many documents: choice, likelihood, generation.

The default model gets none of gsm8k right, so two generations of the pack, which bring their data,
are asked, too."""
CHAT = ("eb_instruct",)
"""Asked through the chat template, which is an option of lm-eval's command: a run of its own."""
BATCH = 8
RESULT = Path(__file__).parent / "results" / "lm_eval_parity.json"


def compare(
    model: LanguageModel, files: Mapping[str, Path | None], limits: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Return, for each task, how many of its documents agree, and both mean scores."""
    ours = {
        task: retention.evaluate(
            model.model,
            model.tokenizer,
            [task],
            limit=limits[task],
            batch_size=BATCH,
            task_data={task: path} if path else None,
        )[task]
        for task, path in files.items()
    }
    theirs = command_line(
        model,
        files,
        {task: [sample.doc_id for sample in samples] for task, samples in ours.items()},
    )
    return {task: _agreement(ours[task], theirs[task]) for task in files}


def command_line(
    model: LanguageModel, files: Mapping[str, Path | None], ids: Mapping[str, list[int]]
) -> dict[str, list[dict[str, Any]]]:
    """Return what ``python -m lm_eval --log_samples`` writes for the documents ``ids``, by task."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        with quiet_transformers():
            model.model.save_pretrained(folder / "model")
            model.tokenizer.save_pretrained(folder / "model")
        for task, path in files.items():
            lines = f"include: {standard_tasks.find(task)}\ntask: local_{task}\n"
            if path is not None:
                rows = "".join(json.dumps(row) + "\n" for row in task_rows.hub_rows(task, path))
                (folder / f"{task}.jsonl").write_text(rows, encoding="utf-8")
                lines += _from_rows(folder / f"{task}.jsonl")
            (folder / f"{task}.yaml").write_text(lines, encoding="utf-8")
        for chat in (False, True):
            _run(
                folder,
                {task: chosen for task, chosen in ids.items() if (task in CHAT) == chat},
                chat,
            )
        return {task: _logged(folder / "out", task) for task in files}


def _run(folder: Path, ids: Mapping[str, list[int]], chat: bool) -> None:
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--device",
        "cpu",
        "--batch_size",
        str(BATCH),
    ]
    command += ["--model_args", f"pretrained={folder / 'model'},dtype=float32"]
    command += ["--tasks", ",".join(f"local_{task}" for task in ids), "--include_path", str(folder)]
    command += ["--samples", json.dumps({f"local_{task}": chosen for task, chosen in ids.items()})]
    command += [
        "--log_samples",
        "--output_path",
        str(folder / "out"),
        *(["--apply_chat_template"] if chat else []),
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lm_eval ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _from_rows(rows: Path) -> str:
    """Return the YAML that gives lm-eval's task its documents from ``rows`` and no examples.

    ``--task-data`` does the same.
    """
    return f"""\
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {{test: {json.dumps(str(rows))}}}}}
test_split: test
validation_split: null
training_split: null
fewshot_split: null
num_fewshot: 0
"""


def _logged(folder: Path, task: str) -> list[dict[str, Any]]:
    (file,) = folder.rglob(f"samples_local_{task}_*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    kept = retention.FILTERS.get(task, rows[0]["filter"])
    return sorted((row for row in rows if row["filter"] == kept), key=lambda row: row["doc_id"])


def _agreement(ours: list[retention.Sample], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    metric = ours[0].metric.split(",")[0]
    pairs = list(zip(ours, theirs, strict=True))
    scores = [float(row[metric]) for row in theirs]
    return {
        "metric": ours[0].metric,
        "n": len(pairs),
        "same document": sum(mine.doc_id == row["doc_id"] for mine, row in pairs),
        "same prompt": sum(
            mine.prompt == row["arguments"]["gen_args_0"]["arg_0"] for mine, row in pairs
        ),
        "same answer": sum(mine.output == _answer(row) for mine, row in pairs),
        "same score": sum(
            mine.score == score for (mine, _), score in zip(pairs, scores, strict=True)
        ),
        "ours": sum(mine.score for mine in ours) / len(pairs),
        "lm_eval": sum(scores) / len(pairs),
    }


def _answer(row: dict[str, Any]) -> str:
    """Return the model's answer in the words of ``retention.Sample.output``; the log has texts."""
    arguments, answers = list(row["arguments"].values()), [answer[0] for answer in row["resps"]]
    if isinstance(answers[0], str):
        return answers[0]
    likelihoods = [float(answer[0]) for answer in answers]
    if len(answers) == 1:
        greedy = "greedy" if str(answers[0][1]) == "True" else "not greedy"
        return f"{greedy}, log-probability {likelihoods[0]:.3f}"
    return arguments[likelihoods.index(max(likelihoods))]["arg_1"].strip()


def main() -> None:
    data = Path(sys.argv[1])
    files = {task: file and data / file for task, (file, _) in TASKS.items()}
    found = compare(
        load_model(precision="float32"), files, {task: limit for task, (_, limit) in TASKS.items()}
    )
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for task, row in found.items():
        print(task, ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
