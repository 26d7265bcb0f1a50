#include "socket.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace bench {

Address Address::parse(const std::string& text) {
  Address address{.text = text};
  const auto colon = text.rfind(':');
  address.socket.sin_family = AF_INET;
  if (colon == std::string::npos || inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.socket.sin_addr) != 1)
    throw std::invalid_argument("not HOST:PORT: " + text);
  address.socket.sin_port = htons(static_cast<std::uint16_t>(std::stoi(text.substr(colon + 1))));
  return address;
}

Stream::~Stream() {
  if (fd_ >= 0) {
    loop_.remove(fd_, this);
    close(fd_);
  }
}

void Stream::touch() {
  if (fd_ < 0) open();
  if (!is_dirty_) {
    is_dirty_ = true;
    loop_.flush_later(this);
  }
}

void Stream::open() {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "socket");
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  is_connected_ = false;
  output_.clear();
  output_at_ = 0;
  // A refusal shows as an event, like every other end.
  const int result = connect(fd_, reinterpret_cast<const sockaddr*>(&address_.socket), sizeof address_.socket);
  if (result != 0 && errno != EINPROGRESS && errno != ECONNREFUSED)
    throw std::system_error(errno, std::generic_category(), "connect to " + address_.text);
  loop_.add(fd_, EPOLLIN | EPOLLOUT, this);
  wants_output_ = true;
  on_open();
}

void Stream::break_off(const std::string& reason) {
  if (fd_ < 0) return;
  loop_.remove(fd_, this);
  close(fd_);
  fd_ = -1;
  is_dirty_ = false;
  on_broken(address_.text + ": " + reason);
}

void Stream::want_output(bool wanted) {
  if (wanted == wants_output_) return;
  wants_output_ = wanted;
  loop_.change(fd_, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, this);
}

void Stream::flush() {
  is_dirty_ = false;
  if (fd_ < 0 || !is_connected_) return;
  while (true) {
    if (output_at_ == output_.size()) {
      output_.clear();
      output_at_ = 0;
      gather_output(output_);
      if (output_.empty()) return want_output(false);
    }
    const auto sent = send(fd_, output_.data() + output_at_, output_.size() - output_at_, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN) return want_output(true);
      return break_off(std::strerror(errno));
    }
    output_at_ += static_cast<std::size_t>(sent);
  }
}

void Stream::on_events(std::uint32_t events) {
  if (!is_connected_) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return break_off(std::strerror(error));
    if (!(events & EPOLLOUT)) return;
    is_connected_ = true;
  }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    static std::array<char, 1 << 18> buffer;
    const auto got = recv(fd_, buffer.data(), buffer.size(), 0);
    if (got == 0) return break_off("connection closed");
    if (got < 0 && errno != EAGAIN) return break_off(std::strerror(errno));
    if (got > 0) on_input({buffer.data(), static_cast<std::size_t>(got)});
    if (fd_ < 0) return;
  }
  touch();
}

}  // namespace bench
