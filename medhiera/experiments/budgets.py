"""The recipes and lengths of the experiments, by budget: `paper`, and `smoke` for minutes on a CPU.

Beside arms.py, which says what is compared; reproduce.py puts the two together.
"""

EACH_EPOCH = ("--eval_strategy", "epoch", "--save_strategy", "epoch", "--max_steps", "-1")

BUDGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "smoke": {
        "train_mae.py": ("configs/mae_smoke.yaml", *EACH_EPOCH, "--num_train_epochs", "5"),
        "train_cls.py": ("configs/cls_smoke.yaml", *EACH_EPOCH, "--num_train_epochs", "4"),
    },
    "paper": {
        "train_mae.py": ("configs/mae_paper.yaml", "--num_train_epochs", "20"),  # 20 in the ablation, not 80
        "train_cls.py": ("configs/cls_paper.yaml",),
    },
}

MASK_BUDGETS: dict[str, dict[str, tuple[str, ...]]] = {
    # 192 px: 36 mask units, of which 9 are seen and are drawn one by one
    "smoke": {
        "train_mae.py": (
            "configs/mae_hd_smoke.yaml", "--image_size", "192", "--resize_size", "192", "--mask_block", "1",
            "--per_device_train_batch_size", "32", "--max_eval_images", "1000",
            "--max_steps", "1500", "--eval_steps", "500", "--save_steps", "500",
        ),
        "train_cls.py": (
            "configs/cls_smoke.yaml", "--image_size", "192", "--resize_size", "192", "--max_steps", "200",
        ),
    },
    "paper": {
        "train_mae.py": ("configs/mae_hd.yaml",),
        "train_cls.py": ("configs/cls_hd.yaml",),
    },
}  # fmt: skip
"""Of the masks experiment, whose scripts that score have no recipe."""

RATIO_BUDGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "smoke": {
        "train_mae.py": ("configs/mae_modern_smoke.yaml",),
        "train_cls.py": ("configs/cls_modern_smoke.yaml",),
    },
    "paper": {
        "train_mae.py": ("configs/mae_modern.yaml",),
        "train_cls.py": ("configs/cls_modern.yaml",),
    },
}
"""Of the ratios experiment; the paper's recipe has one ratio."""

LABEL_BUDGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "smoke": {"train_cls.py": ("configs/cls_smoke.yaml", "--max_steps", "200")},
    "paper": {"train_cls.py": ("configs/cls_rsna.yaml",)},
}
"""Of the labels experiment, which trains classifiers alone."""

FROM_STAGE0 = dict.fromkeys(("train_mae.py", "train_cls.py"), ("--model_overrides", "{}"))
"""A recipe's own small geometry would contradict the checkpoint's; and arms from random weights are compared
with those that start from it."""

MASKS_FROM_STAGE0 = {
    "train_mae.py": (
        *(
            "--model_overrides",
            '{"num_channels": 1, "num_query_pool": 3, "position_interpolation": "windowed"}',
        ),
        *("--reset_decoder", "true"),
    ),
    "train_cls.py": ("--model_overrides", '{"position_interpolation": "windowed"}'),
}

SEEDS = {"smoke": 2, "paper": 3}
MASK_SEEDS = 3
