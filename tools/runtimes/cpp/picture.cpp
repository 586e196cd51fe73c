// From a picture to the explainer's input, and from relevance to a picture.

#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "host.hpp"

using nlohmann::json;

Pixels read_png(const std::string& path) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&image, path.c_str())) throw std::runtime_error(path + ": " + image.message);
    image.format = PNG_FORMAT_RGB;
    Pixels picture{int(image.width), int(image.height), std::vector<uint8_t>(PNG_IMAGE_SIZE(image))};
    const png_color white{255, 255, 255};
    if (!png_image_finish_read(&image, &white, picture.rgb.data(), 0, nullptr))
        throw std::runtime_error(path + ": " + image.message);
    return picture;
}

void write_png(const std::string& path, const Pixels& picture) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = picture.width, image.height = picture.height, image.format = PNG_FORMAT_RGB;
    if (!png_image_write_to_file(&image, path.c_str(), 0, picture.rgb.data(), 0, nullptr))
        throw std::runtime_error(path + ": " + image.message);
}

std::vector<float> prepare(const Pixels& picture, const json& way, std::vector<int64_t>& shape) {
    const int width = picture.width, height = picture.height;
    if (!way["size"].is_null() && (way["size"][0] != height || way["size"][1] != width))
        throw std::runtime_error("the picture is " + std::to_string(width) + " x " + std::to_string(height) +
                                 " pixels, the explainer's size [H, W] is " + way["size"].dump() + "; resize it");
    const int channels = way["color_order"] == "L" ? 1 : 3;
    const bool last = way["layout"] == "NHWC", reversed = way["color_order"] == "BGR";
    const auto mean = way["mean"].get<std::vector<float>>(), std = way["std"].get<std::vector<float>>();
    const float scale = way["scale"];
    shape = last ? std::vector<int64_t>{1, height, width, channels} : std::vector<int64_t>{1, channels, height, width};
    std::vector<float> values(size_t(channels) * width * height);
    for (int pixel = 0; pixel < width * height; pixel++)
        for (int c = 0; c < channels; c++) {
            const float level = picture.rgb[pixel * 3 + (reversed ? 2 - c : c)];
            values[last ? pixel * channels + c : c * width * height + pixel] =
                (level / scale - mean[c % mean.size()]) / std[c % std.size()];
        }
    return values;
}

// 257 colours from relevance -1 over 0 to 1, linear between evenly spaced anchors.
static std::array<std::array<uint8_t, 3>, 257> colours() {
    const int anchors[7][3] = {{11, 42, 120},   {63, 123, 224}, {169, 205, 251}, {255, 255, 255},
                               {255, 184, 166}, {232, 65, 58},  {125, 7, 22}};
    std::array<std::array<uint8_t, 3>, 257> table{};
    for (int i = 0; i < 257; i++) {
        const double place = i * 6 / 256.0;
        const int left = std::min(int(place), 5);
        for (int c = 0; c < 3; c++) {
            const int a = anchors[left][c], b = anchors[left + 1][c];
            table[i][c] = uint8_t(std::nearbyint(a + (b - a) * (place - left)));
        }
    }
    return table;
}

// The 99.8th percentile with linear interpolation, taken from the nearer side: rounding as numpy's.
static double limit_of(const std::vector<double>& map) {
    std::vector<double> strength;
    for (double value : map)
        if (value != 0) strength.push_back(std::abs(value));
    if (strength.empty()) return 1;
    std::sort(strength.begin(), strength.end());
    const double place = (strength.size() - 1) * 0.998;
    const size_t below = size_t(place);
    const double a = strength[below], b = strength[std::min(below + 1, strength.size() - 1)], t = place - below;
    return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

Pixels draw(const float* relevance, const std::vector<int64_t>& shape, const std::string& layout) {
    const bool last = layout == "NHWC";
    const int64_t channels = shape[last ? 3 : 1], height = shape[last ? 1 : 2], width = shape[last ? 2 : 3];
    std::vector<double> map(height * width);
    for (int64_t pixel = 0; pixel < height * width; pixel++)
        for (int64_t c = 0; c < channels; c++)
            map[pixel] += relevance[last ? pixel * channels + c : c * height * width + pixel];
    static const auto table = colours();
    const double limit = limit_of(map);
    Pixels drawn{int(width), int(height), {}};
    for (double value : map) {
        const auto& colour = table[128 + int(std::nearbyint(std::clamp(value / limit, -1.0, 1.0) * 128))];
        drawn.rgb.insert(drawn.rgb.end(), colour.begin(), colour.end());
    }
    return drawn;
}
