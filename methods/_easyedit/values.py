"""The values that EasyEdit ships, without layers, modules, folders and devices.

They are those of its YAML files at zjunlp/EasyEdit 14cea82, for Llama where there is one;
``algorithms.py`` names the files.
"""

from __future__ import annotations

from collections.abc import Mapping

LOCATE: Mapping[str, object] = {
    "layer_selection": "all",
    "fact_token": "subject_last",
    "v_num_grad_steps": 25,
    "v_lr": 0.5,
    "v_weight_decay": 1e-3,
    "clamp_norm_factor": 4,
    "kl_factor": 0.0625,
    "mom2_adjustment": True,
    "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100_000,
    "mom2_dtype": "float32",
}
"""hparams/MEMIT/llama3.2-3b.yaml, without its layers and modules."""
ROME_VALUES: Mapping[str, object] = {
    **LOCATE,
    "mom2_adjustment": False,
    "context_template_length_params": [[5, 10], [10, 10]],
}
ALPHAEDIT_VALUES: Mapping[str, object] = {
    **LOCATE,
    "clamp_norm_factor": 0.75,
    "v_lr": 0.1,
    "v_weight_decay": 0.5,
    "mom2_update_weight": 15_000,
    "nullspace_threshold": 2e-2,
    "L2": 1,
    "P_loc": "null_space_project.pt",
}
LORA_VALUES: Mapping[str, object] = {
    "lora_type": "adalora",
    "num_steps": 70,
    "batch_size": 1,
    "max_length": 30,
    "lr": 5e-3,
    "weight_decay": 0.0,
    "kl_factor": 0.0,
    "rank": 8,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "norm_constraint": False,
}
MEMIT_VALUES: Mapping[str, object] = {**LOCATE, "mom2_update_weight": 15_000}
EMMET_VALUES: Mapping[str, object] = {
    **LOCATE,
    "mom2_update_weight": 100_000,
    "update_norm_lambda": 0,
    "emmet_lambda": 0.1,
}
EAMET_VALUES: Mapping[str, object] = {
    **LOCATE,
    "ks_bs": 1,
    "clamp_ks_factor": 1,
    "cs_factor": 1,
    "mse_factor": 1,
    "tau": 0.07,
    "norm_factor": 1e-3,
    "delta_init": "target_init",
    "weight_decay_method": "norm",
    "mom2_update_weight": 15_000,
}
SPHERE_VALUES: Mapping[str, object] = {
    **ALPHAEDIT_VALUES,
    "cumulative_ratio": 0.5,
    "suppression_strength": 0.5,
}
PMET_VALUES: Mapping[str, object] = {
    **LOCATE,
    "clamp_norm_factor": 1,
    "v_weight_decay": 0.5,
    "mom2_update_weight": 15_000,
    "nll_loss_factor": 1,
}
FT_VALUES: Mapping[str, object] = {
    "num_steps": 25,
    "batch_size": 1,
    "lr": 5e-4,
    "weight_decay": 0,
    "kl_factor": 0,
    "norm_constraint": False,
    "objective_optimization": "prompt_last",
}
QLORA_VALUES: Mapping[str, object] = {
    "quantization_bit": 4,
    "double_quant": True,
    "quant_type": "nf4",
    "lora_type": "lora",
    "lora_r": 8,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "num_steps": 2,
    "batch_size": 1,
    "max_length": 30,
    "lr": 5e-3,
    "weight_decay": 0.0,
}
DPO_VALUES: Mapping[str, object] = {
    **LORA_VALUES,
    "num_steps": 7,
    "lr": 5e-5,
    "alpha": 0.99,
    "beta": 0.1,
}
SIMIE_VALUES: Mapping[str, object] = {
    "base_method": "ROME",
    "lamHyper": 10_000.0,
    "init_model": True,
    "solver": "LU",
    "fast": False,
    "max_length": 40,
}
ULTRAEDIT_VALUES: Mapping[str, object] = {
    "model_class": "AutoModelForCausalLM",
    "tokenizer_class": "AutoTokenizer",
    "dropout": 0.0,
    "no_grad_layers": None,
    "lr": 1e-6,
    "token": "mask",
    "batch_size_once": 10,
    "editor_batch_size": 1024,
    "silent": False,
    "results_dir": "results",
}
GRACE_VALUES: Mapping[str, object] = {
    "edit_lr": 1.0,
    "n_iter": 50,
    "eps": 1.0,
    "dist_fn": "euc",
    "val_init": "cold",
    "val_train": "sgd",
    "val_reg": "None",
    "reg": "early_stop",
    "replacement": "replace_last",
    "eps_expand": "coverage",
    "num_pert": 8,
    "dropout": 0.0,
}
WISE_VALUES: Mapping[str, object] = {
    "mask_ratio": 0.2,
    "edit_lr": 1.0,
    "n_iter": 70,
    "norm_constraint": 1.0,
    "alpha": 5.0,
    "beta": 20.0,
    "gamma": 10.0,
    "act_ratio": 0.88,
    "save_freq": 500,
    "merge_freq": 1000,
    "merge_alg": "ties",
    "objective_optimization": "only_label",
    "densities": 0.53,
    "weights": 1.0,
    "retrieve": True,
    "replay": False,
}
DEFER_VALUES: Mapping[str, object] = {"edit_lr": 7e-5, "n_iter": 100, "threshold": 0.5}
