"""Run under the peers' Python: a Hugging Face Llama, trained by their ``Trainer``.

    python trainer_run.py '{"tokens": "train.bin", "steps": 100, ...}'

Leaves the weights in ``model/`` and, in ``clock.json``, when the last step ended and what one took.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset


class Rows(Dataset):
    """The stream of tokens, cut into rows."""

    def __init__(self, path: str, seq_len: int) -> None:
        self.tokens, self.seq_len = np.fromfile(path, np.uint16).astype(np.int64), seq_len

    def __len__(self) -> int:
        return len(self.tokens) // self.seq_len

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        start = row * self.seq_len
        ids = torch.from_numpy(self.tokens[start : start + self.seq_len])
        return {"input_ids": ids, "labels": ids}


def main() -> None:
    # not above: whoever looks at this file need not have them
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    times: list[float] = []

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            times.append(time.time())

    settings = json.loads(sys.argv[1])
    width, layers, heads = settings["d_model"], settings["layers"], settings["heads"]
    torch.manual_seed(settings["seed"])
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=settings["vocab_size"],
            hidden_size=width,
            intermediate_size=64 * round(8 * width / 3 / 64),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=settings["seq_len"],
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    arguments = TrainingArguments(
        output_dir="out",
        max_steps=settings["steps"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["lr"],
        lr_scheduler_type=settings["schedule"],
        warmup_steps=max(1, round(0.05 * settings["steps"])),
        weight_decay=0.1,
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        bf16=settings["bf16"],
        torch_compile=settings["compile"],
        use_cpu=True,
        seed=settings["seed"],
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    rows = Rows(settings["tokens"], settings["seq_len"])
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Ticks()]).train()
    apart = np.diff(times)
    found = {"ended": times[-1], "seconds_a_step": statistics.fmean(apart[len(apart) // 2 :])}
    model.float().save_pretrained("model")
    Path("clock.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
