// What the files of this host share.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

// What cannot be done: the thing, the reason and the remedy in one line.
struct Refusal : std::runtime_error {
    Refusal(const std::string& thing, const std::string& reason, const std::string& remedy)
        : std::runtime_error(thing + ": " + reason + "; " + remedy) {}
};

struct Picture {
    int width = 0, height = 0;
    bool grey = false;          // the three levels of a pixel are the same
    std::vector<float> levels;  // 0..255, red, green and blue of each pixel, row by row
};

struct Pixels {
    int width = 0, height = 0;
    std::vector<uint8_t> rgb;  // three bytes a pixel, row by row
};

Ort::Session open(const std::string& path);

// picture.cpp
Picture read_png(const std::string& path);
void write_png(const std::string& path, const Pixels& picture);
// The first map of relevance, whose axes are the last three, in colour: the pixels that `onnxlrp run --style heatmap`
// writes.
Pixels draw(const float* relevance, const std::vector<int64_t>& shape, const std::string& layout);

// input.cpp: what an explainer takes, in the types and shapes that it declares: the picture in each place of a fixed
// batch, the class wherever one is asked for, and ones as masks, which let everything pass.
struct Feeds {
    std::vector<std::string> names;
    std::vector<Ort::Value> values;
};
Feeds feeds_for(const Ort::Session& session, const std::string& path, const std::string& image,
                const nlohmann::json& way, const Picture& picture, int64_t target);

// kit.cpp: check this runtime against a conformance kit; the exit code.
int check(const std::string& folder, const std::string& report, int repeat);
