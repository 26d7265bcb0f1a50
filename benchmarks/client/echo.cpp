#include "echo.hpp"

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <unordered_map>

namespace bench {
namespace {

struct Answer {
  std::string in;
  std::string out;
  bool has_ended = false;
  bool is_started = false;
  bool is_deferred = false;
};

class Peer : public Source {
 public:
  Peer(Loop& loop, int fd) : loop_(loop), fd_(fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_server_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    const std::array settings{nghttp2_settings_entry{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 64 << 20);
    loop_.add(fd_, EPOLLIN, this);
  }

  ~Peer() override {
    loop_.remove(fd_, this);
    close(fd_);
    nghttp2_session_del(session_);
  }

  void on_events(std::uint32_t) override {
    static std::array<char, 1 << 18> buffer;
    const auto got = recv(fd_, buffer.data(), buffer.size(), 0);
    if (got <= 0 || nghttp2_session_mem_recv(session_, reinterpret_cast<std::uint8_t*>(buffer.data()), static_cast<std::size_t>(got)) < 0) {
      delete this;
      return;
    }
    std::string output;
    const std::uint8_t* data = nullptr;
    for (ssize_t size = 0; (size = nghttp2_session_mem_send(session_, &data)) > 0;)
      output.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
    // Answers are small: the kernel takes them.
    for (std::size_t at = 0; at < output.size();) {
      const auto sent = send(fd_, output.data() + at, output.size() - at, MSG_NOSIGNAL);
      if (sent < 0) {
        delete this;
        return;
      }
      at += static_cast<std::size_t>(sent);
    }
  }

 private:
  static nghttp2_nv header(std::string_view name, std::string_view value) {
    return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())), reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())),
            name.size(), value.size(), NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
  }

  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t size, void* self) {
    static_cast<Peer*>(self)->take(id, {reinterpret_cast<const char*>(data), size});
    return 0;
  }

  void take(std::int32_t id, std::string_view data) {
    auto& answer = answers_[id];
    answer.in.append(data);
    std::size_t at = 0;
    while (answer.in.size() - at >= 5) {
      std::size_t length = 0;
      for (int i = 1; i < 5; ++i) length = length << 8 | static_cast<std::uint8_t>(answer.in[at + i]);
      if (answer.in.size() - at - 5 < length) break;
      at += 5 + length;
      answer.out.append(5, '\0');
    }
    answer.in.erase(0, at);
    if (at > 0) send_on(id, answer);
  }

  void send_on(std::int32_t id, Answer& answer) {
    if (!answer.is_started) {
      answer.is_started = true;
      const std::array headers{header(":status", "200"), header("content-type", "application/grpc")};
      nghttp2_data_provider provider{};
      provider.source.ptr = &answer;
      provider.read_callback = provide;
      nghttp2_submit_response(session_, id, headers.data(), headers.size(), &provider);
    } else if (answer.is_deferred) {
      answer.is_deferred = false;
      nghttp2_session_resume_data(session_, id);
    }
  }

  static ssize_t provide(nghttp2_session* session, std::int32_t id, std::uint8_t* buffer, std::size_t size, std::uint32_t* flags,
                         nghttp2_data_source* source, void*) {
    auto& answer = *static_cast<Answer*>(source->ptr);
    const auto part = std::min(size, answer.out.size());
    std::memcpy(buffer, answer.out.data(), part);
    answer.out.erase(0, part);
    if (answer.out.empty()) {
      if (answer.has_ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        const auto trailer = header("grpc-status", "0");
        nghttp2_submit_trailer(session, id, &trailer, 1);
      } else if (part == 0) {
        answer.is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
      }
    }
    return static_cast<ssize_t>(part);
  }

  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* self) {
    if (frame->hd.stream_id != 0 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
      auto& peer = *static_cast<Peer*>(self);
      auto& answer = peer.answers_[frame->hd.stream_id];
      answer.has_ended = true;
      peer.send_on(frame->hd.stream_id, answer);
    }
    return 0;
  }

  static int on_close(nghttp2_session*, std::int32_t id, std::uint32_t, void* self) {
    static_cast<Peer*>(self)->answers_.erase(id);
    return 0;
  }

  Loop& loop_;
  int fd_;
  nghttp2_session* session_ = nullptr;
  std::unordered_map<std::int32_t, Answer> answers_;
};

class Listener : public Source {
 public:
  Listener(Loop& loop, const Address& address) : loop_(loop), fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd_, reinterpret_cast<const sockaddr*>(&address.socket), sizeof address.socket) != 0 || listen(fd_, 1024) != 0)
      throw std::system_error(errno, std::generic_category(), "listen on " + address.text);
    loop_.add(fd_, EPOLLIN, this);
  }

  void on_events(std::uint32_t) override {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) new Peer(loop_, fd);
  }

 private:
  Loop& loop_;
  int fd_;
};

Task<> forever(Loop& loop) {
  while (true) co_await loop.sleep_until(now_ns() + 3'600'000'000'000);
}

}  // namespace

void serve_echo(Loop& loop, const Address& address) {
  Listener listener(loop, address);
  loop.run(forever(loop));
}

}  // namespace bench
