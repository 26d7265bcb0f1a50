// gRPC over one HTTP/2 connection (nghttp2): unary calls and streams, no retries, no name resolution.
// Invariant: a call is closed exactly once, with a status; UNAVAILABLE when the connection breaks.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "loop.hpp"
#include "socket.hpp"

namespace bench {

enum GrpcStatus { OK = 0, CANCELLED = 1, DEADLINE_EXCEEDED = 4, UNAVAILABLE = 14 };

// What a call came to when it was not OK.
class CallError : public std::runtime_error {
 public:
  CallError(int code, const std::string& text) : std::runtime_error("status " + std::to_string(code) + ": " + text), code(code) {}
  int code;
};

class Channel;

class Call {
 public:
  // Queues a message.
  void send(std::string_view message);
  // No more messages.
  void half_close();
  // The next message; none when the call is closed.
  auto next() {
    struct Next {
      Call& call;
      bool await_ready() const noexcept { return !call.messages_.empty() || call.is_closed_; }
      void await_suspend(std::coroutine_handle<> handle) noexcept { call.waiter_ = handle; }
      std::optional<std::string> await_resume() {
        if (call.messages_.empty()) return std::nullopt;
        auto message = std::move(call.messages_.front());
        call.messages_.pop_front();
        return message;
      }
    };
    return Next{*this};
  }
  auto closed() {
    struct Closed {
      Call& call;
      bool await_ready() noexcept {
        call.waits_for_close_ = true;
        return call.is_closed_;
      }
      void await_suspend(std::coroutine_handle<> handle) noexcept { call.waiter_ = handle; }
      void await_resume() const noexcept {}
    };
    return Closed{*this};
  }
  void cancel();
  void check() const {
    if (status_ != OK) throw CallError(status_, text_);
  }
  bool is_closed() const { return is_closed_; }

 private:
  friend class Channel;

  explicit Call(Channel& channel) : channel_(&channel) {}
  void close(int status, std::string text);
  void wake();

  Channel* channel_;
  std::int32_t id_ = -1;
  std::string out_;
  std::size_t out_at_ = 0;
  bool is_half_closed_ = false;
  bool is_deferred_ = false;
  std::string in_;
  std::deque<std::string> messages_;
  int status_ = -1;
  std::string text_;
  bool is_closed_ = false;
  bool waits_for_close_ = false;
  std::coroutine_handle<> waiter_;
};

class Channel : public Stream {
 public:
  Channel(Loop& loop, const Address& address);
  ~Channel() override;

  // The answer; throws CallError. deadline_ns of now_ns's clock, 0: none.
  Task<std::string> unary(const std::string& path, std::string_view request, std::int64_t deadline_ns = 0);
  // path must outlive the call.
  std::shared_ptr<Call> start(const std::string& path);

 protected:
  void on_open() override;
  void on_input(std::string_view input) override;
  void gather_output(std::string& output) override;
  void on_broken(const std::string& reason) override;

 private:
  friend class Call;
  static ssize_t provide(nghttp2_session*, std::int32_t, std::uint8_t*, std::size_t, std::uint32_t*, nghttp2_data_source*, void*);
  static int on_header(nghttp2_session*, const nghttp2_frame*, const std::uint8_t*, std::size_t, const std::uint8_t*, std::size_t, std::uint8_t, void*);
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t, const std::uint8_t*, std::size_t, void*);
  static int on_close(nghttp2_session*, std::int32_t, std::uint32_t, void*);

  nghttp2_session* session_ = nullptr;
  std::string authority_;
  std::unordered_map<std::int32_t, std::shared_ptr<Call>> calls_;
};

}  // namespace bench
