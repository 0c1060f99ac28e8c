#pragma once

namespace bullpen {

// The text of chat_template_helper.py, which the binary carries.
extern const char kChatTemplateScript[];

}  // namespace bullpen
