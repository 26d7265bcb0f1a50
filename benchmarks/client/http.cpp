#include "http.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>

namespace bench {

Task<std::string> HttpConnection::request(std::string_view method, std::string_view target, std::string_view body,
                                          std::int64_t deadline_ns) {
  auto waiting = std::make_shared<Waiting>(loop_);
  touch();
  output_.append(method).append(" ").append(target).append(" HTTP/1.1\r\nHost: ").append(address().text);
  output_.append("\r\nAccept: application/csv\r\nContent-Length: ").append(std::to_string(body.size())).append("\r\n\r\n").append(body);
  open_.push_back(waiting);
  const std::function<void()> on_late = [this] { break_off("no answer in time"); };
  co_return co_await Waiting::await(waiting, deadline_ns, on_late);
}

void HttpConnection::on_broken(const std::string& reason) {
  output_.clear();
  for (auto& waiting : std::exchange(open_, {})) waiting->fail(reason);
}

void HttpConnection::on_input(std::string_view input) {
  input_.append(input);
  while (!open_.empty()) {
    auto answer = parse();
    if (!answer) return;
    const auto waiting = open_.front();
    open_.pop_front();
    const auto code = input_.substr(9, 3);
    if (code[0] == '2')
      waiting->answer(std::move(answer->first));
    else
      waiting->fail("HTTP " + code + ": " + answer->first);
    input_.erase(0, answer->second);
  }
}

std::optional<std::pair<std::string, std::size_t>> HttpConnection::parse() const {
  const auto head_end = input_.find("\r\n\r\n");
  if (head_end == std::string::npos) return std::nullopt;
  std::string head = input_.substr(0, head_end + 2);
  std::transform(head.begin(), head.end(), head.begin(), [](unsigned char letter) { return std::tolower(letter); });
  const auto begin = head_end + 4;
  if (const auto at = head.find("\r\ncontent-length: "); at != std::string::npos) {
    const auto size = std::stoull(head.substr(at + 18));
    if (input_.size() - begin < size) return std::nullopt;
    return {{input_.substr(begin, size), begin + size}};
  }
  if (head.find("\r\ntransfer-encoding: chunked") == std::string::npos) return {{"", begin}};
  std::string body;
  for (auto at = begin;;) {
    const auto line_end = input_.find("\r\n", at);
    if (line_end == std::string::npos) return std::nullopt;
    std::size_t size = 0;
    std::from_chars(input_.data() + at, input_.data() + line_end, size, 16);
    if (input_.size() < line_end + 2 + size + 2) return std::nullopt;
    if (size == 0) return {{std::move(body), line_end + 4}};
    body.append(input_, line_end + 2, size);
    at = line_end + 2 + size + 2;
  }
}

}  // namespace bench
