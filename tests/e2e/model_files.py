"""Copies of models with something changed, and a look into packed ones."""

import json
import pathlib
import struct

DEFAULT = pathlib.Path("models/default")


def changed_model(folder, source=DEFAULT, without=(), **changes):
    """A model directory in `folder`: links to `source`'s files, except those
    left out and those whose new bytes are given by file name."""
    folder.mkdir(parents=True)
    for file in source.resolve().iterdir():
        if file.is_file() and file.name not in {*without, *changes}:
            (folder / file.name).symlink_to(file)
    for name, content in changes.items():
        (folder / name).write_bytes(content)
    return folder


def config_with(**fields):
    """config.json of the default model with other values."""
    config = json.loads((DEFAULT / "config.json").read_text())
    return json.dumps({**config, **fields}).encode()


def read_header(path):
    """(header, offset of the data) of a safetensors file."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        return json.loads(file.read(size)), 8 + size


def weights_with_header(edit):
    """model.safetensors of the default model with an edited header.

    The data stays as it was, so offsets mean what they meant before.
    """
    raw = (DEFAULT / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    edited = json.dumps(edit(header) or header).encode()
    return struct.pack("<Q", len(edited)) + edited + raw[8 + size:]


def expert_span(packed, layer, expert):
    """(file, offset, bytes) of one expert's blob in a packed model."""
    for file in sorted(pathlib.Path(packed).glob("experts*.safetensors")):
        header, start = read_header(file)
        for name, tensor in header.items():
            if name == EXPERT_NAME.format(layer=layer, expert=expert):
                first, last = tensor["data_offsets"]
                return file, start + first, last - first
    raise AssertionError(f"no expert {expert} of layer {layer} in {packed}")


def flip_byte(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


EXPERT_NAME = "layers.{layer}.experts.{expert}"
