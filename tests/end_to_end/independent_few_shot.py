"""Macro-F1 of a finished job by plain transformers: independent_few_shot.py MODEL DATA OUTPUT [NAME ...]."""

import copy
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from sklearn.metrics import f1_score
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

source, data, output, *names = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(source)
nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, quantization_config=nf4).dequantize().eval()
evaluations = json.loads(Path(output, "result.json").read_text())["evaluations"]
train, test = (Path(data, f"{part}.jsonl").read_text().splitlines() for part in ("train", "test"))
train, test = {row["id"]: row for row in map(json.loads, train)}, [*map(json.loads, test)]
torch.set_grad_enabled(False)


def turns(row, *answer):
    question = f"Answer with one of: {', '.join(labels)}.\n\n{row['text']}"
    return [{"role": "user", "content": question}, *({"role": "assistant", "content": text} for text in answer)]


def score(start, label):
    text = tokenizer.apply_chat_template([*start, {"role": "assistant", "content": label}], tokenize=False).rstrip()
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][:, len(prompt) - 1 :]
    logs = model(input_ids=ids[:, :-1], past_key_values=copy.deepcopy(read)).logits[0].log_softmax(-1)
    return float(logs.gather(-1, ids[0, 1:, None]).sum())


for name in names or ["zero_shot", "few_shot", "tuned"]:
    model = PeftModel.from_pretrained(model, f"{output}/adapter").eval() if name == "tuned" else model
    labels, own = evaluations[name]["labels"], evaluations[name]["calibration"]
    shots = [turn for i in evaluations[name].get("shots", []) for turn in turns(train[i], train[i]["label"])]
    starts, chosen = [shots + turns(row) for row in test], []
    prompts = tokenizer.apply_chat_template(starts, add_generation_prompt=True, return_dict=True)["input_ids"]
    same = next(i for i, (a, b) in enumerate(zip(min(prompts), max(prompts), strict=False)) if a != b)
    shared = model(input_ids=torch.tensor([prompts[0][:same]])).past_key_values
    for start, prompt in zip(starts, prompts, strict=True):
        read = model(input_ids=torch.tensor([prompt[same:-1]]), past_key_values=copy.deepcopy(shared)).past_key_values
        chances = {x: score(start, x) / own["temperature"] + own["bias"][x] for x in labels}
        chosen.append(max(chances, key=chances.get))
    f1 = f1_score([row["label"] for row in test], chosen, average="macro", zero_division=0)
    print(json.dumps({"name": name, "macro_f1": f1, "chosen": chosen}))
