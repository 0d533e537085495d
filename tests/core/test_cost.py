"""Work is counted at the decoder layers, by phase, whoever calls them."""

from copy import deepcopy

import torch

from editbench.cost import Meter
from editbench.testing import tiny_model


def test_tokens_passes_and_gradients_are_counted():
    model = tiny_model("llama")
    ids_BT = torch.ones(3, 5, dtype=torch.long)
    with Meter(model) as meter:
        model.model(ids_BT)  # outside of any phase
        with meter.phase("a"), torch.no_grad():
            model.model(ids_BT)
            model.model(ids_BT)
        with meter.phase("b"):
            model.model(ids_BT)
        with meter.phase("a"), torch.no_grad():
            model.model(ids_BT)
    assert meter.work == {
        "a": {"passes": 3, "tokens": 45, "gradient_tokens": 0, "decoded_tokens": 0},
        "b": {"passes": 1, "tokens": 15, "gradient_tokens": 15, "decoded_tokens": 0},
    }
    assert (
        set(meter.seconds) == {"a", "b", "total"}
        and meter.peak == meter.peak_process > 0
        and meter.peak_device == 0
    )
    model.model(ids_BT)
    assert meter.work["b"]["passes"] == 1, "the hooks are gone"


def test_a_pass_through_half_of_the_layers_is_half_a_pass():
    model = tiny_model("gpt2")
    seen = {}
    layer = model.layout.layer(model.model, 0)
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    ids_BT = torch.ones(1, 4, dtype=torch.long)
    model.model(ids_BT)
    hook.remove()
    with Meter(model) as meter, meter.phase("part"), torch.no_grad():
        for i in range(2):
            model.layout.layer(model.model, i)(*seen["args"], **seen["kwargs"])
        for _ in range(2):
            model.layout.layer(model.model, 3)(*seen["args"], **seen["kwargs"])
    assert meter.work["part"] == {
        "passes": 1,
        "tokens": 4,
        "gradient_tokens": 0,
        "decoded_tokens": 0,
    }


def test_written_tokens_are_counted():
    model = tiny_model("llama")
    with Meter(model) as meter:
        with meter.phase("written"):
            written = model.generate_ids([[5, 6, 7], [8, 9]], 6, stop=False)
        with meter.phase("by transformers"):
            model.model.generate(
                torch.ones(1, 3, dtype=torch.long),
                max_new_tokens=6,
                min_new_tokens=6,
                do_sample=False,
            )
    assert [len(ids) for ids in written] == [6, 6]
    # The last one written goes nowhere, and the last one of each prompt is read alone.
    assert meter.work["written"]["decoded_tokens"] == 2 * (5 + 1)
    assert meter.work["by transformers"]["decoded_tokens"] == 5


def test_the_work_of_a_copy_counts_too():
    model, ids_BT = tiny_model("llama"), torch.ones(1, 4, dtype=torch.long)
    with Meter(model) as meter, meter.phase("teacher"), torch.no_grad():
        deepcopy(model.model)(ids_BT)
    assert meter.work["teacher"] == {
        "passes": 1,
        "tokens": 4,
        "gradient_tokens": 0,
        "decoded_tokens": 0,
    }


def test_a_model_with_layers_that_nobody_named_has_no_count():
    model = tiny_model("llama", layout={"mlp_out": "nothing"})
    with Meter(model) as meter, meter.phase("a"):
        model.model(torch.ones(1, 2, dtype=torch.long))
    assert meter.work == {} and meter.seconds["a"] > 0
