"""Each rule of tools/tidy.py finds what it is for, and leaves good code alone."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))
import tidy  # noqa: E402

GOOD = """\
#pragma once
// Sentences about code; they name Foo(bar) and end with a point.
namespace bullpen {
struct Config {
  int depth = 2;
};
constexpr int kTable[] = {1, 2, 3};
inline int Twice(int x) { return 2 * x; }  // throw, detach(): only words here
inline const char* Text() { return "throw std::regex"; }
}  // namespace bullpen
"""


class Tidy(unittest.TestCase):
    def findings(self, files, excess=""):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in {**files, "tools/tidy_excess.txt": excess}.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return list(tidy.findings(root))

    def assert_finds(self, line, word, name="base/a.h"):
        found = self.findings({name: "#pragma once\n" + line + "\n"})
        self.assertEqual(len(found), 1, found)
        self.assertIn(word, found[0])
        self.assertTrue(found[0].startswith(f"{name}:2:"), found[0])

    def test_good_code_has_no_findings(self):
        self.assertEqual(self.findings({"base/a.h": GOOD}), [])

    def test_banned_words_name_their_replacement(self):
        self.assert_finds("std::shared_ptr<Cache> cache;", "unique_ptr")
        self.assert_finds("auto f = std::async(work);", "jthread")
        self.assert_finds("thread.detach();", "join")
        self.assert_finds("std::this_thread::sleep_for(ms);", "condition")
        self.assert_finds("int f() { throw 1; }", "absl::Status")
        self.assert_finds("std::regex r;", "PCRE2")
        self.assert_finds("TEST(A, DISABLED_B);", "mend")
        self.assert_finds("void f() { GTEST_SKIP(); }", "reason")
        self.assert_finds("class SlotManager;", "domain")

    def test_marks_and_machine_paths_are_found_in_comments_too(self):
        self.assert_finds("// TO" + "DO: later.", "issue")
        self.assert_finds('const char* k = "/ro' + 'ot/model";', "machine")

    def test_the_token_stream_may_be_shared(self):
        text = "#pragma once\nstd::shared_ptr<TokenStream> stream;\n"
        self.assertEqual(self.findings({"engine/a.h": text}), [])

    def test_commented_out_code_is_found(self):
        self.assert_finds("// cache.Evict(slot);", "commented-out")
        self.assert_finds("// return 3;", "commented-out")
        self.assert_finds("//   if (slot > 2) {", "commented-out")

    def test_a_function_of_71_lines_is_too_long_and_one_of_70_is_not(self):
        def source(lines):
            body = "  Step();\n" * (lines - 2)
            return "namespace a {\nvoid Cache::Run(int x) {\n" + body + "}\n}\n"
        cmake = "library(a.cc)"
        self.assertEqual(self.findings({"base/a.cc": source(70), "base/CMakeLists.txt": cmake}), [])
        found = self.findings({"base/a.cc": source(71), "base/CMakeLists.txt": cmake})
        self.assertEqual(len(found), 1, found)
        self.assertIn("Cache::Run has 71 lines", found[0])

    def test_the_excess_list_is_a_ratchet(self):
        text = "#pragma once\n" + "int x;\n" * 160
        self.assertIn("161 lines", self.findings({"base/a.h": text})[0])
        self.assertEqual(self.findings({"base/a.h": text}, "base/a.h 161\n"), [])
        self.assertIn("lower", self.findings({"base/a.h": text}, "base/a.h 170\n")[0])
        self.assertIn("remove", self.findings({"base/a.h": GOOD}, "base/a.h 170\n")[0])

    def test_a_source_that_no_cmake_file_lists_is_found(self):
        files = {"base/a.cc": "int x;\n", "base/CMakeLists.txt": "library(ba.cc)"}
        self.assertIn("lists this file", self.findings(files)[0])
        files["base/CMakeLists.txt"] = "library(\n  a.cc)"
        self.assertEqual(self.findings(files), [])
        files["base/CMakeLists.txt"] = "foreach(name a b)\n  test(${name}.cc)"
        self.assertEqual(self.findings(files), [])


if __name__ == "__main__":
    unittest.main()
