"""HTTP by hand, for what client libraries hide: sockets, headers, events."""

import json
import socket


class Stream:
    """A streamed completion on a socket of its own, read event by event."""

    def __init__(self, server, prompt="The", receive_buffer=None, **fields):
        body = json.dumps({"model": server.model_id, "prompt": prompt, "stream": True,
                           "temperature": 0, "ignore_eos": True, **fields}).encode()
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self._file = None

    def hang_up(self, reset=False):
        if reset:  # RST instead of FIN
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if self._file:
            self._file.close()
        self.socket.close()

    def start(self):
        """Reads the response's head; returns the status."""
        self._file = self.socket.makefile("rb")
        status = int(self._file.readline().split()[1])
        self.headers = {}
        while (line := self._file.readline().strip()):
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        return status

    def _body(self):
        """The lines of the body, whatever its transfer encoding."""
        if self.headers.get("transfer-encoding") != "chunked":
            yield from self._file
            return
        rest = b""
        while size := int(self._file.readline().split(b";")[0] or b"0", 16):
            rest += self._file.read(size)
            self._file.readline()
            *lines, rest = rest.split(b"\n")
            yield from lines
        yield rest

    def events(self):
        """Yields the data of each event, parsed; the last one is "[DONE]"."""
        for line in self._body():
            line = line.strip()
            if line.startswith(b"data:"):
                data = line[5:].strip()
                yield "[DONE]" if data == b"[DONE]" else json.loads(data)

    def outcome(self):
        """How the response ended: a finish reason, "error", an HTTP status, or
        "cut" when it just broke off."""
        try:
            status = self.start()
            return self.outcome_of_rest() if status == 200 else status
        except (OSError, ValueError, IndexError):
            return "cut"
        finally:
            self.hang_up()

    def outcome_of_rest(self):
        """As outcome(), for a stream whose head has been read."""
        last = "cut"
        try:
            for event in self.events():
                if event == "[DONE]":
                    break
                if "error" in event:
                    return "error"
                if event["choices"] and event["choices"][0]["finish_reason"]:
                    last = event["choices"][0]["finish_reason"]
        except (OSError, ValueError):
            return "cut"
        return last


def exchange(server, request, seconds=30):
    """Sends bytes as they are; returns all that comes back until the close."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        received = b""
        try:
            connection.sendall(request)
            while (part := connection.recv(65536)):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # What was received before the reset counts.
        return received


def status_of(response):
    """The status of raw response bytes; None when there is none."""
    return int(response.split()[1]) if response.startswith(b"HTTP/1.") else None
