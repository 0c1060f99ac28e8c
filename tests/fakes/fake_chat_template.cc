#include "tests/fakes/fake_chat_template.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status.h"
#include "base/strings.h"
#include "server/chat_template.h"

// A ChatTemplate by substitution at link time: "role: content\n" for each
// message, without a helper process.
namespace bullpen {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

struct Rendering {
  absl::Mutex mutex;
  absl::CondVar changed;
  bool hold ABSL_GUARDED_BY(mutex) = false;
  int32_t held ABSL_GUARDED_BY(mutex) = 0;
  int64_t begun ABSL_GUARDED_BY(mutex) = 0;
  absl::Status status ABSL_GUARDED_BY(mutex);

  absl::Status Enter() {
    absl::MutexLock lock(&mutex);
    ++begun;
    ++held;
    changed.SignalAll();
    while (hold) changed.Wait(&mutex);
    --held;
    return status;
  }
};

Rendering rendering;

}  // namespace

void FakeRendering::Hold() {
  absl::MutexLock lock(&rendering.mutex);
  rendering.hold = true;
}

void FakeRendering::Release() {
  absl::MutexLock lock(&rendering.mutex);
  rendering.hold = false;
  rendering.changed.SignalAll();
}

bool FakeRendering::AwaitHeld(int32_t count) {
  const absl::Time deadline = absl::Now() + kPatience;
  absl::MutexLock lock(&rendering.mutex);
  while (rendering.held < count) {
    if (rendering.changed.WaitWithDeadline(&rendering.mutex, deadline)) {
      return rendering.held >= count;
    }
  }
  return true;
}

void FakeRendering::FailWith(absl::Status status) {
  absl::MutexLock lock(&rendering.mutex);
  rendering.status = std::move(status);
}

int64_t FakeRendering::begun() {
  absl::MutexLock lock(&rendering.mutex);
  return rendering.begun;
}

struct ChatTemplate::Process {};

ChatTemplate::ChatTemplate() = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromDirectory(
    const std::filesystem::path&, const ChatTemplateConfig&) {
  return std::unique_ptr<ChatTemplate>(new ChatTemplate());
}

absl::StatusOr<std::string> ChatTemplate::Render(
    const nlohmann::ordered_json& messages, const nlohmann::ordered_json&,
    const nlohmann::ordered_json& variables) {
  RETURN_IF_ERROR(rendering.Enter());
  std::string text;
  for (const nlohmann::ordered_json& message : messages) {
    absl::StrAppend(&text, message["role"].get<std::string>(), ": ",
                    message["content"].get<std::string>(), "\n");
  }
  if (variables["add_generation_prompt"] == true) text += "assistant: ";
  return text;
}

}  // namespace bullpen
