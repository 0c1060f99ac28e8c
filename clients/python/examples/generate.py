"""Continues a text on a running server and prints it as it comes.

    python generate.py 127.0.0.1:50051 "In the beginning"
"""

import sys

from bullpen_client import Client, Options, Sampling

target, prompt = sys.argv[1:3]
with Client(target) as client:
    for part in client.stream(prompt, Options(max_tokens=64, sampling=Sampling(temperature=0))):
        print(part.text, end="", flush=True)
    print()
