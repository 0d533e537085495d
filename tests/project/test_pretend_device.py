"""The pretend accelerator of the tests refuses what CUDA refuses, and allows what CUDA allows."""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import ClassVar

import numpy as np
import pretend_device
import pytest
import torch

from editbench.plugin import Method
from editbench.testing import FACTS, check_method, tiny_model

pytestmark = pytest.mark.skipif(
    not pretend_device.AVAILABLE, reason="this PyTorch takes no device from Python"
)
HERE, THERE = "cpu", "pretend:0"


@pytest.fixture(scope="module", autouse=True)
def registered():
    pretend_device.register()


def there(*values, **how):
    return torch.tensor(values, device="pretend", **how)


def seeded():
    return torch.Generator().manual_seed(0)


MISTAKES = {
    "a sum": lambda: there(1.0, 2.0) + torch.ones(2),
    "a product of matrices": lambda: torch.ones(2, 2) @ torch.ones(2, 2, device="pretend"),
    "a mask": lambda: there(1.0, 2.0).masked_fill(torch.tensor([True, False]), 0.0),
    "arange in a comparison": lambda: there(1, 2) < torch.arange(2),
    "cat": lambda: torch.cat([there(1.0), torch.ones(1)]),
    "stack of scalars": lambda: torch.stack([there(1.0)[0], torch.tensor(1.0)]),
    "where": lambda: torch.where(there(True), there(1.0), torch.ones(1)),
    "gather": lambda: there(1.0, 2.0).gather(0, torch.tensor([1])),
    "index_add": lambda: there(1.0, 2.0).index_add(0, torch.tensor([1]), there(1.0)),
    "an index of the device into the CPU": lambda: torch.ones(2)[there(1)],
    "values of the CPU written by index": lambda: there(1.0, 2.0).index_put_(
        (there(0, 1),), torch.ones(2)
    ),
    "ids": lambda: torch.nn.Embedding(3, 2, device="pretend")(torch.tensor([1])),
    "labels": lambda: torch.nn.functional.cross_entropy(
        torch.ones(2, 3, device="pretend"), torch.tensor([0, 1])
    ),
    "in place on a scalar of the CPU": lambda: torch.tensor(0.0).add_(there(1.0)[0]),
    "equal": lambda: torch.equal(there(1.0), torch.ones(1)),
    "allclose": lambda: torch.allclose(there(1.0), torch.ones(1)),
    "draws in place": lambda: there(1.0).normal_(generator=seeded()),
    "draws": lambda: torch.rand(2, device="pretend", generator=seeded()),
    "multinomial": lambda: there(0.5, 0.5).multinomial(1, generator=seeded()),
    "a gradient": lambda: torch.autograd.grad(
        there(1.0, requires_grad=True), there(1.0, requires_grad=True), torch.ones(1)
    ),
    "two devices": lambda: there(1.0) + torch.ones(1, device="pretend:1"),
    "no such device": lambda: torch.ones(1, device="pretend:7"),
    "float64 where there is none": lambda: torch.ones(1, device="pretend:1").double(),
    "numpy": lambda: there(1.0).numpy(),
    "an array": lambda: np.asarray(there(1.0)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cuda_refuses_is_refused(mistake):
    with pytest.raises((pretend_device.DeviceError, RuntimeError, TypeError)):
        MISTAKES[mistake]()


ALLOWED = {
    "a scalar of the CPU": (lambda: there(1.0) * torch.tensor(3.0), THERE),
    "a scalar of the CPU in where": (
        lambda: torch.where(there(True), there(1.0), torch.tensor(3.0)),
        THERE,
    ),
    "a scalar of the CPU in a mask": (
        lambda: there(1.0).masked_fill(there(True), torch.tensor(3.0)),
        THERE,
    ),
    "an index of the CPU": (lambda: there(1.0, 2.0)[torch.tensor([1])], THERE),
    "a list as index": (lambda: there(1.0, 2.0)[[1]], THERE),
    "a copy to the device": (lambda: there(0.0).copy_(torch.ones(1)), THERE),
    "a copy from the device": (lambda: torch.zeros(1).copy_(there(1.0)), HERE),
    "to": (lambda: torch.ones(1).to("pretend", non_blocking=True), THERE),
    "to like": (lambda: torch.ones(1).to(there(1.0)), THERE),
    "cpu": (lambda: there(1.0).cpu(), HERE),
    "back with another dtype": (lambda: there(1.0).to("cpu", torch.float64), HERE),
    "a factory without a device": (lambda: torch.zeros(2), HERE),
    "a factory with one": (lambda: torch.arange(3, device="pretend"), THERE),
    "new": (lambda: there(1.0).new_zeros(2), THERE),
    "like": (lambda: torch.zeros_like(there(1.0)), THERE),
    "like, but on the CPU": (lambda: torch.zeros_like(there(1.0), device="cpu"), HERE),
    "draws of the CPU, moved": (lambda: torch.rand(2, generator=seeded()).to("pretend"), THERE),
    "a view": (lambda: there(1.0, 2.0).view(2, 1).T.squeeze(0), THERE),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_cuda_allows_is_on_its_device(case):
    make, device = ALLOWED[case]
    assert str(make().device) == device


def test_values_are_those_of_the_cpu():
    x = there(3.0, 4.0, requires_grad=True)
    (x.norm() ** 2).backward()
    assert x.grad.tolist() == [6.0, 8.0] and str(x.grad.device) == THERE
    view = x.detach()[1:]
    view.add_(1.0)  # the view writes into its base
    assert x.tolist() == [3.0, 5.0] and float(view) == 5.0
    assert view.squeeze_().shape == () and there([1.0, 2.0]).t_().shape == (2, 1)


def test_it_has_a_random_state_of_its_own():
    with torch.random.fork_rng(["pretend:0"], device_type="pretend"):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first = torch.rand(4, device="pretend").tolist()
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.rand(4, device="pretend").tolist() != first
        torch.manual_seed(3)
        assert torch.rand(4, device="pretend").tolist() == first


def test_autocast_casts_as_cuda_does():
    weight = torch.ones(3, 2, device="pretend", requires_grad=True)
    with torch.autocast("pretend", dtype=torch.bfloat16):
        product = torch.ones(1, 2, device="pretend") @ weight.T
        assert product.dtype == torch.bfloat16
        assert product.softmax(-1).dtype == torch.float32
        with torch.autocast("pretend", enabled=False):
            assert (weight @ weight.T).dtype == torch.float32
    product.float().sum().backward()
    assert weight.grad.dtype == torch.float32 and weight.grad.tolist() == [[1.0, 1.0]] * 3


@pytest.mark.parametrize("how", [{}, {"fused": True}, {"foreach": True}])
def test_optimizers_step_as_on_the_cpu(how):
    layers = [torch.nn.Linear(3, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    layers[1].to("pretend")
    for layer in layers:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, **how)
        layer(torch.ones(1, 3, device=layer.weight.device)).sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(layers[1].weight.cpu(), layers[0].weight)


def test_a_model_moves_with_its_ties_and_copies():
    model = tiny_model("llama")
    there = pretend_device.moved(model)
    assert str(there.device) == THERE and there.fingerprint() == model.fingerprint()
    for copied in (there.model, deepcopy(there.model), pickle.loads(pickle.dumps(there.model))):
        assert copied.lm_head.weight is copied.model.embed_tokens.weight
        assert str(copied.lm_head.weight.device) == THERE and copied.lm_head.weight.requires_grad
        assert isinstance(copied.lm_head.weight, torch.nn.Parameter)


def test_several_devices_have_gradients():
    x = torch.ones(2, device="pretend:1", requires_grad=True)
    (x.to("pretend:0") * 2).sum().backward()
    assert str(x.grad.device) == "pretend:1"


# --- in a method: a mistake in the middle of an injection -----------------------------------------


@pytest.fixture(scope="module")
def model(reader):
    return pretend_device.moved(reader("llama"))


class Step(Method):
    """One gradient step on one weight. The classes below are each wrong in one place."""

    name: ClassVar[str] = "step"
    weight: ClassVar[str] = "model.layers.1.mlp.down_proj.weight"

    def inject(self, model, facts):
        if not facts:
            return self.edit(model, facts)
        loss = sum(self.loss(model, fact) for fact in facts)
        (gradient,) = torch.autograd.grad(loss, model.weight(self.weight))
        return self.edit(model, facts, {self.weight: self.change(gradient.detach())})

    def loss(self, model, fact):
        prompt, target = model.pair_ids(fact.prompt, fact.target, fact.form)
        ids = self.tensor([prompt + target], model.device)
        states = model.hidden(ids[:, :-1], self.mask(ids[:, :-1]))[0, -len(target) :]
        return torch.nn.functional.cross_entropy(model.logits(states), self.labels(ids, target))

    def tensor(self, rows, device):
        return torch.tensor(rows, device=device)

    def mask(self, ids):
        return torch.ones_like(ids)

    def labels(self, ids, target):
        return ids[0, -len(target) :]

    def change(self, gradient):
        return -gradient / gradient.norm()


class IdsOnTheCPU(Step):
    def tensor(self, rows, device):
        return torch.tensor(rows)


class MaskOnTheCPU(Step):
    def mask(self, ids):
        return torch.ones(ids.shape, dtype=torch.long)


class LabelsOnTheCPU(Step):
    def labels(self, ids, target):
        return torch.tensor(target)


class PlacesOnTheCPU(Step):
    def labels(self, ids, target):
        return ids[0].gather(0, torch.arange(ids.shape[1])[-len(target) :])


class NoiseOnTheCPU(Step):
    def change(self, gradient):
        noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(self.seed))
        return super().change(gradient) + 1e-4 * noise


class SeededOnTheCPU(Step):
    def change(self, gradient):
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.empty_like(gradient).normal_(generator=generator)
        return super().change(gradient) + 1e-4 * noise


class GoesToNumPy(Step):
    def change(self, gradient):
        return torch.from_numpy(-gradient.numpy() / gradient.norm().item())


class DrawsFromTheDevice(Step):
    def change(self, gradient):
        return super().change(gradient) + 1e-4 * torch.randn_like(gradient)


def test_a_method_that_minds_the_device_passes(model, tmp_path):
    check_method(Step, model, FACTS, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (IdsOnTheCPU, "same device, but aten.embedding"),
        (MaskOnTheCPU, "same device"),
        (LabelsOnTheCPU, "same device, but aten.nll_loss"),
        (PlacesOnTheCPU, "same device, but aten.gather"),
        (NoiseOnTheCPU, "same device, but aten.add"),
        (SeededOnTheCPU, "'pretend' device type for generator but found 'cpu'"),
        (GoesToNumPy, "numpy"),
        (DrawsFromTheDevice, "inject changed the random state of the device"),
    ],
)
def test_a_mistake_in_a_method_is_found(wrong, complaint, model, tmp_path):
    with pytest.raises((RuntimeError, AssertionError), match=complaint):
        check_method(wrong, model, FACTS, tmp_path)
    if wrong is not DrawsFromTheDevice:  # on the CPU nobody notices
        check_method(wrong, tiny_model("llama"), FACTS, tmp_path / "cpu")
