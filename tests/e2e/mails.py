"""The labelled mails of tests/data/spam."""

import gzip
import json
import os

import stubs


def mails():
    path = os.path.join(stubs.SOURCE, "tests/data/spam/test.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
