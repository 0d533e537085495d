"""Choose the defaults: the same number of trials for every method, on dev facts only.

    python benchmarks/tune_defaults.py            # about two hours on two cores; resumes
    python benchmarks/tune_defaults.py sft mixsd  # only these

Corpus demo-counterfact, dev slice, 40 facts; retention on eb_instruct and eb_reading, 40 items
each. The objective is the leaderboard's score, the harmonic mean of efficacy, generalization,
specificity and mean retention. ``benchmarks/results/tune_defaults.json`` keeps all trials.
"""

import json
import sys
import tempfile
from pathlib import Path

from editbench import progress
from editbench.cli import console
from editbench.files import write_json_atomic
from editbench.leaderboard.rows import row
from editbench.models import load_model
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan

TRIALS = {
    "sft": [{"lr": lr, "epochs": epochs} for lr in (2e-5, 5e-5) for epochs in (8, 14)],
    "mixsd": [{"lr": lr, "epochs": epochs} for lr in (2e-5, 5e-5) for epochs in (8, 14)],
    "opsd": [{"lr": lr, "epochs": epochs} for lr in (3e-5, 1e-4) for epochs in (8, 14)],
    "memit": [{"lam": lam, "clamp": clamp} for lam in (150, 512) for clamp in (0.75, 1.5)],
    "rome": [{"layer": layer, "clamp": clamp} for layer in (5, 8) for clamp in (2.0, 4.0)],
}
RESULT = Path(__file__).parent / "results" / "tune_defaults.json"


def main(methods: list[str]) -> None:
    """Run the trials of ``methods`` that are not stored yet."""
    done = json.loads(RESULT.read_text()) if RESULT.exists() else []
    model = load_model()
    for method in methods:
        for options in TRIALS[method]:
            if any(t["method"] == method and t["options"] == options for t in done):
                continue
            config = RunConfig(
                methods=(method,),
                model="smollm2-135m",
                corpus="demo-counterfact",
                part="dev",
                n=40,
                tasks=("eb_instruct", "eb_reading"),
                limit=40,
                options={method: options},
            )
            with tempfile.TemporaryDirectory() as folder, progress.reporting(console.Lines(60)):
                with RunStore(folder).open(run_identity(config)) as store:
                    (summary,) = runner.run(make_plan(config), model, store, lambda *_: None)
            found = row(summary)
            kept = (
                "score",
                "efficacy",
                "generalization",
                "specificity",
                "retention",
                "seconds",
                "status",
                "note",
            )
            done.append({"method": method, "options": options, **{key: found[key] for key in kept}})
            RESULT.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(RESULT, done)
            axes = " ".join(
                f"{a} {found[a]['mean'] or 0:.2f}"
                for a in ("efficacy", "generalization", "specificity")
            )
            kept = " ".join(
                f"{t} {r['mean']:.2f} (base {r['base']:.2f})" for t, r in found["retention"].items()
            )
            print(
                f"{method} {options}: score {found['score'] or 0:.3f} {axes} {kept} "
                f"{found['seconds'] or 0:.0f}s",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or list(TRIALS))
