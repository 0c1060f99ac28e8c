"""Answers one question with the model's chat template.

    python chat.py 127.0.0.1:50051 "What is a bird?"
"""

import sys

from bullpen_client import Client, Options

target, question = sys.argv[1:3]
with Client(target) as client:
    print("model:", client.model().id)
    answer = client.complete([{"role": "user", "content": question}], Options(max_tokens=128))
    print(answer.text)
    print(f"({answer.finish.completion_tokens} tokens, seed {answer.finish.seed})")
