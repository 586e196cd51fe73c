// Explain a picture with an explainer: explain EXPLAINER PICTURE.png [HEATMAP.png] [CLASS]
// Check ONNX Runtime against a kit:    explain check DIR [--json FILE] [--repeat TIMES]

#include <cstdlib>
#include <iostream>

#include "host.hpp"

using nlohmann::json;

static Ort::Env& environment() {
    static Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "onnxlrp");
    return env;
}

Ort::Session open(const std::string& path) {
    Ort::SessionOptions options;
    if (const char* threads = std::getenv("OMP_NUM_THREADS")) options.SetIntraOpNumThreads(std::atoi(threads));
    return Ort::Session(environment(), path.c_str(), options);
}

static json stated(const Ort::Session& session, const char* key, const char* otherwise) {
    Ort::AllocatorWithDefaultOptions allocator;
    auto value = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
    return json::parse(value ? value.get() : otherwise);
}

static std::string word(const Ort::Session& session, const char* key) {
    Ort::AllocatorWithDefaultOptions allocator;
    auto value = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
    if (!value) throw std::runtime_error(std::string("the model does not state ") + key + ": make it with onnxlrp convert");
    return value.get();
}

static void explain(const std::string& path, const std::string& picture, const std::string& heatmap, int64_t target) {
    Ort::Session session = open(path);
    const std::string image = word(session, "onnxlrp.input");
    const json way = json::parse(word(session, "onnxlrp.preprocess"));

    std::vector<int64_t> shape, one{1};
    std::vector<float> values = prepare(read_png(picture), way, shape);
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> inputs;
    inputs.push_back(Ort::Value::CreateTensor<float>(memory, values.data(), values.size(), shape.data(), shape.size()));
    inputs.push_back(Ort::Value::CreateTensor<int64_t>(memory, &target, 1, one.data(), 1));
    const char* fed[] = {image.c_str(), "target"};
    const char* asked[] = {"relevance", "explained"};
    auto found = session.Run({}, fed, inputs.data(), session.GetInputCount(), asked, 2);

    write_png(heatmap, draw(found[0].GetTensorData<float>(), shape, way["layout"]));
    const int64_t number = found[1].GetTensorData<int64_t>()[0];
    const json labels = stated(session, "onnxlrp.labels", "[]");
    std::cout << "class " << number;
    if (!labels.empty()) std::cout << " (" << labels[number].get<std::string>() << ")";
    std::cout << ": " << heatmap << "\n";
}

int main(int count, char** words) try {
    const std::vector<std::string> given(words + 1, words + count);
    if (given.size() < 2) {
        std::cerr << "explain EXPLAINER PICTURE.png [HEATMAP.png] [CLASS], or: explain check DIR\n";
        return 2;
    }
    if (given[0] == "check") {
        std::string report;
        int repeat = 0;
        for (size_t i = 2; i + 1 < given.size(); i += 2) {
            if (given[i] == "--json") report = given[i + 1];
            if (given[i] == "--repeat") repeat = std::stoi(given[i + 1]);
        }
        return check(given[1], report, repeat);
    }
    explain(given[0], given[1], given.size() > 2 ? given[2] : "heatmap.png", given.size() > 3 ? std::stoll(given[3]) : -1);
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
