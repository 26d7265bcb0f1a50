#include "loop.hpp"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace bench {

std::int64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

namespace {

// Runs by itself and destroys itself; the task inside reports its error.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

struct Gathering {
  std::size_t open = 0;
  std::exception_ptr error;
  std::coroutine_handle<> waiter;
};

Detached run_one(Loop& loop, Task<> task, Gathering& gathering) {
  try {
    co_await task;
  } catch (...) {
    if (!gathering.error) gathering.error = std::current_exception();
  }
  if (--gathering.open == 0 && gathering.waiter) loop.ready(gathering.waiter);
}

}  // namespace

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)), events_(256) {
  if (epoll_ < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
}

Loop::~Loop() { close(epoll_); }

void Loop::add(int fd, std::uint32_t events, Source* source) {
  epoll_event event{.events = events, .data = {.ptr = source}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0)
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
}

void Loop::change(int fd, std::uint32_t events, Source* source) {
  epoll_event event{.events = events, .data = {.ptr = source}};
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) != 0)
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
}

void Loop::remove(int fd, Source* source) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  std::erase(dirty_, source);
  for (int i = 0; i < events_count_; ++i)
    if (events_[i].data.ptr == source) events_[i].data.ptr = nullptr;
}

Task<> Loop::all(std::vector<Task<>> tasks) {
  struct Wait {
    Gathering& gathering;
    bool await_ready() const noexcept { return gathering.open == 0; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { gathering.waiter = handle; }
    void await_resume() const noexcept {}
  };
  Gathering gathering{.open = tasks.size(), .error = nullptr, .waiter = nullptr};
  for (auto& task : tasks) run_one(*this, std::move(task), gathering);
  co_await Wait{gathering};
  if (gathering.error) std::rethrow_exception(gathering.error);
}

void Loop::run(Task<> main) {
  Gathering gathering{.open = 1, .error = nullptr, .waiter = nullptr};
  run_one(*this, std::move(main), gathering);
  while (gathering.open > 0) {
    run_ready();
    if (gathering.open > 0) poll();
  }
  if (gathering.error) std::rethrow_exception(gathering.error);
}

void Loop::run_ready() {
  while (!ready_.empty() || !dirty_.empty()) {
    while (!ready_.empty()) {
      auto handle = ready_.front();
      ready_.pop_front();
      handle.resume();
    }
    auto dirty = std::exchange(dirty_, {});
    for (auto* source : dirty) source->flush();
  }
}

void Loop::poll() {
  int timeout_ms = -1;
  if (!timers_.empty())
    timeout_ms = static_cast<int>(std::clamp<std::int64_t>((timers_.begin()->first - now_ns() + 999'999) / 1'000'000, 0, 60'000));
  events_count_ = epoll_wait(epoll_, events_.data(), static_cast<int>(events_.size()), timeout_ms);
  for (int i = 0; i < events_count_; ++i)
    if (auto* source = static_cast<Source*>(events_[i].data.ptr)) source->on_events(events_[i].events);
  events_count_ = 0;
  while (!timers_.empty() && timers_.begin()->first <= now_ns()) {
    auto call = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    call();
  }
}

}  // namespace bench
