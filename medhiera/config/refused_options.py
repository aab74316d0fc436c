"""The fields of transformers' TrainingArguments that no recipe may set, and why: --help leaves them out.

Imports nothing: training_options.py refuses them, help.py is read before PyTorch is.
"""

OF_THE_STAGE = "each stage knows this by itself"
OF_LANGUAGE_MODELS = "it is for models of text"
OF_THE_SCRIPTS = "train_mae.py and train_cls.py train and evaluate; evaluate_cls.py only evaluates"

NOT_TAKEN = {
    # the evaluation
    "prediction_loss_only": OF_THE_STAGE,
    "label_names": OF_THE_STAGE,
    "include_for_metrics": OF_THE_STAGE,
    "batch_eval_metrics": "AUROC is of a whole split, not of a batch; eval_accumulation_steps saves memory",
    "eval_do_concat_batches": "the scores of a split are one table",
    "eval_use_gather_object": "the ranks exchange tensors",
    "bf16_full_eval": "the reported numbers are computed in single precision",
    "fp16_full_eval": "the reported numbers are computed in single precision",
    "label_smoothing_factor": "it is for one label an image; use stage 2's label_smoothing",
    # the order of images, and what a step is
    "train_sampling_strategy": "the order of the images follows from seed and epoch alone",
    "length_column_name": "the order of the images follows from seed and epoch alone",
    "data_seed": "the order of the images follows from `seed`",
    "dataloader_in_order": "batches out of order would give images the scores of others",
    "accelerator_config": "it would change which images a rank reads",
    "average_tokens_across_devices": "the loss is divided by the labels of all ranks together",
    "auto_find_batch_size": "it would change the batch without a word; where memory ends, the run ends and "
    "says which batch fits",
    # resuming
    "ignore_data_skip": "a resumed run would see images twice and others never",
    "save_only_model": "a run could not be resumed; save_total_limit bounds the disk space",
    "restore_callback_states_from_checkpoint": "early stopping counts from the log that a checkpoint has",
    "enable_jit_checkpoint": "SIGTERM writes a checkpoint already",
    # what Hiera or these scripts have no use for
    "neftune_noise_alpha": OF_LANGUAGE_MODELS,
    "use_liger_kernel": OF_LANGUAGE_MODELS,
    "liger_kernel_config": OF_LANGUAGE_MODELS,
    "use_cache": OF_LANGUAGE_MODELS,
    "include_num_input_tokens_seen": OF_LANGUAGE_MODELS,
    "do_train": OF_THE_SCRIPTS,
    "do_eval": OF_THE_SCRIPTS,
    "do_predict": OF_THE_SCRIPTS,
    "deepspeed": "models are sharded by FSDP here, see configs/accelerate/fsdp2.yaml",
    "parallelism_config": "models are sharded by FSDP here, see configs/accelerate/fsdp2.yaml",
    # transformers' own push: one finished stage goes up, once
    "hub_strategy": "only the finished stage is published, once",
    "hub_always_push": "only the finished stage is published, once",
    "hub_revision": "only the finished stage is published, once",
}
"""Fields of TrainingArguments that are refused, and why."""
