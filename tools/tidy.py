"""Fails where the tree breaks a rule of style that a program can see.

Prints one line a finding: path:line: what is wrong and what to do instead.
Sizes are a ratchet: tools/tidy_excess.txt, if there is one, lists what is over a
limit today; an entry may only shrink, and goes when its excess has gone.
"""

import ast
import os
import pathlib
import re
import sys

MAX_FILE_LINES = 500
MAX_HEADER_LINES = 150
MAX_FUNCTION_LINES = 70

CPP = {".h", ".cc", ".cu", ".cuh"}
TOPS = ["base", "kernels", "engine", "server", "clients", "tools", "bench", "tests"]
# Programs that made data once and are kept as they were run.
RECORDS = ["tests/golden/make"]

# (pattern, where it is searched, what to do instead, where it may stand).
# "code" has comments and the insides of strings blanked out.
BANNED = [
    (r"\b(?:shared_ptr|make_shared)\b(?!<(?:bullpen::)?TokenStream>)", "code",
     "own by value or unique_ptr, lend by reference; only TokenStream is shared", []),
    (r"\bstd::async\b", "code", "use a named std::jthread or the WorkerPool", []),
    (r"\bdetach\(\)", "code", "keep the std::jthread and join it", []),
    (r"\b(?:sleep_for|sleep_until|SleepFor|usleep|nanosleep)\b", "code",
     "wait on a condition that somebody signals", ["engine/experts/rate_limit.cc"]),
    (r"\bthrow\b", "code", "return absl::Status", []),
    (r"\bstd::regex\b", "code", "use PCRE2 with its limits", []),
    (r"\bassert\(", "code", "use CHECK, which is on in release builds", []),
    (r"\bvolatile\b", "code", "use std::atomic", []),
    (r"\bs?rand\(", "code", "use an engine with a printed seed", []),
    (r"\b(?:sprintf|strcpy|strcat|alloca)\(", "code", "use absl::StrCat, StrFormat or a vector", []),
    (r"\busing namespace std\b", "code", "write std::", []),
    (r"\bgetenv\(", "code", "read the environment in main only and pass a config down",
     ["server/main.cc", "server/line_process.cc", "tests/"]),
    (r"\b(?:class|struct) \w*(?:Manager|Helper|Util|Utils|Impl)\b", "code",
     "name it by what it is in the domain", []),
    (r"\bGTEST_SKIP\(\)\s*;", "code", "say why it is skipped: GTEST_SKIP() << reason", []),
    (r"\bDISABLED_\w+", "code", "mend the test or remove it", []),
    (r"\b(?:TODO|FIXME|XXX|HACK)\b", "text", "do it, or file it as an issue", []),
    (r"(?<![\w.])/(?:work|root|home)/", "text", "no path of one machine belongs in the tree", []),
    (r"\.\./shared\b", "text", "the tree refers to nothing outside itself", []),
]

CODE_COMMENT = re.compile(
    r"^\s*//+\s*(?:#(?:include|define|if|endif)\b|return\b[^.]*;\s*$|"
    r"(?:if|for|while|switch) \(.*\) \{\s*$|\w[\w:<>.\-]*\w\([^()]*\);\s*$|"
    r"[\w:<>*& ]+ = [^.]*;\s*$|\}\s*$)")


def blank(match):
    """The same text with every character but line ends replaced by a blank."""
    return re.sub(r"[^\n]", " ", match.group(0))


def code_of(text):
    """C++ source without comments and without the insides of literals."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"(?P<tag>\w*)\(.*?\)(?P=tag)"|'
        r'"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])+\'', re.S)
    return token.sub(blank, text)


def cpp_functions(code):
    """Yields (name, first line, last line) of functions with a body.

    A brace opens a function if all braces around it are of namespaces and
    classes, and the text before it has a parameter list. Lambdas count as part
    of the function around them.
    """
    stack = []  # (kind, name, first line)
    parentheses = 0
    start = 0  # of the declaration that a brace may belong to
    for i, c in enumerate(code):
        if c == "(":
            parentheses += 1
        elif c == ")":
            parentheses -= 1
        elif c == ";" and parentheses == 0:
            start = i + 1
        elif c == "{":
            head = re.sub(r"^\s*#[^\n]*", "", code[start:i], flags=re.M).strip()
            outer = all(kind == "scope" for kind, _, _ in stack)
            if re.match(r"(template\s*<.*>\s*)?(inline\s+)?(namespace|class|struct|union|extern)\b", head, re.S) and "(" not in head:
                kind = "scope"
            elif outer and parentheses == 0 and re.search(r"[\w>\])]\s*\(", head):
                kind = "function"
            else:
                kind = "other"
            first = code.count("\n", 0, i - len(code[start:i].lstrip())) + 1
            name = re.search(r"([\w:~]+|operator\W+)\s*\(", head)
            stack.append((kind, name.group(1) if name else "", first))
            start = i + 1
        elif c == "}":
            if not stack:
                return  # Braces hidden in a macro: leave this file alone.
            kind, name, first = stack.pop()
            if kind == "function":
                yield name, first, code.count("\n", 0, i) + 1
            start = i + 1


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno


def sizes(name, text, code):
    """Yields (line, key, lines, limit) of everything that has a limit."""
    limit = MAX_HEADER_LINES if name.endswith((".h", ".cuh")) else MAX_FILE_LINES
    yield 1, name, text.count("\n"), limit
    found = python_functions(text) if name.endswith(".py") else cpp_functions(code)
    for function, first, last in found:
        yield first, f"{name}:{function}", last - first + 1, MAX_FUNCTION_LINES


def banned(name, text, code):
    for pattern, where, instead, allowed in BANNED:
        if name.startswith(("tools/tidy.py", "tests/tidy/", *allowed)):
            continue
        if where == "code" and name.endswith(".py"):
            continue
        searched = code if where == "code" else text
        for match in re.finditer(pattern, searched):
            line = searched.count("\n", 0, match.start()) + 1
            yield line, f"'{match.group(0).strip()}' is banned: {instead}"


def cpp_rules(root, name, text):
    for number, line in enumerate(text.split("\n"), 1):
        if CODE_COMMENT.match(line):
            yield number, "commented-out code: remove it, git keeps it"
    if name.endswith((".h", ".cuh")) and "#pragma once" not in text:
        yield 1, "a header starts with #pragma once"
    if name.endswith((".cc", ".cu")) and not listed(root, name):
        yield 1, "no CMakeLists.txt lists this file"


def listed(root, name):
    """Whether a CMakeLists.txt of the same top folder names the file, itself or
    through a pattern like ${part}_test.cc of a loop over the word `part`."""
    path = root / name
    for cmake in (root / name.split("/")[0]).rglob("CMakeLists.txt"):
        text = cmake.read_text()
        relative = os.path.relpath(path, cmake.parent)
        names = [relative, "${PROJECT_SOURCE_DIR}/" + name]
        for suffix in re.findall(r"\$\{\w+\}([\w.]*\.cc)", text):
            part = relative.removesuffix(suffix)
            if part != relative and re.search(rf"(?<![\w./]){re.escape(part)}(?![\w./])", text):
                return True
        if re.search(rf"(?<![\w./])({'|'.join(map(re.escape, names))})(?![\w.])", text):
            return True
    return False


def read_excess(root):
    file = root / "tools/tidy_excess.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {key: int(count) for key, count in pairs}


def sources(root):
    for top in TOPS:
        for file in sorted((root / top).rglob("*")):
            name = file.relative_to(root).as_posix()
            if file.suffix in CPP | {".py", ".sh"} or file.name == "CMakeLists.txt":
                if "__pycache__" not in name and not name.startswith(tuple(RECORDS)):
                    yield name, file.read_text()


def findings(root):
    excess = read_excess(root)
    seen = set()
    for name, text in sources(root):
        is_cpp = pathlib.Path(name).suffix in CPP
        code = code_of(text) if is_cpp else text
        for line, message in banned(name, text, code):
            yield f"{name}:{line}: {message}"
        if is_cpp:
            for line, message in cpp_rules(root, name, text):
                yield f"{name}:{line}: {message}"
        if not is_cpp and not name.endswith(".py"):
            continue
        for line, key, lines, limit in sizes(name, text, code):
            allowed = excess.get(key, limit)
            seen.add(key) if lines > limit else None
            if lines > allowed:
                yield f"{name}:{line}: {key} has {lines} lines; the limit is {allowed}: split it"
            elif limit < lines < allowed:
                yield f"tools/tidy_excess.txt: {key} has shrunk to {lines}: lower its entry of {allowed}"
    for key in sorted(set(excess) - seen):
        yield f"tools/tidy_excess.txt: {key} is within the limit or gone: remove its entry"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    found = list(findings(root))
    print("\n".join(found) or "style rules hold")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
