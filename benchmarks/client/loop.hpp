// One thread, one epoll, coroutines: what waits for a socket or for a time is resumed by Loop::run.
// Invariant: a coroutine is resumed by the loop only, never from inside a callback of a connection.
#pragma once

#include <sys/epoll.h>

#include <coroutine>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace bench {

std::int64_t now_ns();

template <class T>
struct Result {
  std::optional<T> value;
  void return_value(T result) { value.emplace(std::move(result)); }
  T take() { return std::move(*value); }
};

template <>
struct Result<void> {
  void return_void() {}
  void take() {}
};

// Starts when it is awaited; its exception goes to who awaits it.
template <class T = void>
class [[nodiscard]] Task {
 public:
  struct promise_type : Result<T> {
    std::coroutine_handle<> continuation = std::noop_coroutine();
    std::exception_ptr error;

    Task get_return_object() { return Task(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    auto final_suspend() noexcept {
      struct Final {
        bool await_ready() noexcept { return false; }
        std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> handle) noexcept {
          return handle.promise().continuation;
        }
        void await_resume() noexcept {}
      };
      return Final{};
    }
    void unhandled_exception() { error = std::current_exception(); }
  };

  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) noexcept {
    handle_.promise().continuation = caller;
    return handle_;
  }
  T await_resume() {
    if (handle_.promise().error) std::rethrow_exception(handle_.promise().error);
    return handle_.promise().take();
  }

 private:
  std::coroutine_handle<promise_type> handle_;
};

// Has a file descriptor in the loop.
class Source {
 public:
  virtual ~Source() = default;
  virtual void on_events(std::uint32_t events) = 0;
  // Sends what the last turn of the loop has gathered.
  virtual void flush() {}
};

class Loop {
 public:
  using Timers = std::multimap<std::int64_t, std::function<void()>>;

  Loop();
  ~Loop();
  Loop(const Loop&) = delete;

  void run(Task<> main);
  void add(int fd, std::uint32_t events, Source* source);
  void change(int fd, std::uint32_t events, Source* source);
  // Forgets source: the caller closes fd.
  void remove(int fd, Source* source);
  void ready(std::coroutine_handle<> handle) { ready_.push_back(handle); }
  void flush_later(Source* source) { dirty_.push_back(source); }
  Timers::iterator at(std::int64_t time_ns, std::function<void()> call) { return timers_.emplace(time_ns, std::move(call)); }
  void cancel(Timers::iterator timer) { timers_.erase(timer); }

  auto sleep_until(std::int64_t time_ns) {
    struct Sleep {
      Loop& loop;
      std::int64_t time_ns;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        loop.at(time_ns, [this, handle] { loop.ready(handle); });
      }
      void await_resume() const noexcept {}
    };
    return Sleep{*this, time_ns};
  }

  // Starts all, ends when all have ended, then throws the first error.
  Task<> all(std::vector<Task<>> tasks);

 private:
  void run_ready();
  void poll();

  int epoll_;
  std::deque<std::coroutine_handle<>> ready_;
  std::vector<Source*> dirty_;
  std::vector<epoll_event> events_;
  int events_count_ = 0;
  Timers timers_;
};

// Many wait; one call resumes the one that waited longest, or leaves a permit behind.
class Semaphore {
 public:
  Semaphore(Loop& loop, int permits) : loop_(loop), permits_(permits) {}
  auto acquire() {
    struct Acquire {
      Semaphore& semaphore;
      bool await_ready() noexcept { return semaphore.permits_ > 0 ? (--semaphore.permits_, true) : false; }
      void await_suspend(std::coroutine_handle<> handle) { semaphore.waiting_.push_back(handle); }
      void await_resume() const noexcept {}
    };
    return Acquire{*this};
  }
  void release() {
    if (waiting_.empty()) {
      ++permits_;
    } else {
      loop_.ready(waiting_.front());
      waiting_.pop_front();
    }
  }

 private:
  Loop& loop_;
  int permits_;
  std::deque<std::coroutine_handle<>> waiting_;
};

}  // namespace bench
