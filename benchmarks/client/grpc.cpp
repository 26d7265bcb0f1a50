#include "grpc.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace bench {
namespace {

constexpr std::int32_t WINDOW_BYTES = 64 << 20;

nghttp2_nv header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

}  // namespace

void Call::send(std::string_view message) {
  if (is_closed_) return;
  const auto size = static_cast<std::uint32_t>(message.size());
  const char prefix[5] = {0, static_cast<char>(size >> 24), static_cast<char>(size >> 16), static_cast<char>(size >> 8), static_cast<char>(size)};
  if (out_at_ == out_.size()) {
    out_.clear();
    out_at_ = 0;
  }
  out_.append(prefix, 5).append(message);
  wake();
}

void Call::half_close() {
  is_half_closed_ = true;
  wake();
}

void Call::wake() {
  if (is_deferred_) {
    is_deferred_ = false;
    nghttp2_session_resume_data(channel_->session_, id_);
  }
  if (!is_closed_) channel_->touch();
}

void Call::cancel() {
  if (is_closed_) return;
  nghttp2_submit_rst_stream(channel_->session_, NGHTTP2_FLAG_NONE, id_, NGHTTP2_CANCEL);
  nghttp2_session_set_stream_user_data(channel_->session_, id_, nullptr);
  channel_->touch();
  auto self = channel_->calls_.extract(id_);
  close(CANCELLED, "cancelled by the client");
}

void Call::close(int status, std::string text) {
  if (is_closed_) return;
  is_closed_ = true;
  status_ = status;
  text_ = std::move(text);
  if (waiter_) channel_->loop_.ready(std::exchange(waiter_, nullptr));
}

Channel::Channel(Loop& loop, const Address& address) : Stream(loop, address), authority_(address.text) {}

Channel::~Channel() {
  if (session_) nghttp2_session_del(session_);
}

Task<std::string> Channel::unary(const std::string& path, std::string_view request, std::int64_t deadline_ns) {
  auto call = start(path);
  call->send(request);
  call->half_close();
  bool is_late = false;
  std::optional<Loop::Timers::iterator> timer;
  if (deadline_ns != 0)
    timer = loop_.at(deadline_ns, [&, call] {
      is_late = true;
      timer.reset();
      call->cancel();
    });
  co_await call->closed();
  if (timer) loop_.cancel(*timer);
  if (is_late) throw CallError(DEADLINE_EXCEEDED, "no answer in time from " + authority_);
  call->check();
  if (call->messages_.empty()) throw CallError(UNAVAILABLE, "an answer without a message");
  co_return std::move(call->messages_.front());
}

std::shared_ptr<Call> Channel::start(const std::string& path) {
  touch();
  std::shared_ptr<Call> call(new Call(*this));
  const std::array headers{header(":method", "POST"), header(":scheme", "http"), header(":path", path),
                           header(":authority", authority_), header("te", "trailers"),
                           header("content-type", "application/grpc")};
  nghttp2_data_provider provider{};
  provider.read_callback = provide;
  call->id_ = nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(), &provider, call.get());
  if (call->id_ < 0) throw CallError(UNAVAILABLE, nghttp2_strerror(call->id_));
  calls_.emplace(call->id_, call);
  return call;
}

void Channel::on_open() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_session_client_new2(&session_, callbacks, this, option);
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  const std::array settings{nghttp2_settings_entry{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES},
                            nghttp2_settings_entry{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES);
}

void Channel::on_input(std::string_view input) {
  const auto used = nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  if (used < 0) break_off(nghttp2_strerror(static_cast<int>(used)));
}

void Channel::gather_output(std::string& output) {
  while (output.size() < (1 << 18)) {
    const std::uint8_t* data = nullptr;
    const auto size = nghttp2_session_mem_send(session_, &data);
    if (size <= 0) return;
    output.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
  }
}

void Channel::on_broken(const std::string& reason) {
  auto calls = std::exchange(calls_, {});
  for (auto& [id, call] : calls) call->close(UNAVAILABLE, reason);
  nghttp2_session_del(std::exchange(session_, nullptr));
}

ssize_t Channel::provide(nghttp2_session* session, std::int32_t id, std::uint8_t* buffer, std::size_t size,
                               std::uint32_t* flags, nghttp2_data_source*, void*) {
  auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, id));
  if (!call) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const auto part = std::min(size, call->out_.size() - call->out_at_);
  std::memcpy(buffer, call->out_.data() + call->out_at_, part);
  call->out_at_ += part;
  if (call->out_at_ == call->out_.size()) {
    if (call->is_half_closed_) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (part == 0) {
      call->is_deferred_ = true;
      return NGHTTP2_ERR_DEFERRED;
    }
  }
  return static_cast<ssize_t>(part);
}

int Channel::on_header(nghttp2_session* session, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t name_size,
                       const std::uint8_t* value, std::size_t value_size, std::uint8_t, void*) {
  auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
  if (!call) return 0;
  const std::string_view key(reinterpret_cast<const char*>(name), name_size);
  if (key == "grpc-status") call->status_ = std::atoi(std::string(reinterpret_cast<const char*>(value), value_size).c_str());
  if (key == "grpc-message") call->text_.assign(reinterpret_cast<const char*>(value), value_size);
  return 0;
}

int Channel::on_data(nghttp2_session* session, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t size, void* self) {
  auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, id));
  if (!call || call->is_closed_) return 0;
  call->in_.append(reinterpret_cast<const char*>(data), size);
  std::size_t at = 0;
  while (call->in_.size() - at >= 5) {
    std::size_t length = 0;
    for (int i = 1; i < 5; ++i) length = length << 8 | static_cast<std::uint8_t>(call->in_[at + i]);
    if (call->in_.size() - at - 5 < length) break;
    call->messages_.emplace_back(call->in_, at + 5, length);
    at += 5 + length;
  }
  call->in_.erase(0, at);
  if (!call->messages_.empty() && call->waiter_ && !call->waits_for_close_)
    static_cast<Channel*>(self)->loop_.ready(std::exchange(call->waiter_, nullptr));
  return 0;
}

int Channel::on_close(nghttp2_session*, std::int32_t id, std::uint32_t error, void* self) {
  auto& calls = static_cast<Channel*>(self)->calls_;
  const auto found = calls.find(id);
  if (found == calls.end()) return 0;
  const auto call = std::move(found->second);
  calls.erase(found);
  if (call->status_ >= 0)
    call->close(call->status_, call->text_);
  else
    call->close(UNAVAILABLE, std::string("stream ended without a status: ") + nghttp2_http2_strerror(error));
  return 0;
}

}  // namespace bench
