#include "server/chat_template.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

// Set by CMake; a Python without jinja2 fails these tests.
std::string Python() {
  const char* python = std::getenv("BULLPEN_TEST_PYTHON");
  return python == nullptr ? "python3" : python;
}

std::set<pid_t> Children() {
  std::set<pid_t> children;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "children");
    for (pid_t pid; file >> pid;) children.insert(pid);
  }
  return children;
}

class ChatTemplateTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() /
           ("bullpen_chat_" + std::to_string(getpid()));
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override {
    chat_.reset();
    std::filesystem::remove_all(dir_);
    EXPECT_TRUE(Children().empty()) << "a helper outlived its owner";
  }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ / name) << text;
  }

  void Load(ChatTemplateConfig config) {
    auto chat = ChatTemplate::FromDirectory(dir_, config);
    ASSERT_TRUE(chat.ok()) << chat.status();
    chat_ = *std::move(chat);
  }

  void LoadSource(const std::string& source) {
    Write("tokenizer_config.json",
          ordered_json({{"chat_template", source},
                        {"bos_token", "<s>"},
                        {"eos_token", {{"content", "</s>"}}},
                        {"unk_token", nullptr},
                        {"add_bos_token", true}})
              .dump());
    ChatTemplateConfig config{.python = Python()};
    config.timeout_seconds = 1;
    config.memory_bytes = int64_t{256} << 20;
    config.max_output_bytes = 1 << 20;
    Load(config);
  }

  absl::StatusOr<std::string> Render(
      const ordered_json& variables = ordered_json::object()) {
    const ordered_json messages = {{{"role", "user"}, {"content", "Hi"}}};
    return chat_->Render(messages, nullptr, variables);
  }

  // What is left of a history with a call that has these arguments.
  std::string RenderCall(const ordered_json& arguments,
                         const ordered_json& tools = nullptr) {
    const ordered_json call = {
        {"id", "call_1"},
        {"type", "function"},
        {"function", {{"name", "f"}, {"arguments", arguments}}}};
    const ordered_json messages = {
        {{"role", "user"}, {"content", "Hi"}},
        {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call}}},
        {{"role", "tool"}, {"content", "1"}, {"tool_call_id", "call_1"}}};
    const absl::StatusOr<std::string> text =
        chat_->Render(messages, tools, ordered_json::object());
    return text.ok() ? *text : text.status().ToString();
  }

  // A template that shows the arguments of calls by this expression.
  void LoadCalls(const std::string& arguments, const std::string& first = "") {
    LoadSource(first +
               "{% for m in messages if m.tool_calls %}"
               "{% for c in m.tool_calls %}{% set a = c.function.arguments %}" +
               arguments + "{% endfor %}{% endfor %}");
  }

  void ExpectText(const std::string& expected) {
    const absl::StatusOr<std::string> text = Render();
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, expected);
  }

  void ExpectError(absl::StatusCode code, const std::string& part) {
    const absl::StatusOr<std::string> text = Render();
    EXPECT_EQ(text.status().code(), code) << text.status();
    EXPECT_THAT(text.status().ToString(), HasSubstr(part));
  }

  std::filesystem::path dir_;
  std::unique_ptr<ChatTemplate> chat_;
};

void CheckGoldens(const std::string& file, const std::string& model) {
  auto chat = ChatTemplate::FromDirectory(model, {.python = Python()});
  ASSERT_TRUE(chat.ok()) << chat.status();
  std::ifstream lines("tests/golden/tokenizers/" + file);
  int count = 0;
  for (std::string text; std::getline(lines, text); ++count) {
    const ordered_json line = ordered_json::parse(text);
    const absl::StatusOr<std::string> rendered =
        (*chat)->Render(line["messages"], line["tools"], line["variables"]);
    if (line.contains("rendered")) {
      ASSERT_TRUE(rendered.ok()) << line["name"] << rendered.status();
      EXPECT_EQ(*rendered, line["rendered"].get<std::string>()) << line["name"];
    } else {
      EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument)
          << line["name"] << rendered.status();
    }
  }
  EXPECT_GE(count, 9);
}

TEST(ChatTemplateGolden, DefaultModel) {
  CheckGoldens("default.chat.jsonl", "models/default");
}

TEST(ChatTemplateGolden, Qwen3) {
  CheckGoldens("qwen3.chat.jsonl", LARGE_TOKENIZERS "qwen3");
}

TEST(ChatTemplateGolden, DeepseekV3) {
  CheckGoldens("deepseek_v3.chat.jsonl", LARGE_TOKENIZERS "deepseek_v3");
}

TEST_F(ChatTemplateTest, SpecialTokensAreVariables) {
  LoadSource("{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}");
  ExpectText("<s></s>False");
}

TEST_F(ChatTemplateTest, RequestVariablesComeBeforeSpecialTokens) {
  LoadSource("{{ bos_token }}{{ depth }}");
  EXPECT_EQ(*Render({{"bos_token", "B"}, {"depth", 3}}), "B3");
}

TEST_F(ChatTemplateTest, TheJinjaFileComesBeforeTheConfig) {
  Write("chat_template.jinja", "file");
  LoadSource("config");
  ExpectText("file");
}

TEST_F(ChatTemplateTest, AListOfTemplatesHasOneForTools) {
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "plain"},
                              {"name": "tool_use", "template": "tools"}]})");
  Load({.python = Python()});
  ExpectText("plain");
  EXPECT_EQ(*chat_->Render(ordered_json::array(), ordered_json::array(),
                           ordered_json::object()),
            "tools");
}

TEST_F(ChatTemplateTest, SaysWhichToolsItsSourcesMention) {
  LoadSource("{{ messages[0].content }}");
  EXPECT_FALSE(chat_->takes_tools());
  EXPECT_FALSE(chat_->takes_tool_calls());
  LoadSource("{{ tools }}");
  EXPECT_TRUE(chat_->takes_tools());
  EXPECT_FALSE(chat_->takes_tool_calls());
  LoadSource("{{ messages[0]['tool_calls'] }}");
  EXPECT_FALSE(chat_->takes_tools());
  EXPECT_TRUE(chat_->takes_tool_calls());
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "plain"},
                              {"name": "tool_use", "template": "x"}]})");
  Load({.python = Python()});
  EXPECT_TRUE(chat_->takes_tools());
  Write("tokenizer_config.json", "{}");
  Load({.python = Python()});
  EXPECT_TRUE(chat_->takes_tools() && chat_->takes_tool_calls());
}

TEST_F(ChatTemplateTest, ToolsKeepTheirKeyOrderAndCharacters) {
  LoadSource("{{ tools | tojson }}");
  const ordered_json tools =
      ordered_json::parse("[{\"z\": 1.0, \"a\": \"<\u00e9>\"}]");
  EXPECT_EQ(*chat_->Render(ordered_json::array(), tools, {}),
            "[{\"z\": 1.0, \"a\": \"<\u00e9>\"}]");
}

constexpr char kArguments[] = R"({"z": 1.0, "a": {"y": "é", "b": null}})";

// Of a template: whether the conversation is not that of RenderCall.
constexpr char kNotOurs[] = "messages[1].tool_calls[0].function.name != 'f'";

TEST_F(ChatTemplateTest, ArgumentsBecomeObjectsForTemplatesThatNeedThem) {
  struct Case {
    const char *shown, *expected;
  };
  for (const Case& test : {
           // As GLM-4.5, Qwen3-Coder, gpt-oss, Mistral and MiniMax do.
           Case{"{% for k, v in a.items() %}<k>{{ k }}</k>{% endfor %}",
                "<k>z</k><k>a</k>"},
           Case{"{% for k, v in a|items %}<parameter={{ k }}>{% endfor %}",
                "<parameter=z><parameter=a>"},
           Case{"{{ a|tojson }}", kArguments},
           Case{"{{ c.function|tojson }}",
                R"({"name": "f", "arguments": )"
                R"({"z": 1.0, "a": {"y": "é", "b": null}}})"},
           Case{"{% for k, v in a.items() %}<p name=\"{{ k }}\">{% endfor %}",
                "<p name=\"z\"><p name=\"a\">"},
           Case{"{% if a is mapping %}{% for k in a %}{{ k }}{% endfor %}"
                "{% endif %}",
                "za"},
       }) {
    LoadCalls(test.shown);
    EXPECT_EQ(RenderCall(kArguments), test.expected) << test.shown;
    EXPECT_EQ(RenderCall(ordered_json::parse(kArguments)), test.expected);
  }
}

TEST_F(ChatTemplateTest, ArgumentsStayTextWhereTheTemplateShowsText) {
  // DeepSeek-V3's; one that takes either; one that shows none; text in text
  // whatever it gets.
  LoadCalls("{{ '```' + a + '```' }}");
  EXPECT_EQ(RenderCall(kArguments), absl::StrCat("```", kArguments, "```"));
  LoadCalls("{{ a if a is string else a|tojson(indent=2) }}");
  EXPECT_EQ(RenderCall(kArguments), kArguments);
  LoadCalls("{{ a is string }}");
  EXPECT_EQ(RenderCall(kArguments), "True");
  LoadCalls("{{ a|tojson|tojson if a is mapping else a|tojson }}");
  EXPECT_EQ(RenderCall(kArguments),
            R"("{\"z\": 1.0, \"a\": {\"y\": \"é\", \"b\": null}}")");
}

TEST_F(ChatTemplateTest, OnlyTheTextOfAnObjectBecomesOne) {
  LoadCalls("{{ a|tojson }}");
  for (const char* text : {"", "{", "[1]", "1", "null", "\"{}\""}) {
    EXPECT_EQ(RenderCall(text), ordered_json(text).dump());
  }
  const std::string deep = std::string(100000, '[');
  EXPECT_EQ(RenderCall(deep), ordered_json(deep).dump());
  EXPECT_EQ(RenderCall(nullptr), "null");
  EXPECT_EQ(RenderCall("{}"), "{}");
}

TEST_F(ChatTemplateTest, TheTemplateIsAskedAboutArgumentsInTheShapesItTakes) {
  for (const char* demand :
       {"messages[1].content is string", "messages[1].content is none",
        "messages[-1].role == 'tool'", "messages[-1].role != 'tool'",
        "messages[1].tool_calls[0].id|length == 9"}) {
    LoadCalls("{{ a|tojson }}",
              absl::StrCat("{% if ", kNotOurs, " and not (", demand,
                           ") %}{{ raise_exception('no') }}{% endif %}"));
    EXPECT_EQ(RenderCall(kArguments), kArguments) << demand;
  }
}

TEST_F(ChatTemplateTest, AskingAboutArgumentsFailsNoRequest) {
  // What refuses the small conversation may still take the request's.
  for (const char* fault :
       {"{{ raise_exception('no') }}", "{{ missing.name }}",
        "{{ ('x' * 4000000000) | length }}",
        "{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}"}) {
    LoadCalls("{{ a }}",
              absl::StrCat("{% if ", kNotOurs, " %}", fault, "{% endif %}"));
    EXPECT_EQ(RenderCall(kArguments), kArguments) << fault;
  }
}

TEST_F(ChatTemplateTest, TheTemplateForToolsIsAskedByItself) {
  const std::string a = "{{ messages[1].tool_calls[0].function.arguments";
  const std::string named = "{{ tools[0].function.name }}";
  Write(
      "tokenizer_config.json",
      ordered_json(
          {{"chat_template",
            {{{"name", "default"}, {"template", a + " }}"}},
             {{"name", "tool_use"}, {"template", named + a + "|tojson }}"}}}}})
          .dump());
  Load({.python = Python()});
  const ordered_json tools = {{{"function", {{"name", "f"}}}}};
  EXPECT_EQ(RenderCall(R"({"b":1})"), R"({"b":1})");
  EXPECT_EQ(RenderCall(R"({"b":1})", tools), R"(f{"b": 1})");
  EXPECT_EQ(RenderCall(R"({"b":1})"), R"({"b":1})");
}

TEST_F(ChatTemplateTest, LoopControlsAndGenerationBlocksWork) {
  LoadSource(
      "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}"
      "{% endfor %}{% generation %}g{% endgeneration %}");
  ExpectText("01g");
}

TEST_F(ChatTemplateTest, ExceptionsOfTheTemplateAreItsOwnWords) {
  LoadSource("{{ raise_exception('roles must alternate') }}");
  ExpectError(absl::StatusCode::kInvalidArgument, "roles must alternate");
}

TEST_F(ChatTemplateTest, UndefinedAndSyntaxErrorsAreInvalidArguments) {
  LoadSource("{{ missing.name }}");
  ExpectError(absl::StatusCode::kInvalidArgument, "'missing' is undefined");
  LoadSource("a\n{% if %}");
  ExpectError(absl::StatusCode::kInvalidArgument, "line 2");
}

TEST_F(ChatTemplateTest, PythonInternalsAreOutOfReach) {
  LoadSource("{{ ''.__class__.__mro__ }}");
  ExpectError(absl::StatusCode::kInvalidArgument, "");
  LoadSource("{{ namespace(__class__=1) }}");
  ExpectError(absl::StatusCode::kInvalidArgument, "underscore");
  LoadSource("{{ messages.append(1) }}");
  ExpectError(absl::StatusCode::kInvalidArgument, "");
}

TEST_F(ChatTemplateTest, AnEndlessTemplateIsStoppedAndTheNextOneRuns) {
  LoadSource(
      "{% if slow %}{% for a in range(99999) %}{% for b in range(99999) %}"
      "{% endfor %}{% endfor %}{% endif %}ok");
  EXPECT_EQ(Render({{"slow", true}}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  ExpectText("ok");
}

TEST_F(ChatTemplateTest, AMemoryBombIsStoppedAndTheNextOneRuns) {
  LoadSource("{% if bomb %}{{ ('x' * 4000000000) | length }}{% endif %}ok");
  EXPECT_EQ(Render({{"bomb", true}}).status().code(),
            absl::StatusCode::kResourceExhausted);
  ExpectText("ok");
}

TEST_F(ChatTemplateTest, OutputBeyondTheLimitIsRefused) {
  LoadSource("{% for a in range(99999) %}{{ 'x' * 99 }}{% endfor %}");
  ExpectError(absl::StatusCode::kResourceExhausted, "output");
}

TEST_F(ChatTemplateTest, WorksAfterTheHelperWasKilled) {
  LoadSource("ok");
  ExpectText("ok");
  const std::set<pid_t> helpers = Children();
  ASSERT_EQ(helpers.size(), 1u);
  kill(*helpers.begin(), SIGKILL);
  ExpectText("ok");
}

TEST_F(ChatTemplateTest, ThreadsMayRenderAtOnce) {
  LoadSource("{{ number }}");
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this, i] {
      for (int round = 0; round < 20; ++round) {
        EXPECT_EQ(*Render({{"number", i}}), std::to_string(i));
      }
    });
  }
}

TEST_F(ChatTemplateTest, AModelWithoutTemplateSaysSoWhenAsked) {
  Write("tokenizer_config.json", "{}");
  Load({.python = Python()});
  ExpectError(absl::StatusCode::kFailedPrecondition, "no chat template");
}

TEST_F(ChatTemplateTest, APythonThatCannotHelpIsNamed) {
  Write("chat_template.jinja", "x");
  Load({.python = "/nonexistent/python"});
  ExpectError(absl::StatusCode::kUnimplemented, "/nonexistent/python");
  Load({.python = "/bin/false"});
  ExpectError(absl::StatusCode::kUnimplemented, "jinja2");
}

TEST_F(ChatTemplateTest, WrongTypesInTheConfigAreErrors) {
  for (const char* text :
       {"", "[]", "{", R"({"chat_template": 1})",
        R"({"chat_template": [{"name": "x"}]})", R"({"chat_template": [1]})"}) {
    Write("tokenizer_config.json", text);
    EXPECT_EQ(
        ChatTemplate::FromDirectory(dir_, {.python = Python()}).status().code(),
        absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST_F(ChatTemplateTest, FilesThatCannotBeReadAreErrors) {
  Write("chat_template.jinja", "x");
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja"}) {
    const std::filesystem::path path = dir_ / name;
    for (const std::filesystem::path target : {"gone", name, "."}) {
      std::filesystem::remove(path);
      std::filesystem::create_symlink(target, path);
      EXPECT_THAT(ChatTemplate::FromDirectory(dir_, {.python = Python()})
                      .status()
                      .ToString(),
                  HasSubstr(path.string()));
    }
    std::filesystem::remove(path);
  }
}

TEST_F(ChatTemplateTest, MessagesOfOtherShapesAreErrors) {
  LoadSource("ok");
  for (const char* messages : {"null", "{}", "[1]", "[[]]", "\"x\""}) {
    EXPECT_EQ(chat_->Render(ordered_json::parse(messages), nullptr, {})
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument)
        << messages;
  }
}

}  // namespace
}  // namespace bullpen
