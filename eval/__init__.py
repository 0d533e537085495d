"""Applied model in, scores out. Does not know who made the edit."""

BUILTINS = {
    "probes": "editbench.eval.probes:ask",
    "metrics": "editbench.eval.probes:metrics",
    "protocols": "editbench.eval.probes:PROTOCOLS",
    "rescore": "editbench.eval.rescoring:rescore",
    "rescore-samples": "editbench.eval.rescoring:rescore_samples",
    "judge": "editbench.eval.judge:judge",
    "check-judge": "editbench.eval.judge:check_endpoint",
    "retention": "editbench.eval.retention:evaluate",
    "task-digest": "editbench.eval.retention:data_digest",
    "task-names": "editbench.eval.retention:task_names",
    "resolve-tasks": "editbench.eval.retention:resolve_tasks",
    "unloadable-tasks": "editbench.eval.retention:unloadable",
    "diagnostics": "editbench.eval.diagnostics:diagnose",
    "diagnostic-names": "editbench.eval.diagnostics:NAMES",
    "check-diagnostics": "editbench.eval.diagnostics:check_names",
}
