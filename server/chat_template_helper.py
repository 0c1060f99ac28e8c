"""Renders chat templates for the server, one JSON document a line.

Run as `python -I -c`. First line out: {"ready": true} or {"missing": why}.
First line in: {"templates": {name: source}, "variables": {}, "limits": {}}.
Each further line in: {"messages": [], "tools": null, "variables": {}};
its answer: {"text": ""} or {"error": message, "kind": "template" or "limit"}.

The environment is the one that transformers gives to templates.
"""

import copy
import datetime
import itertools
import json
import resource
import sys

MESSAGE_CHARACTERS_MAX = 2000
JINJA_MIN = (3, 1, 6)  # Older sandboxes have known escapes.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
DEFAULT_VARIABLES = {"documents": None, "add_generation_prompt": False}

# What a template is shown to learn which arguments it takes. Some want an id
# of nine letters, and a tool's answer after its call.
PROBE_KEY = "argument_needle"
PROBE_ARGUMENTS = {PROBE_KEY: "print('Hello')"}
PROBE_ANSWER = {"role": "tool", "name": "python", "tool_call_id": "probe0001", "content": "Hello"}
PROBE_TOOL = {"type": "function", "function": {
    "name": "python", "description": "Runs code.",
    "parameters": {"type": "object", "required": [], "properties": {
        "code": {"type": "string", "description": "The code."}}}}}


class OutputLimit(Exception):
    pass


def answer(document):
    line = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def make_environment(jinja2):
    class GenerationTag(jinja2.ext.Extension):
        """{% generation %} marks training text; here it only groups."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    class TemplateNamespace(jinja2.utils.Namespace):
        """A namespace that keeps Python's own attributes out of reach."""

        def __init__(*args, **kwargs):
            self, attributes = args[0], dict(*args[1:], **kwargs)
            for name in attributes:
                TemplateNamespace.check(name)
            jinja2.utils.Namespace.__init__(self, attributes)

        def __setitem__(self, name, value):
            TemplateNamespace.check(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"namespace attribute {name!r} starts with an underscore")

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form):
        return datetime.datetime.now().strftime(form)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.globals["namespace"] = TemplateNamespace
    return environment


def set_limits(limits):
    soft_hard = lambda value: (value, value)
    resource.setrlimit(resource.RLIMIT_AS, soft_hard(limits["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, soft_hard(0))
    resource.setrlimit(resource.RLIMIT_FSIZE, soft_hard(0))
    resource.setrlimit(resource.RLIMIT_NPROC, soft_hard(0))


def extend_cpu_limit(seconds):
    """Grants this rendering its time; the server's clock is the first guard."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def with_reasoning_names(message):
    """Reasoning is read under several names; messages carry it under one."""
    if not isinstance(message, dict):
        raise TypeError("a message must be an object")
    for name in REASONING_FIELDS:
        if message.get(name) is not None:
            return {"thinking": message[name], **message, "reasoning_content": message[name]}
    return message


def has_text_arguments(message):
    return any(isinstance(function.get("arguments"), str) for function in called_functions(message))


def called_functions(message):
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return []
    functions = (call.get("function") for call in calls if isinstance(call, dict))
    return [function for function in functions if isinstance(function, dict)]


def with_object_arguments(message):
    """Arguments that are the text of a JSON object become that object."""
    if not has_text_arguments(message):
        return message
    message = copy.deepcopy(message)
    for function in called_functions(message):
        try:
            arguments = json.loads(function["arguments"])
        except (KeyError, TypeError, ValueError, RecursionError):
            continue  # The template's affair.
        if isinstance(arguments, dict):
            function["arguments"] = arguments
    return message


def probe_messages(arguments, content):
    call = {"id": "probe0001", "type": "function", "function": {"name": "python", "arguments": arguments}}
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content, "tool_calls": [call]}]


def shows_probe_key(rendered):
    """A key whose quote is escaped is part of JSON within JSON."""
    return any(not rest.startswith("\\") for rest in rendered.split(PROBE_KEY)[1:])


def tag_final_message(messages):
    """Marks where the last message ends; gives its text."""
    if not messages or messages[-1].get("content") is None:
        raise ValueError("continue_final_message: the last message has no content")
    content = messages[-1]["content"]
    if isinstance(content, str):
        messages[-1]["content"] = content + CONTINUE_TAG
        return content
    for part in reversed(content):
        if "text" in part:
            text = part["text"]
            part["text"] = text + CONTINUE_TAG
            return text
    raise ValueError("continue_final_message: the last message has no text")


def cut_at_tag(rendered, final_text):
    """Leaves out what the template puts after the last message."""
    tag = CONTINUE_TAG.strip()
    if final_text.strip() not in rendered or tag not in rendered:
        raise ValueError("continue_final_message: the template does not show the last message")
    place = rendered.rindex(tag)
    if rendered.startswith(CONTINUE_TAG, place):
        return rendered[:place]
    return rendered[:place].rstrip()


class Renderer:
    def __init__(self, environment, setup):
        self.environment = environment
        self.sources = setup["templates"]
        self.variables = setup["variables"]
        self.limits = setup["limits"]
        self.compiled = {}
        self.object_arguments = {}  # by template: whether it needs them

    def template_name(self, tools):
        name = "default"
        if tools is not None and "tool_use" in self.sources:
            name = "tool_use"
        if name not in self.sources:
            raise ValueError(f"no template is named {name}; there are {', '.join(sorted(self.sources))}")
        return name

    def generate(self, name, variables):
        if name not in self.compiled:
            self.compiled[name] = self.environment.from_string(self.sources[name])
        parts = []
        size = 0
        for part in self.compiled[name].generate(variables):
            size += len(part)
            if size > self.limits["output_bytes"]:
                raise OutputLimit()
            parts.append(part)
        return "".join(parts)

    def shows_arguments(self, name, arguments):
        """Whether any form of a tiny conversation shows them as they are."""
        tools = [PROBE_TOOL] if name == "tool_use" else None
        for content, tail in itertools.product((None, ""), ([], [PROBE_ANSWER])):
            messages = probe_messages(arguments, content) + tail
            variables = {**DEFAULT_VARIABLES, **self.variables, "messages": messages, "tools": tools}
            try:
                if shows_probe_key(self.generate(name, variables)):
                    return True
            except Exception:  # Not the request's fault.
                continue
        return False

    def needs_objects(self, name):
        """Whether calls are shown as they are only with objects as arguments."""
        if name not in self.object_arguments:
            as_text = json.dumps(PROBE_ARGUMENTS)
            self.object_arguments[name] = (
                not self.shows_arguments(name, as_text) and self.shows_arguments(name, PROBE_ARGUMENTS))
        return self.object_arguments[name]

    def render(self, request):
        extend_cpu_limit(self.limits["seconds"])
        variables = {**DEFAULT_VARIABLES, **self.variables, **request["variables"]}
        continues = variables.pop("continue_final_message", False)
        if continues and variables["add_generation_prompt"]:
            raise ValueError("continue_final_message and add_generation_prompt exclude each other")
        messages = [with_reasoning_names(message) for message in request["messages"]]
        name = self.template_name(request["tools"])
        if any(map(has_text_arguments, messages)) and self.needs_objects(name):
            messages = [with_object_arguments(message) for message in messages]
        if continues:
            messages = copy.deepcopy(messages)
            final_text = tag_final_message(messages)
        variables.update(messages=messages, tools=request["tools"])
        text = self.generate(name, variables)
        return cut_at_tag(text, final_text) if continues else text


def describe(error, jinja2):
    if type(error) is jinja2.exceptions.TemplateError:
        text = str(error)
    elif isinstance(error, jinja2.exceptions.TemplateSyntaxError):
        text = f"TemplateSyntaxError in line {error.lineno}: {error.message}"
    else:
        text = f"{type(error).__name__}: {error}"
    return text[:MESSAGE_CHARACTERS_MAX]


def load_jinja():
    import jinja2
    import jinja2.debug  # Otherwise loaded at the first error, under the limits.
    import jinja2.ext
    import jinja2.sandbox

    version = tuple(int(part) for part in jinja2.__version__.split(".")[:3])
    if version < JINJA_MIN:
        raise ImportError(f"jinja2 {jinja2.__version__} is older than {'.'.join(map(str, JINJA_MIN))}")
    return jinja2


def main():
    try:
        jinja2 = load_jinja()
    except (ImportError, ValueError) as error:
        answer({"missing": str(error)})
        return
    answer({"ready": True})
    setup = json.loads(sys.stdin.buffer.readline() or b"null")
    if setup is None:
        return
    set_limits(setup["limits"])
    renderer = Renderer(make_environment(jinja2), setup)
    for line in sys.stdin.buffer:
        try:
            answer({"text": renderer.render(json.loads(line))})
        except MemoryError:
            answer({"error": "out of memory", "kind": "limit"})
        except OutputLimit:
            answer({"error": "output too long", "kind": "limit"})
        except Exception as error:  # A template may raise anything.
            answer({"error": describe(error, jinja2), "kind": "template"})


main()
