// HTTP/1.1 on a connection that is kept: one answer for each request, in their order.
#pragma once

#include <memory>

#include "socket.hpp"
#include "waiting.hpp"

namespace bench {

class HttpConnection : public Stream {
 public:
  using Stream::Stream;
  // The body of the answer; throws when its code is not 2xx.
  Task<std::string> request(std::string_view method, std::string_view target, std::string_view body, std::int64_t deadline_ns = 0);

 protected:
  void on_input(std::string_view input) override;
  void gather_output(std::string& output) override { output.swap(output_); }
  void on_broken(const std::string& reason) override;
  void on_open() override { input_.clear(); }

 private:
  // The whole body of the answer that begins the input, and how long all of it is; none: more is to come.
  std::optional<std::pair<std::string, std::size_t>> parse() const;

  std::string output_;
  std::string input_;
  std::deque<std::shared_ptr<Waiting>> open_;
};

}  // namespace bench
