// One answer that somebody waits for: it comes, fails, or is late.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "loop.hpp"

namespace bench {

class Waiting {
 public:
  explicit Waiting(Loop& loop) : loop_(loop) {}

  void answer(std::string text) {
    text_ = std::move(text);
    end();
  }
  void fail(std::string reason) {
    error_ = std::move(reason);
    end();
  }
  bool is_done() const { return is_done_; }

  // The answer; on_late is called at deadline_ns (0: never) and has to end the waiting.
  static Task<std::string> await(std::shared_ptr<Waiting> waiting, std::int64_t deadline_ns, const std::function<void()>& on_late) {
    std::optional<Loop::Timers::iterator> timer;
    if (deadline_ns != 0)
      timer = waiting->loop_.at(deadline_ns, [&timer, on_late] {
        timer.reset();
        on_late();
      });
    struct Wait {
      Waiting& waiting;
      bool await_ready() const noexcept { return waiting.is_done_; }
      void await_suspend(std::coroutine_handle<> handle) noexcept { waiting.waiter_ = handle; }
      void await_resume() const noexcept {}
    };
    co_await Wait{*waiting};
    if (timer) waiting->loop_.cancel(*timer);
    if (!waiting->error_.empty()) throw std::runtime_error(waiting->error_);
    co_return std::move(waiting->text_);
  }

 private:
  void end() {
    if (std::exchange(is_done_, true)) return;
    if (waiter_) loop_.ready(waiter_);
  }

  Loop& loop_;
  std::coroutine_handle<> waiter_;
  std::string text_;
  std::string error_;
  bool is_done_ = false;
};

}  // namespace bench
