#include "tests/server/http_fixture.h"

#include "base/check.h"

namespace bullpen {
namespace {

constexpr char kModelDir[] = "models/default";

std::unique_ptr<Tokenizer> DefaultTokenizer() {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::FromDirectory(kModelDir);
  CHECK(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

}  // namespace

HttpFixture::~HttpFixture() {
  client_.reset();
  server_.reset();
  service_.reset();
}

void HttpFixture::StartLoading() {
  tokenizer_ = DefaultTokenizer();
  service_ = std::make_unique<Service>(limits_, metrics_);
  absl::StatusOr<std::unique_ptr<HttpServer>> server =
      HttpServer::Listen(*service_, config_);
  CHECK(server.ok()) << server.status();
  server_ = *std::move(server);
}

void HttpFixture::SetReady() {
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat =
      ChatTemplate::FromDirectory(kModelDir, {});
  ModelFacts facts;
  facts.id = "bullpen-default";
  facts.vocab = 8192;
  facts.context = 4096;
  service_->SetReady(MakeFakeEngine(engine_, metrics_), DefaultTokenizer(),
                     *std::move(chat), std::move(facts));
}

void HttpFixture::Start() {
  StartLoading();
  SetReady();
}

FakeAnswer HttpFixture::Tokens(const std::string& text) const {
  FakeAnswer answer{.reason = FinishReason::kLength};
  for (const int32_t id : tokenizer_->Encode(text, /*add_special=*/false)) {
    answer.tokens.push_back({.id = id});
  }
  return answer;
}

void HttpFixture::Say(const std::string& text, FinishReason reason) {
  FakeAnswer answer = Tokens(text);
  answer.reason = reason;
  engine_.SetScript([answer](const Request&) { return answer; });
}

HttpClient& HttpFixture::client() {
  if (client_ == nullptr) client_ = std::make_unique<HttpClient>(port());
  return *client_;
}

}  // namespace bullpen
