// Explain a picture with an explainer: explain EXPLAINER PICTURE.png [HEATMAP.png] [CLASS]
// Check ONNX Runtime against a kit:    explain check DIR [--json FILE] [--repeat TIMES]

#include <algorithm>
#include <charconv>
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

static std::string one_line(const std::exception& error) {
    std::string said = error.what();
    std::replace(said.begin(), said.end(), '\n', ' ');
    return said.substr(0, 300);
}

static Ort::Session opened(const std::string& path) try {
    return open(path);
} catch (const Ort::Exception& error) {
    throw Refusal(path, "cannot be opened (" + one_line(error) + ")", "check the path, or convert the classifier again");
}

static std::string known(const Ort::Session& session, const char* key) {
    Ort::AllocatorWithDefaultOptions allocator;
    const auto value = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
    return value ? value.get() : "";
}

static json stated(const Ort::Session& session, const std::string& path, const char* key) {
    const std::string text = known(session, key);
    const json value = text.empty() ? json::array() : json::parse(text, nullptr, false);
    if (value.is_discarded())
        throw Refusal(path, std::string("its metadata ") + key + " is no JSON", "convert the classifier again");
    return value;
}

static void refuse_others(const Ort::Session& session, const std::string& path) {
    const std::string version = known(session, "onnxlrp.contract");
    if (version.empty())
        throw Refusal(path, "is no explainer", "make one with onnxlrp convert MODEL --preprocess NAME");
    if (version != "1")
        throw Refusal(path, "was written for contract " + version + ", this program knows 1",
                      "take the program that came with the onnxlrp that wrote it");
    if (known(session, "onnxlrp.preprocess").empty())
        throw Refusal(path, "does not store how pixels become its input",
                      "make it with onnxlrp convert MODEL --preprocess NAME");
}

static int64_t class_of(const std::string& text) {
    int number = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
    if (read.ec != std::errc() || read.ptr != text.data() + text.size() || number < -1)
        throw Refusal("class " + text, "is no class", "give its number, or -1 for the predicted one");
    return number;
}

static void explain(const std::string& path, const std::string& picture, const std::string& heatmap, int64_t target) {
    Ort::Session session = opened(path);
    refuse_others(session, path);
    const std::string image = known(session, "onnxlrp.input"), output = known(session, "onnxlrp.output");
    const json way = stated(session, path, "onnxlrp.preprocess"), labels = stated(session, path, "onnxlrp.labels");

    const Feeds feeds = feeds_for(session, path, image, way, read_png(picture), target);
    std::vector<const char*> fed;
    for (const std::string& name : feeds.names) fed.push_back(name.c_str());
    const std::string fixed = known(session, "onnxlrp.target");
    if (fixed != "input" && target != -1 && std::to_string(target) != fixed)
        throw Refusal("class " + std::to_string(target), "cannot be chosen: " + path + " always explains " + fixed,
                      "convert the classifier without --target");
    const char* asked[] = {"relevance", "explained", output.c_str()};
    const auto found = session.Run({}, fed.data(), feeds.values.data(), fed.size(), asked, 3);

    const int64_t classes = found[2].GetTensorTypeAndShapeInfo().GetShape().back();
    if (target >= classes)
        throw Refusal("class " + std::to_string(target),
                      "is out of range: the explainer has " + std::to_string(classes) + " classes",
                      "choose 0 to " + std::to_string(classes - 1) + ", or -1 for the predicted one");
    const auto shape = found[0].GetTensorTypeAndShapeInfo().GetShape();
    write_png(heatmap, draw(found[0].GetTensorData<float>(), shape, way["layout"]));
    const size_t number = found[1].GetTensorData<int64_t>()[0];
    std::cout << "class " << number;
    if (number < labels.size()) std::cout << " (" << labels[number].get<std::string>() << ")";
    std::cout << ": " << heatmap << "\n";
}

static int failed(const std::string& why) {
    std::cerr << "error: " << why << "\n";
    return 2;
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
            if (given[i] == "--repeat") repeat = std::atoi(given[i + 1].c_str());
        }
        return check(given[1], report, repeat);
    }
    const int64_t target = given.size() > 3 ? class_of(given[3]) : -1;
    explain(given[0], given[1], given.size() > 2 ? given[2] : "heatmap.png", target);
    return 0;
} catch (const Refusal& refusal) {
    return failed(refusal.what());
} catch (const std::exception& error) {
    const std::string reason = "ONNX Runtime cannot run it (" + one_line(error) + ")";
    const std::string remedy = "convert the classifier again, or check the runtime: check graphs/conformance";
    return failed(Refusal(words[1], reason, remedy).what());
}
