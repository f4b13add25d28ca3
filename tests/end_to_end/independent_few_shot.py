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
read = lambda part: [json.loads(line) for line in Path(data, f"{part}.jsonl").read_text().splitlines()]  # noqa: E731


def turns(row, *answer):
    question = f"Answer with one of: {', '.join(labels)}.\n\n{row['text']}"
    return [{"role": "user", "content": question}, *({"role": "assistant", "content": text} for text in answer)]


@torch.no_grad()
def score(start, label):
    text = tokenizer.apply_chat_template([*start, {"role": "assistant", "content": label}], tokenize=False).rstrip()
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][:, len(prompt) - 1 :]
    logs = model(input_ids=ids[:, :-1], past_key_values=copy.deepcopy(seen)).logits[0].log_softmax(-1)
    return float(logs.gather(-1, ids[0, 1:, None]).sum())


for name in names or ["zero_shot", "few_shot", "tuned"]:
    labels, own = evaluations[name]["labels"], evaluations[name]["calibration"]
    if name == "tuned":
        model = PeftModel.from_pretrained(model, f"{output}/adapter").eval()
    examples = [row for i in evaluations[name].get("shots", []) for row in read("train") if row["id"] == i]
    shots, chosen = [turn for row in examples for turn in turns(row, row["label"])], []
    for row in read("test"):
        start = shots + turns(row)
        prompt = tokenizer.apply_chat_template(start, add_generation_prompt=True, return_dict=True)["input_ids"]
        with torch.no_grad():
            seen = model(input_ids=torch.tensor([prompt[:-1]]), logits_to_keep=1).past_key_values
        chances = {x: score(start, x) / own["temperature"] + own["bias"][x] for x in labels}
        chosen.append(max(chances, key=chances.get))
    f1 = f1_score([row["label"] for row in read("test")], chosen, average="macro", zero_division=0)
    print(json.dumps({"name": name, "macro_f1": f1, "chosen": chosen}))
