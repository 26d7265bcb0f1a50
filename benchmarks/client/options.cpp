#include "options.hpp"

#include <functional>
#include <map>
#include <stdexcept>

namespace bench {

Options parse(int count, char** texts) {
  Options options;
  options.setting.connections = 0;
  auto& setting = options.setting;
  const std::map<std::string, std::function<void(const std::string&)>> with_value{
      {"--system", [&](auto& text) { options.system = text; }},
      {"--endpoint", [&](auto& text) { setting.endpoints.push_back(Address::parse(text)); }},
      {"--values", [&](auto& text) { options.values = text; }},
      {"--clients", [&](auto& text) { setting.clients = std::stoi(text); }},
      {"--connections", [&](auto& text) { setting.connections = std::stoi(text); }},
      {"--in-flight", [&](auto& text) { setting.in_flight = std::stoi(text); }},
      {"--seconds", [&](auto& text) { options.seconds = std::stod(text); }},
      {"--readings", [&](auto& text) { options.readings = std::stoull(text); }},
      {"--series", [&](auto& text) { options.series = std::stoull(text); }},
      {"--first-series", [&](auto& text) { options.first_series = std::stoull(text); }},
      {"--batch", [&](auto& text) { options.batch = std::stoull(text); }},
      {"--per-series", [&](auto& text) { options.per_series = std::stoull(text); }},
      {"--window", [&](auto& text) { options.window = std::stoull(text); }},
      {"--series-per-message", [&](auto& text) { options.series_per_message = std::stoull(text); }},
  };
  const std::map<std::string, bool*> flags{
      {"--streams", &setting.streams}, {"--pause", &options.pause}, {"--skip-read-back", &options.skip_read_back}};
  if (count < 2) throw std::invalid_argument("which workload?");
  options.workload = texts[1];
  for (int i = 2; i < count; ++i) {
    const std::string name = texts[i];
    if (const auto flag = flags.find(name); flag != flags.end()) {
      *flag->second = true;
    } else if (const auto option = with_value.find(name); option != with_value.end() && i + 1 < count) {
      option->second(texts[++i]);
    } else {
      throw std::invalid_argument("unknown or incomplete option " + name);
    }
  }
  if (setting.endpoints.empty()) throw std::invalid_argument("--endpoint is missing");
  if (setting.connections == 0) setting.connections = std::max<int>(setting.clients, static_cast<int>(setting.endpoints.size()));
  return options;
}

}  // namespace bench
