// Check ONNX Runtime against a conformance kit: one line a case.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>

#include "host.hpp"

using nlohmann::json;

namespace {

// The kit's tensors are raw little-endian values, as they lie in the memory of x86 and Arm.
std::vector<char> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Refusal(path, "cannot be read", "copy the kit again");
    return {std::istreambuf_iterator<char>(file), {}};
}

ONNXTensorElementDataType type_of(const std::string& dtype) {
    if (dtype == "float32") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    if (dtype == "int64") return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    if (dtype == "uint8") return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    throw Refusal("type " + dtype, "unknown to this checker", "take the checker that came with the kit");
}

std::vector<double> widened(const void* data, size_t count, ONNXTensorElementDataType type) {
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) return {(const float*)data, (const float*)data + count};
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64) return {(const int64_t*)data, (const int64_t*)data + count};
    return {(const uint8_t*)data, (const uint8_t*)data + count};
}

// How far `found` is from `expected`; what is not a number is infinitely far.
double difference(const std::string& measure, const std::vector<double>& found, const std::vector<double>& expected,
                  size_t samples) {
    const size_t size = expected.size() / samples;
    double most = 0, largest = 1e-30, differing = 0, levels = 0, worst = 0;
    for (size_t s = 0; s < samples; s++) {
        double apart = 0, length = 0;
        for (size_t i = s * size; i < (s + 1) * size; i++) {
            const double a = found[i], b = expected[i];
            if (!std::isfinite(a)) return std::numeric_limits<double>::infinity();
            most = std::max(most, std::abs(a - b));
            largest = std::max(largest, std::abs(b));
            differing += a != b;
            levels += std::abs(a - b) > 1;
            apart += (a - b) * (a - b);
            length += b * b;
        }
        worst = std::max(worst, std::sqrt(apart) / std::max(std::sqrt(length), 1e-30));
    }
    if (measure == "max") return most / largest;
    if (measure == "l2") return worst;
    if (measure == "different") return differing;
    if (measure == "levels") return levels / expected.size();
    throw Refusal("measure " + measure, "unknown to this checker", "take the checker that came with the kit");
}

json check_case(const std::string& folder, const json& entry, const json& tolerances, int repeat) {
    Ort::Session session = open(folder + "/" + entry["explainer"].get<std::string>());
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<std::string> fed, asked;
    std::vector<std::vector<char>> bytes;
    std::vector<Ort::Value> inputs;
    for (const json& input : entry["inputs"]) {
        fed.push_back(input["name"]);
        bytes.push_back(read(folder + "/" + input["file"].get<std::string>()));
        const auto shape = input["shape"].get<std::vector<int64_t>>();
        auto& held = bytes.back();
        inputs.push_back(Ort::Value::CreateTensor(memory, held.data(), held.size(), shape.data(), shape.size(),
                                                  type_of(input["dtype"])));
    }
    for (const json& output : entry["outputs"]) asked.push_back(output["name"]);
    std::vector<const char*> in, out;
    for (const auto& name : fed) in.push_back(name.c_str());
    for (const auto& name : asked) out.push_back(name.c_str());
    auto run = [&] { return session.Run({}, in.data(), inputs.data(), in.size(), out.data(), out.size()); };
    const auto found = run();

    json result{{"errors", json::object()}, {"missed", json::array()}, {"seconds", nullptr}};
    for (size_t i = 0; i < asked.size(); i++) {
        const json& output = entry["outputs"][i];
        const json& tolerance = tolerances[output["tolerance"].get<std::string>()];
        const auto shape = output["shape"].get<std::vector<int64_t>>();
        const auto info = found[i].GetTensorTypeAndShapeInfo();
        const auto type = type_of(output["dtype"]);
        double error = std::numeric_limits<double>::infinity();
        if (info.GetShape() == shape && info.GetElementType() == type) {
            const auto held = read(folder + "/" + output["file"].get<std::string>());
            const size_t count = info.GetElementCount();
            error = difference(tolerance["measure"], widened(found[i].GetTensorRawData(), count, type),
                               widened(held.data(), count, type), shape[0]);
        }
        result["errors"][asked[i]] = error;
        if (!(error <= tolerance["limit"].get<double>())) result["missed"].push_back(asked[i]);
    }
    std::vector<double> times;
    for (int i = 0; i < repeat; i++) {
        const auto began = std::chrono::steady_clock::now();
        run();
        times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    std::sort(times.begin(), times.end());
    if (!times.empty()) result["seconds"] = times[times.size() / 2];
    return result;
}

std::string line(const std::string& name, const json& result) {
    std::ostringstream said;
    said.precision(1);
    said << (result.contains("failed") ? "FAIL  " : result["missed"].empty() ? "ok    " : "MISS  ") << name << "  ";
    if (result.contains("failed")) return said.str() + result["failed"].get<std::string>();
    const char* between = "";
    for (const auto& [output, error] : result["errors"].items()) {
        said << between << output << " " << std::scientific << error.get<double>();
        for (const json& missed : result["missed"]) said << (missed == output ? " (too far)" : "");
        between = ", ";
    }
    return said.str();
}

bool draws_the_same(const std::string& folder, const json& drawing) {
    const auto relevance = read(folder + "/" + drawing["relevance"]["file"].get<std::string>());
    const auto expected = read(folder + "/" + drawing["pixels"]["file"].get<std::string>());
    const Pixels drawn = draw((const float*)relevance.data(), drawing["relevance"]["shape"], drawing["layout"]);
    const bool same =
        drawn.rgb.size() == expected.size() && !std::memcmp(drawn.rgb.data(), expected.data(), expected.size());
    std::cout << (same ? "ok    " : "MISS  ") << drawing["name"].get<std::string>() << "  drawing\n";
    return same;
}

}  // namespace

int check(const std::string& folder, const std::string& report, int repeat) {
    std::ifstream file(folder + "/manifest.json");
    const json manifest = json::parse(file, nullptr, false);
    if (manifest.is_discarded())
        throw Refusal(folder + "/manifest.json", "is not there or is no JSON",
                      "name the folder of a conformance kit: graphs/conformance");
    json cases = json::object();
    size_t good = 0;
    for (const json& entry : manifest["cases"]) {
        const std::string name = entry["name"];
        try {
            cases[name] = check_case(folder, entry, manifest["tolerances"], repeat);
            good += cases[name]["missed"].empty();
        } catch (const std::exception& error) {
            cases[name] = {{"failed", error.what()}};
        }
        std::cout << line(name, cases[name]) << std::endl;
    }
    bool drawn = true;
    for (const json& drawing : manifest.value("drawings", json::array())) drawn = draws_the_same(folder, drawing) && drawn;
    const std::string runtime = "ONNX Runtime " + Ort::GetVersionString() + ", C++";
    std::cout << runtime << ": " << good << " of " << cases.size() << " cases within tolerance\n";
    if (!report.empty() && !(std::ofstream(report) << json{{"runtime", runtime}, {"cases", cases}}.dump(1)))
        throw Refusal(report, "cannot be written", "check the folder and its permissions");
    return good == cases.size() && good > 0 && drawn ? 0 : 1;
}
