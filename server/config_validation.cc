// The rules of config.h that need no file: one table for each kind of value.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "backend/create_backend.h"
#include "base/human.h"
#include "server/config.h"
#include "server/config_checks.h"
#include "server/kv_cache_validation.h"
#include "server/limits.h"
#include "server/listen_address.h"

namespace headcount {
namespace {

absl::Status CheckBounds(absl::string_view path, int64_t value, int64_t low,
                         int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(path, absl::StrCat(value, " is not from ", low, " to ", high));
}

absl::Status CheckDuration(absl::string_view path, const std::string& text,
                           absl::Duration most) {
  const absl::StatusOr<absl::Duration> duration = ParseDuration(text);
  if (!duration.ok()) return Invalid(path, duration.status().message());
  if (*duration < absl::ZeroDuration() || *duration > most) {
    return Invalid(path, absl::StrCat(text, " is not from 0s to ",
                                      absl::FormatDuration(most)));
  }
  return absl::OkStatus();
}

absl::Status CheckAddress(absl::string_view path, absl::string_view text) {
  const absl::StatusOr<ListenAddress> address = ParseListenAddress(text);
  return address.ok() ? absl::OkStatus()
                      : Invalid(path, address.status().message());
}

absl::Status CheckShare(double share) {
  // Absent is 0.
  if (share == 0 || (share >= kMinShare && share <= kMaxShare)) {
    return absl::OkStatus();
  }
  return Invalid("share", absl::StrCat(share, " is not from ", kMinShare,
                                       " to ", kMaxShare));
}

absl::Status CheckDevice(const std::string& value) {
  if (ParseDeviceName(value).has_value()) return absl::OkStatus();
  return Invalid("device", absl::StrCat("'", value,
                                        "' is not auto, cpu, cuda or a GPU "
                                        "by its number, such as cuda:0"));
}

absl::Status CheckAdminKey(const std::string& value) {
  if (ParseAdmin(value).has_value()) return absl::OkStatus();
  return Invalid("admin",
                 absl::StrCat("'", value, "' is not local, any or off"));
}

absl::Status CheckChoice(absl::string_view path, absl::string_view value,
                         absl::string_view one, absl::string_view other) {
  if (value == one || value == other) return absl::OkStatus();
  return Invalid(path, absl::StrCat("'", value, "' is neither '", one,
                                    "' nor '", other, "'"));
}

// The first that is not OK.
absl::Status FirstInvalid(std::initializer_list<absl::Status> checks) {
  for (const absl::Status& status : checks) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckHeads(const config::v1::Heads& heads) {
  for (const auto& [layer, list] : heads.pruned()) {
    const std::string path = absl::StrCat("heads.pruned.", layer);
    if (layer < 0) return Invalid(path, "layers count from 0");
    std::set<int> parsed;
    for (int i = 0; i < list.ranges_size(); ++i) {
      const absl::Status status = ParseHeadRange(list.ranges(i), &parsed);
      if (!status.ok()) {
        return Invalid(absl::StrCat(path, "[", i, "]"), status.message());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckClassify(const config::v1::Classify& classify) {
  if (classify.template_().empty()) {
    return Invalid("classify.template",
                   "missing; text with {input} where the input goes");
  }
  if (classify.template_().size() > kMaxTemplateBytes) {
    return Invalid("classify.template",
                   absl::StrCat(classify.template_().size(), " bytes; at most ",
                                kMaxTemplateBytes));
  }
  if (classify.labels_size() < 2 || classify.labels_size() > kMaxLabels) {
    return Invalid("classify.labels",
                   absl::StrCat(classify.labels_size(), " labels; from 2 to ",
                                kMaxLabels));
  }
  std::set<absl::string_view> seen;
  for (int i = 0; i < classify.labels_size(); ++i) {
    const std::string& label = classify.labels(i);
    const std::string path = absl::StrCat("classify.labels[", i, "]");
    if (label.empty() || label.size() > kMaxLabelBytes) {
      return Invalid(path, absl::StrCat(label.size(), " bytes; from 1 to ",
                                        kMaxLabelBytes));
    }
    if (!seen.insert(label).second) {
      return Invalid(path, absl::StrCat("'", label, "' is here twice"));
    }
  }
  return absl::OkStatus();
}

// What a variant has of its base is not its own to say.
absl::Status CheckVariantKeys(const config::v1::ModelSpec& spec) {
  const std::string& base = spec.source().variant_of();
  if (!spec.source().path().empty()) {
    return Invalid("source",
                   "has path and variant_of; a variant has no "
                   "weights of its own: leave one of them out");
  }
  if (spec.name().empty()) {
    return Invalid("name",
                   "missing; a variant has no folder to be named after");
  }
  if (spec.name() == base) {
    return Invalid(
        "source.variant_of",
        absl::StrCat("'", base, "' is the name of this model itself"));
  }
  if (!spec.precision().empty()) {
    return Invalid("precision",
                   absl::StrCat("is that of the weights; say it of "
                                "the base, '",
                                base, "'"));
  }
  if (spec.share() != 0) {
    return Invalid("share", absl::StrCat("a variant runs in the steps of its "
                                         "base; say it of that, '",
                                         base, "'"));
  }
  return absl::OkStatus();
}

// Those that both kinds of models have.
absl::Status CheckModelKeys(const config::v1::ModelSpec& spec) {
  constexpr int64_t kMost = INT32_MAX;
  return FirstInvalid(
      {CheckKvCache(spec), CheckShare(spec.share()), CheckHeads(spec.heads()),
       CheckBounds("limits.max_context", spec.limits().max_context(), 0, kMost),
       CheckBounds("limits.max_concurrent", spec.limits().max_concurrent(), 0,
                   kMost),
       spec.has_classify() ? CheckClassify(spec.classify())
                           : absl::OkStatus()});
}

// Errors begin with a key of the model.
absl::Status CheckBase(const config::v1::ModelSpec& spec,
                       const config::v1::ServerConfig& config) {
  const std::string& name = spec.source().variant_of();
  const auto base =
      std::find_if(config.models().begin(), config.models().end(),
                   [&](const auto& other) { return other.name() == name; });
  if (base == config.models().end()) {
    return Invalid("source.variant_of",
                   absl::StrCat("there is no model '", name, "'"));
  }
  if (IsVariant(*base)) {
    return Invalid("source.variant_of",
                   absl::StrCat("'", name,
                                "' is a variant itself; name a model "
                                "that has weights"));
  }
  if (spec.preload() == "on" && base->preload() == "off") {
    return Invalid("preload",
                   absl::StrCat("'on', but its base, '", name, "', has 'off'"));
  }
  if (base->precision() == "exact") {
    std::vector<std::pair<std::string, std::string>> dtypes = {
        {"kv_cache.dtype", spec.kv_cache().dtype()}};
    for (int i = 0; i < spec.kv_cache().heads_size(); ++i) {
      dtypes.emplace_back(absl::StrCat("kv_cache.heads[", i, "].dtype"),
                          spec.kv_cache().heads(i).dtype());
    }
    for (const auto& [key, dtype] : dtypes) {
      if (dtype.empty() || dtype == "f32") continue;
      return Invalid(
          key, absl::StrCat("'", dtype,
                            "' contradicts precision: exact of its base, '",
                            name, "', which keeps the cache in f32"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool IsModelName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxModelNameBytes ||
      !absl::ascii_isalnum(static_cast<unsigned char>(name[0]))) {
    return false;
  }
  for (const char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' &&
        c != '_' && c != '-') {
      return false;
    }
  }
  return true;
}

absl::Status ValidateModelSpec(const config::v1::ModelSpec& spec) {
  const bool variant = IsVariant(spec);
  if (variant) {
    const absl::Status status = CheckVariantKeys(spec);
    if (!status.ok()) return status;
  }
  if (!IsModelName(spec.name())) {
    return Invalid("name", absl::StrCat("'", spec.name(),
                                        "' is not a model name: letters, "
                                        "digits, '.', '_' and '-', at most ",
                                        kMaxModelNameBytes));
  }
  if (!variant && spec.source().path().empty()) {
    return Invalid("source.path", "missing; the folder of the weights");
  }
  // Those that a variant may leave out.
  const absl::Status status = FirstInvalid(
      {variant ? absl::OkStatus()
               : CheckChoice("precision", spec.precision(), "fast", "exact"),
       variant && spec.preload().empty()
           ? absl::OkStatus()
           : CheckChoice("preload", spec.preload(), "on", "off")});
  return status.ok() ? CheckModelKeys(spec) : status;
}

// A size, or a share of what is free.
absl::Status CheckPool(const config::v1::ServerConfig& config) {
  constexpr double kMostShare = 0.98;  // a step needs memory, too
  if (!absl::EndsWith(config.kv_pool(), "%")) {
    return CheckByteSize("kv_pool", config.kv_pool());
  }
  const std::optional<double> share = PoolShareOf(config);
  if (share && *share > 0 && *share <= kMostShare) return absl::OkStatus();
  return Invalid("kv_pool",
                 absl::StrCat("'", config.kv_pool(),
                              "' is not a size, such as 24GiB, or a share "
                              "over 0% and up to ",
                              100 * kMostShare,
                              "% of the memory that is free once the models "
                              "are loaded"));
}

absl::Status ValidateServerKeys(const config::v1::ServerConfig& config) {
  if (!std::isfinite(config.watermark()) || config.watermark() < 0 ||
      config.watermark() > kMaxWatermark) {
    return Invalid(
        "watermark",
        absl::StrCat(config.watermark(), " is not from 0 to ", kMaxWatermark));
  }
  return FirstInvalid(
      {CheckAddress("listen", config.listen()),
       CheckAddress("metrics_listen", config.metrics_listen()),
       CheckPool(config),
       CheckBounds("step_tokens", config.step_tokens(), 1, kMaxStepTokens),
       CheckBounds("threads", config.threads(), 0, kMaxThreads),
       CheckDevice(config.device()),
       CheckBounds("queue.requests", config.queue().requests(), 1,
                   kMaxQueuedRequests),
       CheckBounds("queue.tokens", config.queue().tokens(), 0, INT64_MAX),
       CheckByteSize("queue.bytes", config.queue().bytes()),
       CheckChoice("prefix_cache", config.prefix_cache(), "on", "off"),
       CheckAdminKey(config.admin()),
       CheckChoice("calibration", config.calibration(), "on", "off"),
       CheckDuration("drain.grace", config.drain().grace(), kMaxDrainGrace),
       CheckDuration("drain.deadline", config.drain().deadline(),
                     kMaxDrainDeadline),
       CheckChoice("log_format", config.log_format(), "text", "json")});
}

absl::Status ValidateServerConfig(const config::v1::ServerConfig& config,
                                  absl::Span<const std::string> places) {
  absl::Status status = ValidateServerKeys(config);
  if (!status.ok()) return status;
  if (config.models().empty()) {
    return Invalid("models", "missing; at least one model");
  }
  const auto at = [&](int i, const absl::Status& problem) {
    const auto index = static_cast<size_t>(i);
    return absl::InvalidArgumentError(
        absl::StrCat(index < places.size() ? places[index]
                                           : absl::StrCat("models[", i, "]."),
                     problem.message()));
  };
  std::set<absl::string_view> names;
  for (int i = 0; i < config.models_size(); ++i) {
    status = ValidateModelSpec(config.models(i));
    if (status.ok() && !names.insert(config.models(i).name()).second) {
      status = Invalid("name", absl::StrCat("'", config.models(i).name(),
                                            "' is the name of two models"));
    }
    if (!status.ok()) return at(i, status);
  }
  for (int i = 0; i < config.models_size(); ++i) {
    if (!IsVariant(config.models(i))) continue;
    status = CheckBase(config.models(i), config);
    if (!status.ok()) return at(i, status);
  }
  return absl::OkStatus();
}

}  // namespace headcount
