"""The contenders `hf` (transformers' Trainer) and `trl` (TRL's SFTTrainer), on our ids and labels.

Both get the rows of each step sorted by length, which is what grouping by length can do within a step. Fused AdamW, no
gradient checkpointing, no clipping, the run's precision: their fastest settings here.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from fieldtune.config import Precision
from fieldtune.data.encode import Encoded

from .job import Setting, Timings, by_length, padded_tokens
from .loop import own_labels


def hf(setting: Setting) -> Timings:
    """Train by transformers' Trainer; see `Setting`."""
    tokenizer = _tokenizer(setting)
    trainer = Trainer(
        model=setting.model,
        args=TrainingArguments(**_arguments(setting)),
        train_dataset=_rows(setting),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    return _timed(trainer, setting)


def trl(setting: Setting) -> Timings:
    """Train by TRL's SFTTrainer; see `Setting`."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        **_arguments(setting), max_length=None, packing=False, dataset_kwargs={"skip_prepare_dataset": True}
    )
    trainer = SFTTrainer(
        model=setting.model,
        args=arguments,
        train_dataset=Dataset.from_list(_rows(setting)),
        processing_class=_tokenizer(setting),
    )
    return _timed(trainer, setting)


class Clock(TrainerCallback):
    """The warm-up step before the first one, and a note after each."""

    def __init__(self, trainer: Any, setting: Setting) -> None:
        self.trainer, self.setting = trainer, setting
        self.timings = Timings()
        self.loss = 0.0  # of the micro-batches of this step so far

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        row = self.setting.warm_up
        inputs = self.trainer.data_collator([_row(row)])
        self.trainer.model.train()
        loss = self.trainer.compute_loss(
            self.trainer.model, dict(inputs), num_items_in_batch=torch.tensor(row.supervised)
        )
        loss.backward()
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        self.timings.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows = self.setting.steps[state.global_step - 1]
        self.timings.step(self.loss, padded_tokens(rows, self.setting.micro_batch))
        self.loss = 0.0


def _timed(trainer: Any, setting: Setting) -> Timings:
    clock = Clock(trainer, setting)
    plain = trainer.training_step

    def noted(*arguments: Any, **named: Any) -> Any:
        loss = plain(*arguments, **named)  # of the micro-batch's tokens, over the tokens of the whole step
        clock.loss += float(loss)
        return loss

    trainer.training_step = noted
    trainer.add_callback(clock)
    trainer.train()
    return clock.timings


def _arguments(setting: Setting) -> dict[str, Any]:
    trainer = setting.config.trainer
    return {
        "output_dir": str(setting.folder),
        "per_device_train_batch_size": setting.micro_batch,
        "gradient_accumulation_steps": setting.accumulation,
        "max_steps": len(setting.steps),
        "learning_rate": trainer.learning_rate,
        "adam_beta1": trainer.betas[0],
        "adam_beta2": trainer.betas[1],
        "weight_decay": trainer.weight_decay,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "sequential",  # the rows are sorted already, see the module
        "gradient_checkpointing": False,
        "bf16": setting.config.hardware.precision is Precision.bf16,
        "fp16": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": setting.config.seed,
    }


def _rows(setting: Setting) -> list[dict[str, list[int]]]:
    return [_row(row) for step in setting.steps for row in by_length(step)]


def _row(row: Encoded) -> dict[str, list[int]]:
    return {"input_ids": row.ids.tolist(), "labels": own_labels(row)}


def _tokenizer(setting: Setting) -> Any:
    """Ours in transformers' form, for the padding."""
    folder = setting.folder / "tokenizer"
    folder.mkdir(exist_ok=True)
    setting.tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
