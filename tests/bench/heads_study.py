#!/usr/bin/env python3
"""Which heads do two tasks of one model share? The tables of docs/heads.md.

Prunes models/mailroom to half and to a quarter of its KV cache, for telling spam
from ham and for subject lines (the likelihood of the true one), with three seeds
each; then asks each mask about the other's task, on the test split.

    tests/bench/heads_study.py --corpus FOLDER

FOLDER holds train, dev and test as .jsonl.gz, each line with "label", "subject"
and "body", of which the first characters are read. Heads are ranked on train, and
masks read once on test. Takes about half an hour on two cores; what is done is kept
in --out and not done again.
"""

import argparse
import contextlib
import gzip
import json
import os
import subprocess
import sys

SPLITS = {"rank": "train", "select": "dev", "test": "test"}
SHARES = (50, 25)
SEEDS = (1, 2, 3)
TEMPLATE = "<|bos|>{input}<|subject|>"
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
MODEL = os.path.join(SOURCE, "models", "mailroom")


def read_lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_tasks(corpus, out, most, characters):
    """TASK.SPLIT.jsonl of both tasks, of at most `most` mails each."""
    seen = set()
    for split, name in SPLITS.items():
        mails = []
        for mail in read_lines(os.path.join(corpus, name + ".jsonl.gz")):
            mail["body"] = mail["body"][:characters]
            if mail["body"] in seen:
                continue  # different only behind what is read
            seen.add(mail["body"])
            mails.append(mail)
        if split != "rank":
            mails = mails[:most]
        tasks = {
            "spam": [{"text": m["body"], "label": m["label"]} for m in mails],
            "subject": [{"text": m["body"], "target": m["subject"]}
                        for m in mails if m["subject"].strip()]}
        for task, lines in tasks.items():
            path = os.path.join(out, f"{task}.{split}.jsonl")
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)


class Study:
    def __init__(self, args):
        self.binary = args.binary
        self.address = args.address
        self.out = args.out
        self.rank_examples = args.rank_examples

    def path(self, name):
        return os.path.join(self.out, name)

    @contextlib.contextmanager
    def serving(self, *arguments):
        with open(self.path("serve.log"), "ab") as log:
            server = subprocess.Popen(
                [self.binary, "serve", *arguments, "--listen", self.address,
                 "--metrics-listen", "127.0.0.1:0", "--drain-grace", "0s"],
                stdout=subprocess.PIPE, stderr=log)
        try:
            # It says where it listens as soon as it does.
            if not server.stdout.readline():
                sys.exit(f"no server: see {self.path('serve.log')}")
            yield
        finally:
            server.terminate()
            server.wait()

    def ask(self, result, command, *arguments):
        """The command's JSON, from the file `result` if that is there."""
        path = self.path(result)
        if not os.path.exists(path):
            done = subprocess.run(
                [self.binary, command, *arguments, "--address", self.address,
                 "--output", "json"], stdout=subprocess.PIPE, check=False)
            if not done.stdout:
                sys.exit(f"{command} {' '.join(arguments)}: no result")
            with open(path + ".part", "wb") as file:
                file.write(done.stdout)
            os.rename(path + ".part", path)
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def prune(self, task, share, seed):
        data = [argument for split in SPLITS for argument in
                ("--" + split, self.path(f"{task}.{split}.jsonl"))]
        template = ["--template", TEMPLATE] if task == "subject" else []
        return self.ask(
            f"prune.{task}.{share}.{seed}.json", "prune", *data, *template,
            "--kv-bytes", f"{share}%", "--seed", str(seed), "--step", "25%",
            "--rank-examples", str(self.rank_examples), "--weights", MODEL,
            # Of both shares: heads are ranked once.
            "--journal", self.path(f"{task}-{seed}.journal"),
            "--out", self.path(f"{task}-{share}-{seed}.json"))

    def verify(self, mask, task):
        template = (["--template", TEMPLATE, "--weights", MODEL]
                    if task == "subject" else [])
        return self.ask(
            f"verify.{mask}.{task}.json", "verify", mask, "--against",
            "mailroom", "--data", self.path(f"{task}.test.jsonl"), *template)

    def write_server(self):
        models = [{"name": "mailroom", "source": {"path": MODEL}}]
        for task in ("spam", "subject"):
            for share in SHARES:
                name = f"{task}-{share}-1"
                models.append({
                    "name": name, "source": {"variant_of": "mailroom"},
                    "heads": {"mask_file": self.path(name + ".json")}})
        with open(self.path("server.yaml"), "w", encoding="utf-8") as file:
            json.dump({"models": models}, file)  # JSON is YAML


def spread(values, digits):
    low, high = min(values), max(values)
    if f"{low:.{digits}f}" == f"{high:.{digits}f}":
        return f"{low:.{digits}f}"
    return f"{low:.{digits}f} to {high:.{digits}f}"


def controls_table(reports):
    """Accuracy in per cent, or nats a token; below it the KL; over the seeds."""
    print("| task, KV bytes | dense | by KL, over all layers | "
          "as many of every layer | random, as many of each layer | "
          "whole layers |")
    print("|---|---|---|---|---|---|")
    for (task, share), runs in reports.items():
        scale, digits = (100, 2) if task == "spam" else (1, 3)
        columns = {"this": [], "as many": [], "random": [], "whole": []}
        for run in runs:
            for row in run["test"]:
                key = next(k for k in columns if row["mask"].startswith(k))
                columns[key].append(row)
        dense = scale * runs[0]["test"][0]["dense"]
        for title, before, value, places in (
                (f"{task}, {share} %", f"{dense:.{digits}f}",
                 lambda row: scale * row["pruned"], digits),
                ("KL, nats", "0", lambda row: row["kl_mean"], 3)):
            cells = [spread([value(row) for row in column], places)
                     if column else "-" for column in columns.values()]
            print(f"| {title} | {before} | " + " | ".join(cells) + " |")


def cross_table(verified):
    print("\n| mask for, KV bytes | spam, accuracy | subject, nats a token |")
    print("|---|---|---|")
    dense = {task: result["quality"]["dense"]
             for (_, task), result in verified.items()}
    print(f"| none, 100 % | {100 * dense['spam']:.2f} % | "
          f"{dense['subject']:.3f} |")
    for mask in sorted({mask for mask, _ in verified}):
        spam = verified[mask, "spam"]["quality"]
        subject = verified[mask, "subject"]["quality"]
        task, share, _ = mask.split("-")
        print(f"| {task}, {share} % | {100 * spam['pruned']:.2f} % "
              f"({-100 * spam['loss_ci95'][1]:+.2f} to "
              f"{-100 * spam['loss_ci95'][0]:+.2f}) | "
              f"{subject['pruned']:.3f} ({-subject['loss_ci95'][1]:+.3f} to "
              f"{-subject['loss_ci95'][0]:+.3f}) |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", default="build/heads_study")
    parser.add_argument("--binary", default="build/release/cli/headcount")
    parser.add_argument("--address", default="127.0.0.1:50071")
    parser.add_argument("--rank-examples", type=int, default=64)
    parser.add_argument("--most", type=int, default=400,
                        help="mails of dev and of test, at most")
    parser.add_argument("--characters", type=int, default=600,
                        help="of each mail that are read")
    args = parser.parse_args()
    args.out = os.path.abspath(args.out)
    os.makedirs(args.out, exist_ok=True)
    write_tasks(args.corpus, args.out, args.most, args.characters)
    study = Study(args)
    reports = {}
    with study.serving(MODEL, "--calibration"):
        for task in ("spam", "subject"):
            for share in SHARES:
                reports[task, share] = [study.prune(task, share, seed)
                                        for seed in SEEDS]
    study.write_server()
    verified = {}
    with study.serving("--config", study.path("server.yaml")):
        for mask in (f"{task}-{share}-1" for task in ("spam", "subject")
                     for share in SHARES):
            for task in ("spam", "subject"):
                verified[mask, task] = study.verify(mask, task)
    controls_table(reports)
    cross_table(verified)


if __name__ == "__main__":
    main()
