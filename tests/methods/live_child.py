"""A child process with an edited model of transformers: each edit adds a number to one weight.

``python live_child.py REQUESTS REPLIES``: everything but the edit is the child of EasyEdit itself.
"""

from pathlib import Path

import torch

from editbench.methods._easyedit import child
from editbench.methods._easyedit.serve import Server
from editbench.models import load_model


@torch.no_grad()
def again(request, model):
    model.get_parameter(request["weight"]).add_(float(request["size"]))
    return {}, model


def first(request):
    loaded = load_model(request["model"], precision="float32")
    again(request, loaded.model)
    return {"live": True}, Server(loaded.model, loaded.tokenizer, Path.cwd(), again)


if __name__ == "__main__":
    child._first = first
    child.main()
