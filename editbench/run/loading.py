"""Load the model that a plan names, wherever its cells are computed."""

from __future__ import annotations

from editbench import doctor
from editbench.models import LanguageModel, load_model
from editbench.run import regimes
from editbench.run.config import RunConfig
from editbench.run.plan import Plan


def load_planned(config: RunConfig, device: str = "auto") -> LanguageModel:
    """Load the model of ``config``.

    Raises:
        ModelError: it cannot be loaded.
    """
    return load_model(config.model, precision=config.precision, device=device, layout=config.layout)


def check_memory(plan: Plan) -> None:
    """Check that the methods of ``plan`` fit into the memory of this machine.

    Raises:
        MethodError: one clearly does not. The message says which, and what would make it fit.
    """
    config, (regime, chunk) = plan.config, regimes.parse(plan.config.regime)
    doctor.check_memory(
        config.model,
        plan.methods,
        [case.fact for case in plan.cases],
        config.precision,
        config.layout,
        1 if regime == "single" else chunk,
    )
