"""What stands in for a cell's command in tests: it writes a run's files at once, or misbehaves.

Arguments: command, configuration, folder, and a JSON file that says what to do by a part of the
folder's name. What begins and ends is written beside that file.
"""

import json
import pathlib
import sys
import time

import yaml

config = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text())
folder = pathlib.Path(sys.argv[3])
plan = json.loads(pathlib.Path(sys.argv[4]).read_text())
name = folder.name
with open(sys.argv[4] + ".log", "a") as log:
    log.write(f"begin {name} {time.time()}\n")
for part, action in plan.items():
    if part in name and action["do"] == "say":
        sys.stderr.write(action["text"] + "\n")
        sys.exit(action["code"])
    if part in name and action["do"] == "hang":
        time.sleep(600)
time.sleep(plan.get("seconds", {}).get("number", 0))
folder.mkdir(parents=True, exist_ok=True)
train = config["train"]
epochs = train["epochs"] + int(train["warmup_epochs"])
top1 = 0.8 - 0.1 * abs(train["lr"] - 0.2) + 0.001 * (config["seed"] % 10)
top1 += 0.01 * (config["method"] == "netaug")
with open(folder / "metrics.jsonl", "w") as file:
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        row = {"step": epoch, "epoch": epoch, "seconds": 0.01, "macs": 1000}
        file.write(json.dumps({**row, "top1": top1 * share, "train_top1": top1 * share}) + "\n")
result = {"top1": top1, "validation_top1": top1, "train_top1": top1, "macs": 307920}
result |= {"params": 9850, "train_macs": 1000 * epochs, "train_seconds": 0.01 * epochs}
(folder / "checkpoint").mkdir(exist_ok=True)
# At once, as a run writes it: the study may be reading the results.
new = folder / "result.new"
new.write_text(json.dumps({**result, "diagnosis": "under-fits: 60 %"}))
new.replace(folder / "result.json")
with open(sys.argv[4] + ".log", "a") as log:
    log.write(f"end {name} {time.time()}\n")
