// From a picture to the explainer's input, and from relevance to a picture.

#include <png.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>

#include "host.hpp"

using nlohmann::json;

namespace {

struct Reader {  // libpng's two structures, and why it gave up
    std::string why;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &why, give_up, [](png_structp, png_const_charp) {});
    png_infop info = png_create_info_struct(png);
    ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }

    static void give_up(png_structp png, png_const_charp why) {
        *static_cast<std::string*>(png_get_error_ptr(png)) = why;
        png_longjmp(png, 1);
    }
};

// A value of some opacity over white, rounded as Pillow does it.
int over_white(int value, int alpha) {
    const int sum = value * alpha + 255 * (255 - alpha) + 128;
    return alpha == 255 ? value : ((sum >> 1) + sum * 128) >> 15;
}

}  // namespace

Picture read_png(const std::string& path) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) throw Refusal(path, std::string("cannot be read (") + std::strerror(errno) + ")", "check the path");
    Reader reader;
    if (setjmp(png_jmpbuf(reader.png)))
        throw Refusal(path, "cannot be read as a PNG (" + reader.why + ")", "save it as a PNG");
    png_init_io(reader.png, file.get());
    png_read_png(reader.png, reader.info, PNG_TRANSFORM_EXPAND, nullptr);  // no palette, eight bits or sixteen

    const int type = png_get_color_type(reader.png, reader.info), bytes = png_get_bit_depth(reader.png, reader.info) / 8;
    const bool colour = type & PNG_COLOR_MASK_COLOR, alpha = type & PNG_COLOR_MASK_ALPHA;
    const bool fractions = bytes == 2 && !colour && (!alpha || png_get_valid(reader.png, reader.info, PNG_INFO_tRNS));
    const int stride = png_get_channels(reader.png, reader.info) * bytes;
    Picture picture{int(png_get_image_width(reader.png, reader.info)), int(png_get_image_height(reader.png, reader.info)),
                    !colour, {}};
    for (int y = 0; y < picture.height; y++) {
        const uint8_t* pixel = png_get_rows(reader.png, reader.info)[y];
        for (int x = 0; x < picture.width; x++, pixel += stride)
            for (int c = 0; c < 3; c++) {
                const uint8_t* sample = pixel + (colour ? c * bytes : 0);  // of sixteen bits, the upper eight come first
                const int opacity = alpha ? pixel[stride - bytes] : 255;
                picture.levels.push_back(fractions ? (sample[0] * 256 + sample[1]) * (255.0f / 65535.0f)
                                                   : over_white(sample[0], opacity));
            }
    }
    return picture;
}

void write_png(const std::string& path, const Pixels& picture) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = picture.width, image.height = picture.height, image.format = PNG_FORMAT_RGB;
    if (!png_image_write_to_file(&image, path.c_str(), 0, picture.rgb.data(), 0, nullptr))
        throw Refusal(path, std::string("cannot be written (") + image.message + ")", "check the folder and its permissions");
}

std::vector<float> prepare(const Picture& picture, const json& way, std::vector<int64_t>& shape) {
    const int width = picture.width, height = picture.height;
    if (!way["size"].is_null() && (way["size"][0] != height || way["size"][1] != width))
        throw Refusal("the picture", "has " + std::to_string(width) + " x " + std::to_string(height) +
                      " pixels, the explainer takes " + way["size"][1].dump() + " x " + way["size"][0].dump(), "resize it");
    const int channels = way["color_order"] == "L" ? 1 : 3;
    const bool last = way["layout"] == "NHWC", reversed = way["color_order"] == "BGR";
    const auto mean = way["mean"].get<std::vector<float>>(), std = way["std"].get<std::vector<float>>();
    const float scale = way["scale"];
    shape = last ? std::vector<int64_t>{1, height, width, channels} : std::vector<int64_t>{1, channels, height, width};
    std::vector<float> values(size_t(channels) * width * height);
    for (int pixel = 0; pixel < width * height; pixel++) {
        const float* rgb = &picture.levels[pixel * 3];
        const float luminance = picture.grey ? rgb[0] : float(0.299f * double(rgb[0]) + 0.587f * double(rgb[1]) +
                                                              0.114f * double(rgb[2]));
        for (int c = 0; c < channels; c++) {
            const float level = channels == 1 ? luminance : rgb[reversed ? 2 - c : c];
            values[last ? pixel * channels + c : c * width * height + pixel] =
                (level / scale - mean[c % mean.size()]) / std[c % std.size()];
        }
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
